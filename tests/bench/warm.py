"""Warm invocations at 1, 8 and 64 clients, in turns with an echo by uvicorn over the same transport."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.clients import Door, Load, drive, signed, unsigned
from tests.bench.figures import Sheet, progress, rest
from tests.bench.function import hello
from tests.support.daemon import Daemon, clean_environment, free_port
from tests.support.places import REPOSITORY

CLIENTS = (1, 8, 64)
KINDS = {"signed": "TCP, SigV4", "unsigned": "unix socket, no signature"}
_PLACES = {"signed": "TCP", "unsigned": "unix socket"}
_SECONDS = 0.5  # of each turn, where there are several
_MEMORY = 1792  # one whole CPU for each environment: a small function's share would be what is measured
_START_SECONDS = 20


def latency(kind: str, clients: int) -> str:
    return f"warm, {KINDS[kind]}, {clients} client{'s' * (clients > 1)}"


def peer_latency(kind: str, clients: int) -> str:
    return f"uvicorn echo, {_PLACES[kind]}, {clients} client{'s' * (clients > 1)}"


def throughput(name: str) -> str:
    return f"{name}, throughput"


def measure(sheet: Sheet, scratch: Path) -> None:
    """Turns of half a second, ours and the peer's one after the other."""
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Daemon())
        name = daemon.deploy(hello("python3.13", scratch), "warm", MemorySize=_MEMORY)
        ours = {"signed": signed(daemon), "unsigned": unsigned(daemon)}
        echoes: dict[str, Door] = {
            "signed": Door(free_port(), path="/{}"),
            "unsigned": Door(scratch / "echo.sock", path="/{}"),
        }
        for door in echoes.values():
            stack.enter_context(_uvicorn(door))
        progress("warm: environments for 64 clients")
        drive(ours["unsigned"], [[ours["unsigned"].request(name)]] * max(CLIENTS), 2)
        turns = min(5, sheet.rounds // 6)
        seconds = _SECONDS if turns else _SECONDS / 4
        for turn in range(max(1, turns)):
            for clients in CLIENTS:
                progress(f"warm: turn {turn + 1}, {clients} clients")
                for kind in KINDS:
                    one, other = latency(kind, clients), peer_latency(kind, clients)
                    for door, row, peer in ((ours[kind], one, other), (echoes[kind], other, None)):
                        rest()
                        load = drive(door, [[door.request(name)]] * clients, seconds)
                        _note(sheet, row, load, peer, clients)


def _note(sheet: Sheet, name: str, load: Load, peer: str | None, clients: int) -> None:
    row = sheet.row("warm", name, peer=peer)
    row.values += load.times
    row.cpu_ms, row.calls = row.cpu_ms + load.cpu_ms, row.calls + len(load.times)
    if clients > 1:
        rate = sheet.row("warm", throughput(name), unit="/s", peer=throughput(peer) if peer else None)
        rate.values.append(len(load.times) / load.seconds)


@contextlib.contextmanager
def _uvicorn(door: Door) -> Iterator[None]:
    """An echo at this door: one worker, with httptools and uvloop as the daemon has them."""
    place = ["--uds", str(door.address)] if isinstance(door.address, Path) else ["--port", str(door.address)]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "tests.bench.echo:app", "--http", "httptools", "--loop", "uvloop",
         "--lifespan", "off", "--no-access-log", "--log-level", "warning", *place],
        stdin=subprocess.DEVNULL, cwd=REPOSITORY, env=clean_environment(),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                door.connect().close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(_START_SECONDS)
