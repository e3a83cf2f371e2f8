"""Environments made, invoked once and torn down, for a while; and as many sandboxes of bubblewrap as it makes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.bench import peers
from tests.bench.clients import Load, drive, signed
from tests.bench.figures import Sheet, busy_ms, progress, rest
from tests.bench.function import complaints, deploy, hello, warm_up
from tests.support.daemon import Daemon

CLIENTS = (2, 4)
_TORN_DOWN = "fresh environments: invoked once and torn down, which the rate includes, and the time of each does not"
_FUNCTIONS = 16  # of each client
_GONE_SECONDS = 30
_SECONDS = 2.5  # of each turn


def rate(clients: int) -> str:
    return f"fresh Python environments, {clients} clients"


def peer_rate(clients: int) -> str:
    return f"bubblewrap with json and http.client, {clients} at once"


def measure(sheet: Sheet, scratch: Path) -> None:
    """A daemon that keeps no environment ends each behind its answer: the closed loop pays for that too.

    Each client takes its functions in turn, so that no invocation comes before the last one's environment is gone.
    """
    other = peers.Peer(peers.BWRAP_IMPORTS, lambda: peers.bwrap(peers.IMPORTS))
    with Daemon(keep_alive=0) as daemon:
        names = deploy(daemon, hello("python3.13", scratch), "fresh", _FUNCTIONS * max(CLIENTS))
        warm_up(daemon, names[0])
        door = signed(daemon)
        for turn in range(max(1, min(4, sheet.rounds // 7))):
            for clients in CLIENTS:
                progress(f"create: turn {turn + 1}, {clients} clients")
                rest()
                load = drive(
                    door, [[door.request(name) for name in names[n::clients]] for n in range(clients)], _SECONDS
                )
                _wait_torn_down(daemon, load)
                if set(load.bodies) != {b'{"hello": "bench", "count": 1}'}:
                    raise RuntimeError(f"an environment was not fresh: {sorted(set(load.bodies))}")
                _note(sheet, rate(clients), load, peer_rate(clients))
                if shutil.which("bwrap"):
                    rest()
                    _note(sheet, peer_rate(clients), peers.at_once(other, clients, _SECONDS), None)
                else:
                    sheet.row("create", peer_rate(clients), unit="/s", note="not installed")
        for clients in CLIENTS:
            sheet.rows[rate(clients)].note = complaints(daemon) or _TORN_DOWN


def _wait_torn_down(daemon: Daemon, load: Load) -> None:
    """What is put off until after the last answer counts as well."""
    began, busy = time.perf_counter(), busy_ms()
    while daemon.environments():
        if time.perf_counter() - began > _GONE_SECONDS:
            raise RuntimeError("environments that were used once are still there")
        time.sleep(0.005)
    load.seconds += time.perf_counter() - began
    load.cpu_ms += busy_ms() - busy


def _note(sheet: Sheet, name: str, load: Load, peer: str | None) -> None:
    row = sheet.row("create", name, unit="/s", peer=peer)
    row.values.append(len(load.times) / load.seconds)
    row.cpu_ms, row.calls = row.cpu_ms + load.cpu_ms, row.calls + len(load.times)
    each = sheet.row("create", f"{name}, each", peer=f"{peer}, each" if peer else None)
    each.values += load.times
