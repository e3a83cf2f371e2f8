"""A function that answers quickly, and how long it takes to while another one behaves badly."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.support.daemon import FUNCTIONS, Answer, Daemon, UnixConnection

CALLS = 300
# The quiet p99 of one function, in runs seconds apart, lies between 1.0 and 6.5 ms, at 2 on average: a ratio to less
# than this would judge what else ran. It makes the test milder: up to 6 ms pass, whatever was quiet.
FLOOR_SECONDS = 0.002
RATIO = 3
_TRIES = 5
_LOOK_SECONDS = 1.0  # a look at a room takes milliseconds, which the caller then waits for its processor
_MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """p99 of the neighbour in seconds, and the rooms' memory in bytes, before, at most meanwhile, and after."""

    quiet: float
    abused: float
    memory_before: int
    memory_peak: int
    memory_after: int

    @property
    def fair(self) -> bool:
        return self.abused <= RATIO * max(self.quiet, FLOOR_SECONDS)

    def __str__(self) -> str:
        return (
            f"neighbour {self.quiet * 1000:.1f} ms quiet, {self.abused * 1000:.1f} ms under abuse; rooms' memory "
            f"{self.memory_before / _MIB:.1f} MB before, {self.memory_peak / _MIB:.1f} MB at most, "
            f"{self.memory_after / _MIB:.1f} MB after"
        )


def rooms_memory(daemon: Daemon) -> int:
    """Proportional set size of keeper, builder and service, in bytes."""
    return sum(daemon.room(room).memory_full_info().pss for room in ("keeper", "builder", "service"))


def p99(daemon: Daemon, name: str, enough: Callable[[int], bool], percentile: int = 99) -> float:
    """p99 (or less) in seconds of calls one after another over one connection, until there are enough."""
    connection = UnixConnection(daemon.socket)
    waited: list[float] = []
    while not enough(len(waited)):
        began = time.monotonic()
        connection.request("POST", f"{FUNCTIONS}/{name}/invocations", b"{}")
        answer = connection.getresponse()
        body = answer.read()
        waited.append(time.monotonic() - began)
        assert answer.status == 200 and json.loads(body) == {"hello": "world"}, body
    connection.close()
    return sorted(waited)[len(waited) * percentile // 100]


def under_abuse(
    daemon: Daemon, neighbour: str, abuse: Callable[[], list[Answer]], percentile: int = 99
) -> tuple[Measured, list[Answer]]:
    """Run an abuse while a neighbour is called all the time; up to five times, until it was fair once.

    The abuse is repeated until the neighbour was called often enough for a p99; `percentile` is what is held against
    the quiet one's.
    """
    p99(daemon, neighbour, lambda count: count >= 20)
    before = peak = rooms_memory(daemon)
    for number in range(_TRIES):
        quiet = p99(daemon, neighbour, lambda count: count >= CALLS)
        abused, most, answers = _measure_during(daemon, neighbour, abuse, percentile)
        peak = max(peak, most)
        measured = Measured(quiet, abused, before, peak, rooms_memory(daemon))
        if measured.fair or number == _TRIES - 1:
            break
    if path := os.environ.get("TEST_ABUSE_FIGURES"):
        with open(path, "a") as file:
            file.write(f"{os.environ.get('PYTEST_CURRENT_TEST', '')}: {measured}\n")
    return measured, answers


def _measure_during(
    daemon: Daemon, neighbour: str, abuse: Callable[[], list[Answer]], percentile: int
) -> tuple[float, int, list[Answer]]:
    over = threading.Event()
    memory: dict[float, int] = {}

    def repeat() -> list[Answer]:
        answers = abuse()
        while not over.is_set():
            answers += abuse()
        return answers

    def enough(count: int) -> bool:
        now = time.monotonic()
        if now - max(memory, default=0.0) > _LOOK_SECONDS:
            memory[now] = rooms_memory(daemon)
        return count >= CALLS or running.done()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(repeat)
        try:
            abused = p99(daemon, neighbour, enough, percentile)
        finally:
            over.set()
        return abused, max(memory.values()), running.result()
