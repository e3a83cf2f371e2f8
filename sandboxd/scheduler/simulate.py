"""What the scheduler would do with a trace: its own pool, fed by a virtual clock.

Room: command line, and tests. May: measure how long a decision takes. May not: wait, or start anything.
"""

from __future__ import annotations

import heapq
import random
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sandboxd.scheduler.keep_alive import KeepAlive
from sandboxd.scheduler.pool import (
    Assign,
    Destroy,
    EnvironmentReady,
    Event,
    Instruction,
    InvocationArrived,
    InvocationFinished,
    Pool,
    Reject,
    Start,
    Tick,
)
from sandboxd.scheduler.trace import TracedFunction

Progress = Callable[[int, int], None]  # minutes done, of how many


@dataclass(slots=True)
class Outcome:
    """What became of a trace's invocations; memory in bytes."""

    invocations: int = 0
    cold: int = 0
    rejected: int = 0
    evicted: int = 0  # for memory; those whose time was over not counted
    peak_memory: int = 0
    memory_seconds: float = 0.0
    seconds: float = 0.0  # of the trace
    decisions: array[float] = field(default_factory=lambda: array("f"))  # microseconds each
    of_function: dict[str, list[int]] = field(default_factory=dict)  # name -> [invocations, cold]

    @property
    def mean_memory(self) -> float:
        """Over the trace's time."""
        return self.memory_seconds / self.seconds if self.seconds else 0.0

    def cold_share(self, percentile: float) -> float:
        """So many percent of the functions have at most this share of cold starts (the figure of merit of Serverless in
        the Wild, section 5)."""
        return _percentile(sorted(cold / count for count, cold in self.of_function.values()), percentile)

    def decision(self, percentile: float) -> float:
        """So many percent of the pool's decisions took at most this, in microseconds."""
        return _percentile(sorted(self.decisions), percentile)


def _percentile(values: Sequence[float], percentile: float) -> float:
    return values[min(len(values) - 1, int(len(values) * percentile / 100))] if values else 0.0


class Simulation:
    """One pool and the invocations that run in it. A cold start takes `init` seconds more."""

    def __init__(self, policy: KeepAlive, memory: int, concurrency: int, init: float, seed: int) -> None:
        self._pool = Pool(concurrency, policy, memory)
        self._init = init
        self._chance = random.Random(seed)  # noqa: S311  # a model, no secret
        self._due: list[tuple[float, int, TracedFunction, bool]] = []  # when, environment, whose, only ready
        self._now = 0.0
        self.outcome = Outcome()

    def run(self, functions: Sequence[TracedFunction], progress: Progress) -> Outcome:
        """Replay a trace to its last invocation's end."""
        minutes = 1 + max((function.counts[-1][0] for function in functions if function.counts), default=0)
        for minute, arrivals in enumerate(_arrivals(functions, minutes, self._chance)):
            for at, function in arrivals:
                self._let_pass(at)
                self._arrive(function, at)
            progress(minute + 1, minutes)
        self._let_pass(float("inf"))
        self.outcome.seconds = self._now
        return self.outcome

    def _let_pass(self, until: float) -> None:
        """Whatever is due before then: environments get ready, invocations end, keep-alive times are over."""
        while True:
            tick = self._pool.next_tick()
            if self._due and self._due[0][0] <= min(until, tick if tick is not None else until):
                at, environment_id, function, only_ready = heapq.heappop(self._due)
                if only_ready:
                    self._tell(EnvironmentReady(environment_id), at)
                    self._run(environment_id, function)
                else:
                    self._tell(InvocationFinished(environment_id, True, function.memory), at)
            elif tick is not None and tick <= until and (self._due or until != float("inf")):
                self._tell(Tick(), tick)
            else:
                return

    def _arrive(self, function: TracedFunction, at: float) -> None:
        self.outcome.invocations += 1
        counts = self.outcome.of_function.setdefault(function.name, [0, 0])
        counts[0] += 1
        [instruction] = self._tell(InvocationArrived("", function.name, function.name), at)
        match instruction:
            case Start(_, environment_id):
                self.outcome.cold += 1
                counts[1] += 1
                heapq.heappush(self._due, (self._now + self._init, environment_id, function, True))
            case Assign(_, environment_id):
                self._run(environment_id, function)
            case Reject():
                self.outcome.rejected += 1

    def _run(self, environment_id: int, function: TracedFunction) -> None:
        end = self._now + function.duration(self._chance.random())
        heapq.heappush(self._due, (end, environment_id, function, False))

    def _tell(self, event: Event, at: float) -> list[Instruction]:
        self.outcome.memory_seconds += self._pool.memory * (at - self._now)
        self._now = at
        began = time.perf_counter_ns()
        instructions = self._pool.handle(event, at)
        self.outcome.decisions.append((time.perf_counter_ns() - began) / 1000)
        self.outcome.peak_memory = max(self.outcome.peak_memory, self._pool.memory)
        if isinstance(event, InvocationFinished):
            self.outcome.evicted += sum(isinstance(instruction, Destroy) for instruction in instructions)
        return instructions


def _arrivals(
    functions: Sequence[TracedFunction], minutes: int, chance: random.Random
) -> Iterator[list[tuple[float, TracedFunction]]]:
    """Minute by minute, when which function is invoked: anywhere in the minute, as the trace does not tell."""
    of_minute: list[list[tuple[int, TracedFunction]]] = [[] for _ in range(minutes)]
    for function in functions:
        for minute, count in function.counts:
            of_minute[minute].append((count, function))
    for minute, counted in enumerate(of_minute):
        yield sorted(
            ((60 * (minute + chance.random()), function) for count, function in counted for _ in range(count)),
            key=lambda arrival: arrival[0],
        )
