"""How long the daemon takes to serve, and the command line to invoke."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

from tests.bench.clients import BODY
from tests.bench.figures import Sheet, busy_ms, progress, rest
from tests.bench.function import hello
from tests.support.daemon import ADMIN, Daemon, UnixConnection

READY, COMMAND = "sandboxd daemon until it answers", "sandboxd invoke, warm, by the command line"
_SECONDS = 30


def measure(sheet: Sheet, scratch: Path) -> None:
    """The daemon is started with its images and one function there, as after a restart of the machine."""
    ready, command = sheet.row("start", READY), sheet.row("start", COMMAND)
    with Daemon() as daemon:
        name = daemon.deploy(hello("python3.13", scratch), "one")
        for number in range(max(2, sheet.rounds // 5)):
            progress(f"start: time {number + 1}")
            daemon.stop()
            rest()
            busy = busy_ms()
            ready.add(_until_ready(daemon), busy_ms() - busy)
        daemon.cli("invoke", name, "--payload", BODY.decode())
        for _ in range(max(2, sheet.rounds // 3)):
            rest()
            busy, began = busy_ms(), time.perf_counter_ns()
            done = daemon.cli("invoke", name, "--payload", BODY.decode())
            command.add((time.perf_counter_ns() - began) / 1e6, busy_ms() - busy)
            if done.returncode or '"hello"' not in done.stdout:
                raise RuntimeError(f"sandboxd invoke: {done.returncode} {done.stdout} {done.stderr}")


def _until_ready(daemon: Daemon) -> float:
    """Milliseconds from the start of the command to an answer of its API, asked every millisecond."""
    began = time.perf_counter_ns()
    process = daemon.spawn()
    while time.perf_counter_ns() - began < _SECONDS * 1e9 and process.poll() is None:
        try:
            connection = UnixConnection(daemon.socket, _SECONDS)
            connection.request("GET", f"{ADMIN}/status")
            status = connection.getresponse().status
            connection.close()
        except (OSError, http.client.HTTPException):
            time.sleep(0.001)
            continue
        if status == 200:
            return (time.perf_counter_ns() - began) / 1e6
    raise RuntimeError(f"the daemon does not answer: {daemon.log()}")
