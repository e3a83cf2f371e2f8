"""The pool: event, then instructions; and what holds after any sequence of events."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandboxd.scheduler.concurrency import Reason
from sandboxd.scheduler.keep_alive import POLICIES, GreedyDual, IdleEnvironments, OldestFirst, Used
from sandboxd.scheduler.pool import (
    Allotted,
    Assign,
    Destroy,
    DrainStarted,
    EnvironmentDied,
    EnvironmentFailed,
    EnvironmentReady,
    Event,
    Freeze,
    Instruction,
    InvocationArrived,
    InvocationFinished,
    Pool,
    Prepare,
    Reject,
    Start,
    Tick,
    VersionRetired,
)
from sandboxd.scheduler.provisioned import AT_A_TIME, Standing


def make(concurrency: int, keep_alive: float, memory: int = 1 << 40) -> Pool:
    return Pool(concurrency, OldestFirst(keep_alive), memory)


def arrived(request_id: str, key: str = "f:1", function_name: str = "f") -> InvocationArrived:
    return InvocationArrived(request_id, function_name, key)


def warm(pool: Pool, *environments: int, key: str = "f:1", at: float = 0.0) -> None:
    """Bring a pool to have these environments, the next that it makes, idle."""
    for number in environments:
        assert pool.handle(arrived(f"warm{number}", key), at) == [Start(f"warm{number}", number)]
        assert pool.handle(EnvironmentReady(number), at) == []
    for number in environments:
        assert pool.handle(InvocationFinished(number, True), at) == [Freeze(number)]


def test_cold_then_warm() -> None:
    pool = make(10, 60)
    assert pool.handle(arrived("a"), 0) == [Start("a", 1)]
    assert pool.handle(EnvironmentReady(1), 1) == []
    assert pool.handle(InvocationFinished(1, True), 2) == [Freeze(1)]
    assert pool.handle(arrived("b"), 3) == [Assign("b", 1)]
    assert pool.handle(arrived("c"), 3) == [Start("c", 2)]


def test_never_across_versions() -> None:
    pool = make(10, 60)
    warm(pool, 1)
    assert pool.handle(arrived("a", "f:2"), 1) == [Start("a", 2)]
    assert pool.handle(arrived("b", "g:1", "g"), 1) == [Start("b", 3)]


def test_the_last_used_is_used_first() -> None:
    pool = make(10, 60)
    warm(pool, 1, 2, 3)
    assert pool.handle(arrived("a"), 1) == [Assign("a", 3)]
    assert pool.handle(InvocationFinished(3, True), 2) == [Freeze(3)]
    assert pool.handle(arrived("b"), 3) == [Assign("b", 3)]
    assert pool.handle(arrived("c"), 3) == [Assign("c", 2)]


def test_keep_alive() -> None:
    pool = make(10, 60)
    assert pool.next_tick() is None
    warm(pool, 1, 2)
    assert pool.next_tick() == 60
    pool.handle(arrived("a"), 30)
    pool.handle(InvocationFinished(2, True), 31)
    assert pool.handle(Tick(), 59.9) == []
    assert pool.handle(Tick(), 60) == [Destroy(1)]
    assert pool.next_tick() == 91
    assert pool.handle(Tick(), 200) == [Destroy(2)]
    assert pool.next_tick() is None


def test_no_keep_alive() -> None:
    pool = make(10, 0)
    warm(pool, 1)
    assert pool.next_tick() == 0
    assert pool.handle(Tick(), 0) == [Destroy(1)]


def test_the_account_s_limit() -> None:
    pool = make(2, 60)
    assert pool.handle(arrived("a"), 0) == [Start("a", 1)]
    assert pool.handle(arrived("b", "g:1", "g"), 0) == [Start("b", 2)]
    assert pool.handle(arrived("c"), 0) == [Reject("c", Reason.CONCURRENCY)]
    pool.handle(EnvironmentReady(1), 0)
    pool.handle(InvocationFinished(1, True), 0)
    assert pool.handle(arrived("d"), 0) == [Assign("d", 1)]
    assert pool.handle(arrived("e"), 0) == [Reject("e", Reason.CONCURRENCY)]
    assert pool.handle(EnvironmentFailed(2), 0) == [Destroy(2)]
    assert pool.handle(arrived("f"), 0) == [Start("f", 3)]


def test_each_account_has_its_own_limit() -> None:
    pool = make(2, 60)
    ours = [InvocationArrived(f"o{n}", "o:f", "o:f:1", "ours") for n in range(3)]
    theirs = [InvocationArrived(f"t{n}", "t:f", "t:f:1", "theirs") for n in range(3)]
    assert [pool.handle(one, 0) for one in ours] == [
        [Start("o0", 1)], [Start("o1", 2)], [Reject("o2", Reason.CONCURRENCY)]
    ]  # fmt: skip
    assert pool.handle(Allotted("t:f", 1, {"t:f:1": 1}, "theirs"), 0) == [Prepare(3, "t:f:1")]
    assert pool.handle(EnvironmentReady(3), 0) == [Freeze(3)]
    assert [pool.handle(one, 0) for one in theirs[:2]] == [[Assign("t0", 3)], [Reject("t1", Reason.RESERVED)]]
    assert pool.in_flight == 3
    assert pool.handle(InvocationFinished(3, True), 0) == [Freeze(3)]
    assert pool.handle(EnvironmentFailed(1, again=True), 0) == [Destroy(1), Start("o0", 4)]
    assert pool.handle(ours[2], 0) == [Reject("o2", Reason.CONCURRENCY)]
    assert pool.handle(EnvironmentFailed(4), 0) == [Destroy(4)]
    assert pool.handle(ours[2], 0) == [Start("o2", 5)]
    assert pool.handle(theirs[2], 0) == [Assign("t2", 3)]


def test_what_is_reserved_is_a_guarantee_and_a_cap() -> None:
    pool = make(3, 60)
    assert pool.handle(Allotted("f", 2), 0) == []
    assert pool.handle(arrived("a", "g:1", "g"), 0) == [Start("a", 1)]
    assert pool.handle(arrived("b", "g:1", "g"), 0) == [Reject("b", Reason.CONCURRENCY)]
    assert pool.handle(arrived("c", "f:1"), 0) == [Start("c", 2)]
    assert pool.handle(arrived("d", "f:2"), 0) == [Start("d", 3)]
    assert pool.handle(arrived("e", "f:1"), 0) == [Reject("e", Reason.RESERVED)]
    assert pool.handle(Allotted("f", None), 0) == []
    assert pool.handle(arrived("g", "f:1"), 0) == [Reject("g", Reason.CONCURRENCY)]
    assert pool.handle(EnvironmentFailed(3), 0) == [Destroy(3)]
    assert pool.handle(arrived("h", "g:1", "g"), 0) == [Start("h", 4)]
    assert pool.handle(Allotted("g", 0), 0) == []
    assert pool.in_flight == 3  # nothing that runs is lost
    assert pool.handle(arrived("i", "g:1", "g"), 0) == [Reject("i", Reason.RESERVED)]


def test_made_ahead_and_kept() -> None:
    pool = make(10, 60)
    assert pool.handle(Allotted("f", None, {"f:1": 2}), 0) == [Prepare(1, "f:1"), Prepare(2, "f:1")]
    assert pool.handle(EnvironmentReady(1, 5), 1) == [Freeze(1)]
    assert pool.standing("f:1") == Standing(1, 1)
    assert pool.handle(arrived("a"), 1) == [Assign("a", 1)]
    assert pool.handle(arrived("b"), 1) == [Start("b", 3)]  # spills over
    assert pool.handle(EnvironmentReady(2), 1) == [Freeze(2)]
    pool.handle(InvocationFinished(1, True), 2)
    pool.handle(EnvironmentReady(3), 2)
    pool.handle(InvocationFinished(3, True), 2)
    assert pool.handle(Tick(), 1000) == [Destroy(3)]
    assert pool.handle(arrived("c"), 1000) == [Assign("c", 1)]
    assert pool.handle(InvocationFinished(1, False), 1001) == [Destroy(1), Prepare(4, "f:1")]
    assert pool.handle(EnvironmentFailed(4), 1002) == [Destroy(4)]
    assert (pool.standing("f:1"), pool.next_tick()) == (Standing(1, 1, failing=True), 1003)
    assert pool.handle(Tick(), 1003) == [Prepare(5, "f:1")]
    assert pool.handle(EnvironmentFailed(5), 1003) == [Destroy(5)]
    assert pool.next_tick() == 1005  # each time twice as long
    assert pool.handle(Allotted("f", None), 1004) == [Destroy(2)]
    assert pool.next_tick() is None


def test_the_old_go_when_the_new_are_there() -> None:
    pool = make(10, 60)
    pool.handle(Allotted("f", None, {"f:1": 1}), 0)
    pool.handle(EnvironmentReady(1), 0)
    assert pool.handle(Allotted("f", None, {"f:2": 1}), 1) == [Prepare(2, "f:2")]
    assert pool.handle(arrived("a"), 1) == [Assign("a", 1)]
    assert pool.handle(InvocationFinished(1, True), 2) == [Freeze(1)]
    assert pool.handle(EnvironmentReady(2), 3) == [Freeze(2), Destroy(1)]


def test_a_few_are_made_at_a_time_in_turn() -> None:
    pool = make(100, 60)
    pool.handle(Allotted("f", None, {"f:1": 40}), 0)
    assert pool.handle(Allotted("g", None, {"g:1": 1}), 0) == []
    assert pool.handle(EnvironmentReady(1), 0)[1:] == [Prepare(AT_A_TIME + 1, "f:1")]
    assert pool.handle(EnvironmentReady(2), 0)[1:] == [Prepare(AT_A_TIME + 2, "g:1")]


def test_retirement() -> None:
    pool = make(10, 60)
    warm(pool, 1, 2)
    pool.handle(arrived("a"), 1)  # in 2
    pool.handle(arrived("b", "f:new"), 1)  # starts 3
    pool.handle(arrived("c", "g:1", "g"), 1)
    assert pool.handle(VersionRetired("f:1"), 2) == [Destroy(1)]
    assert pool.handle(InvocationFinished(2, True), 3) == [Destroy(2)]
    pool.handle(EnvironmentReady(3), 3)
    assert pool.handle(InvocationFinished(3, True), 4) == [Freeze(3)]
    pool.handle(EnvironmentReady(4), 4)
    assert pool.handle(InvocationFinished(4, True), 4) == [Freeze(4)]
    assert pool.handle(VersionRetired("unknown"), 5) == []


def test_an_undelivered_invocation_gets_another_environment_whatever_happens_meanwhile() -> None:
    pool = make(1, 60)
    warm(pool, 1)
    assert pool.handle(arrived("a"), 0) == [Assign("a", 1)]
    assert pool.handle(EnvironmentDied(1), 0) == []
    assert pool.handle(DrainStarted(), 0) == []
    assert pool.handle(EnvironmentFailed(1, again=True), 0) == [Destroy(1), Start("a", 2)]
    assert pool.in_flight == 1
    pool.handle(EnvironmentReady(2), 0)
    assert pool.handle(InvocationFinished(2, True), 0) == [Destroy(2)]  # retired by the drain, as the first was


def test_what_takes_the_place_of_a_dead_one_lives() -> None:
    pool = make(1, 60)
    warm(pool, 1)
    pool.handle(arrived("a"), 0)
    pool.handle(EnvironmentDied(1), 0)
    assert pool.handle(EnvironmentFailed(1, again=True), 0) == [Destroy(1), Start("a", 2)]
    pool.handle(EnvironmentReady(2), 0)
    assert pool.handle(InvocationFinished(2, True), 0) == [Freeze(2)]


def test_death() -> None:
    pool = make(10, 60)
    warm(pool, 1, 2)
    assert pool.handle(EnvironmentDied(1), 1) == [Destroy(1)]
    assert pool.handle(EnvironmentDied(1), 1) == []
    pool.handle(arrived("a"), 1)
    assert pool.handle(EnvironmentDied(2), 1) == []
    assert pool.handle(InvocationFinished(2, True), 1) == [Destroy(2)]
    pool.handle(arrived("b"), 1)
    pool.handle(EnvironmentReady(3), 1)
    assert pool.handle(InvocationFinished(3, False), 1) == [Destroy(3)]


def test_drain() -> None:
    pool = make(10, 60)
    warm(pool, 1, 2)
    pool.handle(arrived("a"), 1)
    assert pool.handle(DrainStarted(), 2) == [Destroy(1)]
    assert pool.handle(arrived("b"), 3) == [Reject("b", Reason.DRAINING)]
    assert pool.handle(InvocationFinished(2, True), 4) == [Destroy(2)]
    assert pool.next_tick() is None


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("number", [1, 30_000])
def test_a_step_costs_the_same_at_any_number(number: int, policy: str) -> None:
    pool = Pool(1 << 30, POLICIES[policy](60), 1 << 40)
    warm(pool, *range(1, number + 1))
    began = time.process_time()
    for turn in range(2000):
        [assign] = pool.handle(arrived(str(turn)), 1)
        assert isinstance(assign, Assign)
        pool.handle(InvocationFinished(assign.environment_id, True), 1)
        pool.handle(Tick(), 1)
    assert (time.process_time() - began) / 2000 < 0.0005


def test_what_is_cheap_large_and_seldom_used_goes_first() -> None:
    pool = Pool(10, GreedyDual(60), 100)
    for number, (key, seconds, memory) in enumerate([("quick", 1, 30), ("slow", 9, 30), ("small", 1, 5)], 1):
        assert pool.handle(arrived("a", key), 0) == [Start("a", number)]
        pool.handle(EnvironmentReady(number), seconds)
        assert pool.handle(InvocationFinished(number, True, memory), seconds) == [Freeze(number)]
    assert pool.handle(arrived("b", "large"), 10) == [Start("b", 4)]
    pool.handle(EnvironmentReady(4), 12)
    assert pool.handle(InvocationFinished(4, True, 60), 12) == [
        Freeze(4),
        Destroy(1),
    ]  # of equals, the older
    assert pool.memory == 95
    assert pool.handle(arrived("c", "slow"), 13) == [Assign("c", 2)]
    assert pool.handle(InvocationFinished(2, True, 60), 13) == [Freeze(2), Destroy(4)]  # 2/60 < 5/30, 1/5 and 2 x 9/60


def test_the_clock_lets_old_worth_fade() -> None:
    pool = Pool(10, GreedyDual(1e9), 10)
    pool.handle(arrived("a", "once dear"), 0)
    pool.handle(EnvironmentReady(1), 5)
    pool.handle(InvocationFinished(1, True, 5), 5)
    for number in range(2, 9):  # each worth 1/6 above what went before it
        pool.handle(arrived("b", f"cheap {number}"), number)
        pool.handle(EnvironmentReady(number), number + 1)
        gone = pool.handle(InvocationFinished(number, True, 6), number + 1)[1:]
        if gone == [Destroy(1)]:
            break
        assert gone == [Destroy(number)]
    assert number == 8  # 5/5 went before 7/6, where the clock had risen to 6 x 1/6


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(1, 5), st.integers(1, 40), st.sampled_from(["add", "take", "evict"])
        ),
        max_size=80,
    )
)
def test_greedy_dual_is_what_its_paper_says(steps: list[tuple[str, int, int, str]]) -> None:
    idle = IdleEnvironments(GreedyDual(60))
    clock, worth, keys = 0.0, {}, {}
    for number, (key, uses, memory, step) in enumerate(steps):
        if step == "add":
            idle.add(number, Used(key, uses, 0.5, memory), 0)
            worth[number], keys[number] = clock + uses * 0.5 / memory, key
        elif step == "take":
            taken = idle.take(key)
            assert taken == max((n for n in worth if keys[n] == key), default=None)
            worth.pop(taken, None)
        else:
            evicted = idle.evict()
            assert evicted == min(worth, key=lambda n: (worth[n], n), default=None)
            clock = max(clock, worth.pop(evicted, 0.0))
        assert len(idle) == len(worth)


FUNCTIONS = ("f", "g", "h")
KEYS = {"f": ("f:1", "f:2"), "g": ("g:1",), "h": ("h:1",)}
LIMIT = 6
KEEP_ALIVE = 10.0
MEMORY = 1000


@dataclass
class Share:
    """What a function has of the limit, as a book that knows nothing of counters."""

    reserved: int | None = None
    provisioned: dict[str, int] = field(default_factory=dict)

    def apart(self) -> int:
        return sum(self.provisioned.values()) if self.reserved is None else self.reserved

    def on_demand(self, running: Counter[str]) -> int:
        """Of what runs, by key, whatever is beyond what its version has."""
        return sum(max(0, number - self.provisioned.get(key, 0)) for key, number in running.items())


class PoolMachine(RuleBasedStateMachine):
    """A second book, kept from the instructions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = make(LIMIT, KEEP_ALIVE, MEMORY)
        self.now = 0.0
        self.count = 0
        self.draining = False
        self.key: dict[int, str] = {}  # of every environment that lives
        self.serving: dict[int, str] = {}  # environment -> invocation
        self.starting: set[int] = set()
        self.idle_since: dict[int, float] = {}  # in the order in which they became idle
        self.memory: dict[int, int] = {}
        self.doomed: set[int] = set()
        self.retired: set[int] = set()
        self.open: dict[str, str] = {}  # accepted invocation -> key
        self.shares = {name: Share() for name in FUNCTIONS}
        self.wanted: Counter[str] = Counter()  # environments ahead, by key
        self.provisioned: set[int] = set()  # environments that were made ahead
        self.ahead: set[int] = set()  # of these, those that are not initialised yet
        self.standby: set[int] = set()  # of these, those in which nothing runs
        self.of_use: set[int] = set()
        self.dead: set[int] = set()
        self.failures: Counter[str] = Counter()
        self.due: dict[str, float] = {}

    def feed(self, event: Event) -> list[Instruction]:
        instructions = self.pool.handle(event, self.now)
        for instruction in instructions:
            match instruction:
                case Assign(request_id, environment_id):
                    assert self.key[environment_id] == self.open[request_id]
                    assert environment_id not in self.doomed
                    assert environment_id not in self.serving
                    self.leave_idle(environment_id)
                    self.serving[environment_id] = request_id
                case Start(request_id, environment_id):
                    assert environment_id not in self.key
                    assert environment_id > max(self.key, default=0)
                    self.key[environment_id] = self.open[request_id]
                    self.serving[environment_id] = request_id
                    self.starting.add(environment_id)
                case Prepare(environment_id, key):
                    assert environment_id > max(self.key, default=0)
                    assert not self.draining
                    self.key[environment_id] = key
                    self.provisioned.add(environment_id)
                    self.ahead.add(environment_id)
                    assert self.made(key) <= self.wanted[key]
                    assert self.due.get(key, 0.0) <= self.now
                case Freeze(environment_id):
                    assert environment_id not in self.doomed
                    assert environment_id not in self.serving
                    if environment_id in self.provisioned:
                        self.standby.add(environment_id)
                    else:
                        self.idle_since[environment_id] = self.now
                case Destroy(environment_id):
                    assert environment_id not in self.serving
                    del self.key[environment_id]
                    self.idle_since.pop(environment_id, None)
                    self.memory.pop(environment_id, None)
                    for ids in (self.doomed, self.retired, self.provisioned, self.ahead, self.standby):
                        ids.discard(environment_id)
                case Reject():
                    pass
        return instructions

    def leave_idle(self, environment_id: int) -> None:
        """What was made ahead serves first; else whatever was used last."""
        key = self.key[environment_id]
        if any(self.key[e] == key for e in self.standby):
            self.standby.remove(environment_id)
            return
        since = self.idle_since.pop(environment_id)
        assert since == max([since, *(s for e, s in self.idle_since.items() if self.key[e] == key)])

    def made(self, key: str) -> int:
        """Environments ahead of a version, be they initialised or not."""
        return sum(self.key[e] == key for e in self.provisioned)

    def initialised(self, key: str) -> int:
        return sum(self.key[e] == key for e in self.provisioned - self.ahead)

    def fails(self, key: str) -> None:
        """One of this version was of no use."""
        self.due[key] = self.now + min(2.0 ** self.failures[key], 60)
        self.failures[key] += 1

    def running(self, function: str) -> Counter[str]:
        return Counter(key for key in self.open.values() if key in KEYS[function])

    def common(self) -> int:
        """Runs at the expense of what all share."""
        return sum(s.on_demand(self.running(f)) for f, s in self.shares.items() if s.reserved is None)

    def apart(self) -> int:
        return sum(share.apart() for share in self.shares.values())

    def refusal(self, function: str, key: str) -> Reason | None:
        share, running = self.shares[function], self.running(function)
        own = running[key] < share.provisioned.get(key, 0)
        if share.reserved is not None:
            left = share.reserved - sum(share.provisioned.values()) - share.on_demand(running)
            if running.total() >= share.reserved or not (own or left > 0):
                return Reason.RESERVED
        elif not own and self.common() + self.apart() >= LIMIT:
            return Reason.CONCURRENCY
        return Reason.CONCURRENCY if len(self.open) >= LIMIT else None

    def someone_is_over(self) -> bool:
        """Numbers have changed under what runs."""
        reserved = ((f, s, s.reserved) for f, s in self.shares.items() if s.reserved is not None)
        return self.common() + self.apart() > LIMIT or any(
            share.on_demand(self.running(function)) > most - sum(share.provisioned.values())
            for function, share, most in reserved
        )

    @rule(function=st.sampled_from(FUNCTIONS), data=st.data())
    def invocation_arrives(self, function: str, data: st.DataObject) -> None:
        self.count += 1
        request_id, key = f"i{self.count}", data.draw(st.sampled_from(KEYS[function]))
        share, refusal = self.shares[function], self.refusal(function, key)
        own = self.running(function)[key] < share.provisioned.get(key, 0)
        idle = any(self.key[e] == key for e in [*self.idle_since, *self.standby])
        self.open[request_id] = key
        [instruction] = self.feed(InvocationArrived(request_id, function, key))
        assert instruction.request_id == request_id  # type: ignore[union-attr]
        if self.draining:
            refusal = Reason.DRAINING
        if refusal is not None:
            assert instruction == Reject(request_id, refusal)
            del self.open[request_id]
        else:
            assert isinstance(instruction, Assign if idle else Start)
        if self.draining:
            return
        running = self.running(function)
        if refusal is None:  # what is let in exceeds nothing
            assert share.reserved is None or running.total() <= share.reserved
            assert own or share.reserved is not None or self.common() + self.apart() <= LIMIT
        elif own or (share.reserved is not None and running.total() < share.reserved - sum(share.provisioned.values())):
            assert self.someone_is_over()  # else nobody is refused what is his own

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def environment_is_ready(self, data: st.DataObject) -> None:
        environment_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(environment_id)
        assert self.feed(EnvironmentReady(environment_id)) == []

    @precondition(lambda self: self.ahead)
    @rule(data=st.data(), memory=st.integers(0, MEMORY))
    def environment_ahead_is_ready(self, data: st.DataObject, memory: int) -> None:
        environment_id = data.draw(st.sampled_from(sorted(self.ahead)))
        key, doomed = self.key[environment_id], environment_id in self.doomed
        if environment_id in self.dead:
            self.fails(key)
        self.ahead.remove(environment_id)
        if not doomed:
            self.memory[environment_id] = memory
        first, *_ = self.feed(EnvironmentReady(environment_id, memory))
        assert first == (Destroy if doomed else Freeze)(environment_id)

    @precondition(lambda self: self.ahead)
    @rule(data=st.data())
    def environment_ahead_fails(self, data: st.DataObject) -> None:
        environment_id = data.draw(st.sampled_from(sorted(self.ahead)))
        self.fails(self.key[environment_id])
        first, *_ = self.feed(EnvironmentFailed(environment_id))
        assert first == Destroy(environment_id)

    @precondition(lambda self: self.serving)
    @rule(data=st.data(), again=st.booleans())
    def environment_fails(self, data: st.DataObject, again: bool) -> None:
        environment_id = data.draw(st.sampled_from(sorted(self.serving)))
        self.starting.discard(environment_id)
        request_id = self.serving.pop(environment_id)
        if not again:
            del self.open[request_id]
        retired = environment_id in self.retired
        first, *rest = self.feed(EnvironmentFailed(environment_id, again))
        assert first == Destroy(environment_id)
        if again:
            start, *rest = rest
            assert isinstance(start, Start)
            if retired:
                self.doomed.add(start.environment_id)
                self.retired.add(start.environment_id)
        assert all(isinstance(instruction, Prepare) for instruction in rest)

    @precondition(lambda self: self.serving.keys() - self.starting)
    @rule(data=st.data(), lives=st.booleans(), memory=st.integers(0, MEMORY + 1))
    def invocation_finishes(self, data: st.DataObject, lives: bool, memory: int) -> None:
        environment_id = data.draw(st.sampled_from(sorted(self.serving.keys() - self.starting)))
        del self.open[self.serving.pop(environment_id)]
        finished = InvocationFinished(environment_id, lives, memory)
        if not lives or environment_id in self.doomed:
            first, *rest = self.feed(finished)
            assert first == Destroy(environment_id)
            assert all(isinstance(instruction, Prepare) for instruction in rest)
            return
        self.memory[environment_id] = memory
        if environment_id in self.provisioned:
            self.of_use.add(environment_id)
            self.failures[self.key[environment_id]] = 0
            first, *_ = self.feed(finished)
            assert first == Freeze(environment_id)
            return
        total, victims = sum(self.memory.values()), []
        for victim in [*self.idle_since, environment_id]:
            if total > MEMORY:
                victims.append(victim)
                total -= self.memory[victim]
        assert self.feed(finished) == [Freeze(environment_id), *map(Destroy, victims)]

    @precondition(lambda self: self.key)
    @rule(data=st.data())
    def environment_dies(self, data: st.DataObject) -> None:
        environment_id = data.draw(st.sampled_from(sorted(self.key)))
        if environment_id in self.serving or environment_id in self.ahead:
            self.doomed.add(environment_id)
            self.dead.add(environment_id)
            assert self.feed(EnvironmentDied(environment_id)) == []
            return
        if environment_id in self.standby and environment_id not in self.of_use:
            self.fails(self.key[environment_id])
        first, *rest = self.feed(EnvironmentDied(environment_id))
        assert first == Destroy(environment_id)
        assert all(isinstance(instruction, Prepare) for instruction in rest)

    @rule(retired=st.sampled_from([key for keys in KEYS.values() for key in keys]))
    def version_is_retired(self, retired: str) -> None:
        mine = {e for e, key in self.key.items() if key == retired}
        in_use = mine & (self.serving.keys() | self.ahead)
        self.doomed |= in_use
        self.retired |= in_use
        del self.wanted[retired]
        many = {key for key in KEYS[retired[0]] if self.initialised(key) > self.wanted[key]}
        surplus = {e for e in self.standby if self.key[e] in many}
        gone = {i.environment_id for i in self.feed(VersionRetired(retired))}  # type: ignore[union-attr]
        assert mine - in_use <= gone <= (mine - in_use) | surplus

    @rule(function=st.sampled_from(FUNCTIONS), data=st.data())
    def function_is_allotted(self, function: str, data: st.DataObject) -> None:
        others = self.apart() - self.shares[function].apart()
        most = LIMIT - 1 - others
        reserved = data.draw(st.none() | st.integers(0, most))
        provisioned, left = {}, most if reserved is None else reserved
        for key in KEYS[function]:
            number = data.draw(st.integers(0, left))
            left -= number
            if number:
                provisioned[key] = number
        self.shares[function] = Share(reserved, provisioned)
        if not self.draining:
            for key in KEYS[function]:
                self.wanted[key] = provisioned.get(key, 0)
                self.failures[key] = 0
                self.due.pop(key, None)
        for instruction in self.feed(Allotted(function, reserved, provisioned)):
            assert isinstance(instruction, Prepare | Destroy)

    @rule(seconds=st.floats(0, 2 * KEEP_ALIVE))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        expired = {e for e, since in self.idle_since.items() if since + KEEP_ALIVE <= self.now}
        gone = [i for i in self.feed(Tick()) if not isinstance(i, Prepare)]
        assert {i.environment_id for i in gone} == expired  # type: ignore[union-attr]

    @precondition(lambda self: not self.draining and self.count > 20)
    @rule()
    def drain_starts(self) -> None:
        self.draining = True
        self.wanted.clear()
        in_use = self.serving.keys() | self.ahead
        self.doomed |= in_use
        self.retired |= in_use
        idle = self.idle_since.keys() | self.standby
        assert {i.environment_id for i in self.feed(DrainStarted())} == idle  # type: ignore[union-attr]

    @invariant()
    def books_agree(self) -> None:
        assert len(set(self.serving.values())) == len(self.serving)
        assert set(self.serving.values()) == set(self.open)  # nothing accepted is forgotten
        assert len(self.open) == self.pool.in_flight <= LIMIT
        homes = (self.serving.keys(), self.idle_since.keys(), self.ahead, self.standby)
        assert sorted(self.key) == sorted(e for home in homes for e in home)  # none is forgotten or at two places
        assert self.pool.memory == sum(self.memory.values())
        times = [since + KEEP_ALIVE for since in self.idle_since.values()]
        if len(self.ahead) < AT_A_TIME:
            times += [self.due[key] for key in self.wanted if self.made(key) < self.wanted[key]]
        assert self.pool.next_tick() == min(times, default=None)

    @invariant()
    def what_is_wanted_ahead_is_there(self) -> None:
        for function, keys in KEYS.items():
            for key in keys:
                waits = self.due.get(key, 0.0) > self.now or len(self.ahead) == AT_A_TIME
                assert self.made(key) >= self.wanted[key] or waits
                standing = self.pool.standing(key)
                assert standing.allocated == self.initialised(key)
                assert standing.available == sum(self.key[e] == key for e in self.standby)
            complete = all(self.initialised(key) >= self.wanted[key] for key in keys)
            for key in keys:
                if complete and any(self.key[e] == key for e in self.standby):
                    assert self.initialised(key) <= self.wanted[key], function


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
