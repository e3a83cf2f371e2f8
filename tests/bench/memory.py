"""What idle environments hold, and that every one of them answers afterwards; what the rooms hold."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from sandboxd.builder import cgroups
from tests.bench.clients import Door, drive, unsigned
from tests.bench.figures import Sheet, progress, rest
from tests.bench.function import complaints, deploy, hello, warm_up
from tests.support.daemon import Daemon

ROOMS = "keeper, builder with its helpers, and service"
_HELPERS = ("router", "templates", "mapper")
_CLIENTS = 8
_FROZEN_SECONDS = 60


def environment(count: int) -> str:
    return f"idle Python environment, one of {count:,}"


def measure_idle(sheet: Sheet, scratch: Path, count: int) -> None:
    """PSS of runtime and pid 1 of `count` environments of as many functions, each invoked once and frozen since."""
    row = sheet.row(
        "idle", environment(count), unit="MB", note="memory: PSS, of an environment that of runtime and pid 1"
    )
    again = sheet.row("idle", f"{environment(count)}: its next answer")
    with Daemon() as daemon:
        progress(f"idle: {count} functions")
        function = hello("python3.13", scratch)
        warm_up(daemon, daemon.deploy(function, "first"))
        daemon.delete("first")
        names = deploy(daemon, function, "idle", count)
        rest()
        door = unsigned(daemon)
        progress(f"idle: {count} environments")
        _all_answer(door, names, 1)
        deadline = time.monotonic() + _FROZEN_SECONDS
        while sum(one["State"] == "Frozen" for one in daemon.environments()) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all of {count} environments came to rest")
            time.sleep(0.1)
        for group in _frozen_groups(daemon):
            row.add(sum(_pss_mb(int(pid)) for pid in (group / "cgroup.procs").read_text().split()))
        if len(row.values) != count:
            raise RuntimeError(f"{len(row.values)} frozen environments were found, not {count}")
        row.note = complaints(daemon) or row.note
        progress(f"idle: {count} environments answer again")
        again.values += _all_answer(door, names, 2)


def _all_answer(door: Door, names: list[str], invocation: int) -> list[float]:
    """Milliseconds of an invocation of each. Raises RuntimeError if it is not the `invocation`th of its environment."""
    clients = [[door.request(name) for name in names[first::_CLIENTS]] for first in range(_CLIENTS)]
    load = drive(door, [requests for requests in clients if requests])
    if load.bodies != [b'{"hello": "bench", "count": %d}' % invocation] * len(names):
        raise RuntimeError(f"not all answered as idle environments: {sorted(set(load.bodies))}")
    return load.times


def _frozen_groups(daemon: Daemon) -> list[Path]:
    """The cgroups of environments that rest; stems, which are nobody's yet, run."""
    unified = next(mount for mount in cgroups.mounts() if mount.unified)
    groups = [path for path in Path(cgroups.base_path(unified, daemon.instance)).iterdir() if path.is_dir()]
    return [group for group in groups if "frozen 1" in (group / "cgroup.events").read_text()]


def _pss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) * 1024 / 1e6


def measure_rooms(sheet: Sheet, scratch: Path) -> None:
    """A daemon that has served one function, and has made ahead what it keeps: PSS of all its processes."""
    with Daemon() as daemon:
        warm_up(daemon, daemon.deploy(hello("python3.13", scratch), "one"))
        for _ in range(3):  # stems and zygote are made after a moment each
            time.sleep(0.5)
            rest()
        daemon.delete("one")
        rest()
        keeper = daemon.room("keeper")
        held: dict[str, float] = {}
        for process in [keeper, *keeper.children(recursive=True)]:
            kind = _kind(process)
            held[kind] = held.get(kind, 0) + _pss_mb(process.pid)
    for kind, megabytes in sorted(held.items()):
        sheet.row("rooms", kind, unit="MB").add(megabytes)
    total = sheet.row(
        "rooms",
        ROOMS,
        unit="MB",
        note="keeper, builder, service: without zygotes and what is made ahead, which have rows of their own",
    )
    total.add(sum(held[kind] for kind in ("keeper", "builder", "builder's helpers", "service")))


def _kind(process: psutil.Process) -> str:
    title = " ".join(process.cmdline())
    for room in ("keeper", "builder", "service"):
        if title.startswith(f"sandboxd: {room}"):
            return room
    if process.name() == "zygote":
        return "zygote"
    if any(helper in title for helper in _HELPERS):
        return "builder's helpers"
    return "made ahead: spares and stems"
