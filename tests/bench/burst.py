"""Many first invocations of as many functions at one moment."""

from __future__ import annotations

from pathlib import Path

from tests.bench.clients import drive, signed
from tests.bench.figures import Sheet, progress, rest
from tests.bench.function import complaints, deploy, hello, warm_up
from tests.support.daemon import Daemon

FUNCTIONS = 200
EACH, TOTAL = f"burst of {FUNCTIONS} functions, each", f"burst of {FUNCTIONS} functions, all answered after"


def measure(sheet: Sheet, scratch: Path) -> None:
    """Every function has a connection of its own; an answer that is missing or wrong ends the run."""
    each, total = sheet.row("burst", EACH), sheet.row("burst", TOTAL)
    with Daemon() as daemon:
        function = hello("python3.13", scratch)
        warm_up(daemon, daemon.deploy(function, "first"))
        for number in range(max(1, sheet.rounds // 10)):
            progress(f"burst: {FUNCTIONS} functions, time {number + 1}")
            names = deploy(daemon, function, f"burst-{number}", FUNCTIONS)
            door = signed(daemon)
            rest()
            load = drive(door, [[door.request(name)] for name in names])
            each.values += load.times
            each.cpu_ms, each.calls = each.cpu_ms + load.cpu_ms, each.calls + len(load.times)
            total.add(load.seconds * 1000)
            if set(load.bodies) != {b'{"hello": "bench", "count": 1}'} or len(load.bodies) != FUNCTIONS:
                raise RuntimeError(f"burst: {sorted(set(load.bodies))}")
            for name in names:
                daemon.delete(name)
        each.note = complaints(daemon)
