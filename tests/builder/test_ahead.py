"""Which kinds of stems are made ahead, how many of each, and which make room for others."""

from __future__ import annotations

import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sandboxd.builder import ahead
from sandboxd.builder.ahead import WARM_KINDS, Ahead
from sandboxd.builder.demand import LEAST, MOST
from sandboxd.builder.zygotes import Zygotes
from sandboxd.model.environment import EnvironmentSpec
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.patched import launcher
from tests.support.places import TIME_FACTOR

_SECONDS = 30 * TIME_FACTOR
IMAGE = bytes(32)


class World:
    """Environments that are nothing but their names, and boot at once."""

    def __init__(self) -> None:
        self.numbers, self.booted, self.ended = itertools.count(), list[Any](), list[Any]()
        # There is no such image, so nothing of it is forked.
        zygotes = Zygotes(self, [], str, self.ended.append, self.ended.append)  # type: ignore[arg-type]
        self.ahead = Ahead(self, self.prepare, zygotes, self.ended.append, 0)  # type: ignore[arg-type]
        self.environ = os.memfd_create("environ")

    def prepare(self, mother: None) -> Any:
        number = next(self.numbers)
        return SimpleNamespace(
            number=number, kind=(b"", 0), failure=None, exit_status=None, ending=False, mother=mother
        )

    def boot(self, environment: Any, kind: tuple[bytes, int], environ: int) -> None:
        os.fstat(environ)
        environment.kind = kind
        self.booted.append(environment)

    def fits_stem(self, spec: EnvironmentSpec) -> bool:
        return True

    def warm(self, memory_mb: int) -> None:
        self.ahead.warm((IMAGE, memory_mb), self.environ)
        self.work()

    def work(self) -> None:
        while self.ahead.wanting():
            self.ahead.refill()
            if self.booted:
                self.ahead.settle(self.booted.pop())

    def take(self, memory_mb: int) -> Any:
        return self.ahead.take_stem(EnvironmentSpec(1, IMAGE, bytes(32), memory_mb, 512, 64, 64))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.ahead.end()
    os.close(made.environ)


def test_a_stem_is_for_its_size_where_it_was_told_one(world: World) -> None:
    world.warm(128)
    assert world.take(256) is None
    stems = [world.take(128) for _ in range(LEAST)]
    assert len({stem.number for stem in stems}) == LEAST and world.take(128) is None
    world.warm(0)  # of a runtime that is told nothing: for all
    assert world.take(256).kind == (IMAGE, 0)


def test_the_kind_that_was_longest_unasked_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "KEPT_SECONDS", 0)
    sizes = range(128, 128 + WARM_KINDS)
    for size in (*sizes, sizes[0], 512):
        world.warm(size)
    assert [stem.kind for stem in world.ended] == [(IMAGE, sizes[1])] * LEAST
    assert world.take(sizes[1]) is None and world.take(sizes[0]) and world.take(512)


def test_kinds_that_are_asked_for_in_turn_do_not_push_each_other_out(world: World) -> None:
    for size in [*range(128, 129 + WARM_KINDS)] * 3:
        world.warm(size)
    assert world.ended == []
    assert [world.take(size) is None for size in range(128, 129 + WARM_KINDS)] == [False] * WARM_KINDS + [True]


def test_where_memory_is_short_only_the_least_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_COUNT_SECONDS", 0)
    monkeypatch.setattr(ahead, "_PACE_SECONDS", 0)
    world.warm(0)
    assert [world.take(128) is None for _ in range(6)] == [False] * LEAST + [True] * (6 - LEAST)
    world.work()
    assert world.ended == [], "what a burst took is there for the next one"
    monkeypatch.setattr(ahead, "_available_mb", lambda: 0)
    world.work()
    assert len(world.ended) == 6 - LEAST
    assert [world.take(128) is None for _ in range(LEAST + 1)] == [False] * LEAST + [True]


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a daemon")
def test_a_burst_leaves_more_of_them_and_they_go_again(machine: None) -> None:
    own = Daemon()
    (own.base / "quiet").write_bytes(b"\0")
    own.launcher = launcher("tests.builder.test_ahead:forgetting_when_told", str(own.base / "quiet"))
    with own:
        name = own.deploy(packages.load("evaluate"))
        assert own.call(name, {"code": "result = 1"}) == 1
        eventually(lambda: len(runtimes(own)) == 1 + LEAST)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: own.call(name, {"code": "import time; time.sleep(1)"}), range(8)))
        used = len(own.admin("GET", "/environments").json["Environments"])
        eventually(lambda: len(runtimes(own)) > used + LEAST)
        grown = runtimes(own)
        assert len(grown) <= used + MOST
        with open(own.base / "quiet", "r+b") as file:
            file.write(b"\1")
        eventually(lambda: len(runtimes(own)) == used + LEAST)
        eventually(lambda: not any(one.is_running() for one in grown - runtimes(own)))


def runtimes(daemon: Daemon) -> set[psutil.Process]:
    """Of environments of functions, and of stems; all are the builder's children."""
    return {one for one in daemon.room("builder").children() if _name(one) == "bootstrap"}


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def eventually(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def forgetting_when_told(room: str, path: str) -> None:
    """In the builder, before it begins: no time passes until the file says that very much has."""
    if room == "sandboxd.builder.room":
        from sandboxd.builder import demand

        with open(path, "r+b") as file:
            quiet = mmap.mmap(file.fileno(), 1)
        demand._faded = lambda seconds, constant: 0.0 if quiet[0] else 1.0
        ahead._PACE_SECONDS = 0.1
