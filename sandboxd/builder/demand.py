"""How many stems of each kind there shall be: a few at least, and as many as were lately taken together.

Room: root, parent side, pure. May: remember times it was told. May not: I/O, clock.

A stem is made again a moment after it was taken, so that first invocations one after the other never need more than a
few. More are for bursts: what counts is how many are taken within about a second; the most of that is kept in mind, and
fades. Two numbers of each kind say all of it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

LEAST, MOST = 2, 16  # of one kind
MOST_TOGETHER = 32  # of all kinds
TOGETHER_SECONDS = 1.0  # within which what is taken counts as one burst
FADING_SECONDS = 60.0  # in which what a burst leaves in mind falls to a third; from the most to the least: two minutes

Kind = TypeVar("Kind", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Taken:
    """As of the last one: how many together, and the most of that which is still in mind."""

    at: float
    together: float
    most: float

    def remembered(self, now: float) -> float:
        return self.most * _faded(now - self.at, FADING_SECONDS)


class Demand(Generic[Kind]):
    """What was taken of each kind, and what shall therefore be there."""

    def __init__(self) -> None:
        self._taken: dict[Kind, _Taken] = {}

    def taken(self, kind: Kind, now: float) -> None:
        """One of this kind was asked for, whether there was one or not."""
        last = self._taken.get(kind, _Taken(now, 0.0, 0.0))
        together = last.together * _faded(now - last.at, TOGETHER_SECONDS) + 1.0
        self._taken[kind] = _Taken(now, together, max(min(together, MOST), last.remembered(now)))

    def forget(self, kind: Kind) -> None:
        """Nothing is kept of this kind any more."""
        self._taken.pop(kind, None)

    def wanted(self, sizes: Mapping[Kind, int], room: int, now: float) -> dict[Kind, int]:
        """How many there shall be of each of these kinds, one of which holds `sizes` MB.

        Those beyond the least may hold `room` MB together. Where that, or the number of all, is too little for what
        every kind should have, each gets its part.
        """
        more = {kind: max(0, self._alone(kind, now) - LEAST) for kind in sizes}
        more = _shared(more, dict.fromkeys(sizes, 1), MOST_TOGETHER - LEAST * len(sizes))
        more = _shared(more, sizes, room)
        return {kind: LEAST + number for kind, number in more.items()}

    def _alone(self, kind: Kind, now: float) -> int:
        """How many there should be if there was no other kind."""
        taken = self._taken.get(kind)
        return math.ceil(taken.remembered(now)) if taken is not None else 0


def _faded(seconds: float, constant: float) -> float:
    return math.exp(-max(0.0, seconds) / constant)


def _shared(numbers: Mapping[Kind, int], sizes: Mapping[Kind, int], room: int) -> dict[Kind, int]:
    """So many of each as find room, all reduced in proportion."""
    asked = sum(number * sizes[kind] for kind, number in numbers.items())
    if asked <= max(0, room):
        return dict(numbers)
    return {kind: number * max(0, room) // asked for kind, number in numbers.items()}
