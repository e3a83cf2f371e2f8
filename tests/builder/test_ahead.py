"""Which kinds of stems are made ahead, and which make room for others."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sandboxd.builder import ahead
from sandboxd.builder.ahead import STEMS, WARM_KINDS, Ahead
from sandboxd.builder.zygotes import Zygotes
from sandboxd.model.environment import EnvironmentSpec

IMAGE = bytes(32)


class World:
    """Environments that are nothing but their names, and boot at once."""

    def __init__(self) -> None:
        self.numbers, self.booted, self.ended = itertools.count(), list[Any](), list[Any]()
        # There is no such image, so nothing of it is forked.
        zygotes = Zygotes(self, [], str, self.ended.append, self.ended.append)  # type: ignore[arg-type]
        self.ahead = Ahead(self, self.prepare, zygotes, self.ended.append)  # type: ignore[arg-type]
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
    stems = [world.take(128) for _ in range(STEMS)]
    assert len({stem.number for stem in stems}) == STEMS and world.take(128) is None
    world.warm(0)  # of a runtime that is told nothing: for all
    assert world.take(256).kind == (IMAGE, 0)


def test_the_kind_that_was_longest_unasked_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "KEPT_SECONDS", 0)
    sizes = range(128, 128 + WARM_KINDS)
    for size in (*sizes, sizes[0], 512):
        world.warm(size)
    assert [stem.kind for stem in world.ended] == [(IMAGE, sizes[1])] * STEMS
    assert world.take(sizes[1]) is None and world.take(sizes[0]) and world.take(512)


def test_kinds_that_are_asked_for_in_turn_do_not_push_each_other_out(world: World) -> None:
    for size in [*range(128, 129 + WARM_KINDS)] * 3:
        world.warm(size)
    assert world.ended == []
    assert [world.take(size) is None for size in range(128, 129 + WARM_KINDS)] == [False] * WARM_KINDS + [True]
