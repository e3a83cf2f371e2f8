"""How many stems there shall be: what holds after whatever was taken, and what a burst leaves in mind."""

from __future__ import annotations

import math
import operator

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sandboxd.builder.demand import FADING_SECONDS, LEAST, MOST, MOST_TOGETHER, Demand

KINDS = ("python", "node-128", "node-512", "node-1024")
ROOM = 1 << 20
QUIET = FADING_SECONDS * math.log(MOST / LEAST) + 0.001


def alone(demand: Demand[str], now: float, kind: str = "python") -> int:
    return demand.wanted({kind: 5}, ROOM, now)[kind]


def test_one_after_the_other_needs_no_more_than_the_least() -> None:
    demand = Demand[str]()
    for second in range(0, 600, 2):
        demand.taken("python", second)
        assert alone(demand, second) == LEAST


def test_what_was_taken_together_shall_be_there_and_fades() -> None:
    demand = Demand[str]()
    for number in range(10):
        demand.taken("python", 100 + number / 1000)
    held = [alone(demand, 100.01 + seconds) for seconds in (0, 10, 30, 60, QUIET)]
    assert held[0] == 10 and held == sorted(held, reverse=True) and 2 < held[3] < 5 and held[4] == LEAST


def test_a_burst_each_minute_finds_most_of_what_it_takes() -> None:
    demand = Demand[str]()
    for minute in range(10):
        assert minute == 0 or alone(demand, minute * 60) >= 4
        for number in range(12):
            demand.taken("python", minute * 60 + number / 100)


def test_where_room_is_short_each_kind_gets_its_part() -> None:
    demand = Demand[str]()
    for _ in range(MOST):
        for kind in KINDS[:2]:
            demand.taken(kind, 0)
    assert demand.wanted({KINDS[0]: 5, KINDS[1]: 22}, 135, 0) == {KINDS[0]: LEAST + 5, KINDS[1]: LEAST + 5}
    assert demand.wanted({KINDS[0]: 5, KINDS[1]: 22}, 0, 0) == {KINDS[0]: LEAST, KINDS[1]: LEAST}


class Demands(RuleBasedStateMachine):
    """Kinds that are taken in any order and at any time, of any size, with any room."""

    def __init__(self) -> None:
        super().__init__()
        self.demand, self.now, self.room = Demand[str](), 0.0, ROOM
        self.sizes: dict[str, int] = {}
        self.last: dict[str, float] = {}

    @rule(kind=st.sampled_from(KINDS), size=st.integers(1, 100))
    def warm(self, kind: str, size: int) -> None:
        self.sizes[kind] = size

    @rule(kind=st.sampled_from(KINDS), number=st.integers(1, 300))
    def take(self, kind: str, number: int) -> None:
        if kind in self.sizes:
            for _ in range(number):
                self.demand.taken(kind, self.now)
            self.last[kind] = self.now

    @rule(kind=st.sampled_from(KINDS))
    def cool(self, kind: str) -> None:
        self.demand.forget(kind)
        self.sizes.pop(kind, None)
        self.last.pop(kind, None)

    @rule(seconds=st.floats(-0.01, 300, allow_nan=False))
    def wait(self, seconds: float) -> None:
        before = [alone(self.demand, self.now, kind) for kind in KINDS]
        self.now += seconds
        after = [alone(self.demand, self.now, kind) for kind in KINDS]
        assert seconds < 0 or all(map(operator.le, after, before)), "no more is wanted of what nobody takes"

    @rule(room=st.integers(-10, 3000) | st.just(ROOM))
    def other_room(self, room: int) -> None:
        self.room = room

    def wanted(self) -> dict[str, int]:
        return self.demand.wanted(self.sizes, self.room, self.now)

    @invariant()
    def within_bounds(self) -> None:
        wanted = self.wanted()
        assert wanted.keys() == self.sizes.keys()
        assert all(LEAST <= number <= MOST for number in wanted.values())
        assert sum(wanted.values()) <= MOST_TOGETHER
        assert sum((number - LEAST) * self.sizes[kind] for kind, number in wanted.items()) <= max(0, self.room)

    @invariant()
    def the_least_after_a_while(self) -> None:
        for kind, number in self.wanted().items():
            if self.now - self.last.get(kind, -math.inf) >= QUIET:
                assert number == LEAST


TestDemands = Demands.TestCase
