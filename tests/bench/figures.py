"""What was measured: samples become rows with percentiles, CPU time and the ratio to a peer of the same run."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/sys/fs/cgroup/cpuacct/cpuacct.usage")
_TICK = os.sysconf("SC_CLK_TCK")
_WINDOW = 0.02  # s; the builder refills after as long a quiet, so rest is a multiple of it
_QUIET_WINDOWS = 4
_QUIET = 0.15  # of one processor
_REST_SECONDS = 0.5


def busy_ms() -> float:
    """CPU time that the whole machine has spent: clients, kernel threads and what runs behind the answer included.

    By the root of cgroup v1's accounting (nanoseconds) where there is one, else by /proc/stat, which counts in ticks.
    """
    with contextlib.suppress(OSError):
        return int(_ACCOUNT.read_text()) / 1e6
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) * 1000 / _TICK


def rest() -> None:
    """Return when the machine has done next to nothing for a moment: what was used is made again, what ended is gone.

    Somebody else's load does not hold up the run: after half a second it goes on.
    """
    deadline, quiet = time.monotonic() + _REST_SECONDS, 0
    while quiet < _QUIET_WINDOWS and time.monotonic() < deadline:
        began, busy = time.monotonic(), busy_ms()
        time.sleep(_WINDOW)
        share = (busy_ms() - busy) / 1000 / (time.monotonic() - began)
        quiet = quiet + 1 if share < _QUIET else 0


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass
class Row:
    """One figure. `peer` names the row of the same sheet that it is compared with; `note` says what it is, or lacks."""

    part: str
    name: str
    unit: str = "ms"
    peer: str | None = None
    note: str = ""
    values: list[float] = field(default_factory=list)
    cpu_ms: float = 0  # of all `calls`
    calls: int = 0

    def add(self, value: float, cpu_ms: float | None = None, calls: int = 1) -> None:
        """One sample, and the CPU time of the calls it stands for."""
        self.values.append(value)
        if cpu_ms is not None:
            self.cpu_ms += cpu_ms
            self.calls += calls

    def at(self, share: float) -> float | None:
        """A percentile, if anything was measured."""
        return percentile(self.values, share) if self.values else None


@dataclass
class Sheet:
    """The rows of one run, in the order of their making."""

    rounds: int
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, part: str, name: str, **about: Any) -> Row:
        """The row of this name, made when it is first asked for."""
        return self.rows.setdefault(name, Row(part, name, **about))

    def at(self, name: str, share: float = 0.5) -> float | None:
        """A row's percentile, if that row was measured."""
        return self.rows[name].at(share) if name in self.rows else None

    def ratio(self, name: str, peer: str | None) -> float | None:
        """A row's median in that of another."""
        ours, theirs = self.at(name), self.at(peer) if peer else None
        return ours / theirs if ours is not None and theirs else None

    def described(self) -> list[dict[str, Any]]:
        """The rows as JSON has them; what was not measured is null."""
        return [
            {
                "part": row.part,
                "name": row.name,
                "unit": row.unit,
                **{f"p{share:.0%}"[:-1]: _rounded(row.at(share)) for share in (0.5, 0.9, 0.99)},
                "count": max(len(row.values), row.calls),
                "cpu_ms": _rounded(row.cpu_ms / row.calls) if row.calls else None,
                "peer": row.peer,
                "ratio": _rounded(self.ratio(row.name, row.peer)),
                "note": row.note,
            }
            for row in self.rows.values()
        ]


def _rounded(value: float | None) -> float | None:
    """Four digits, which is more than a run can promise."""
    return None if value is None else float(f"{value:.4g}")


def progress(text: str) -> None:
    """Tell whoever sits at a terminal what is being measured."""
    if sys.stderr.isatty():
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)
