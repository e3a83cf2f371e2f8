"""One execution environment from the service's side: start it, run invocations in it one after another, end it.

Room: service. May: ask the builder through its client, and use the descriptors that came back. May not: know of other
environments or choose what runs here.

The states and their table are in lifecycle.py; what an ending means, in verdict.py.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from typing import Any

from sandboxd.environment import words
from sandboxd.environment.lifecycle import Lifecycle, State
from sandboxd.environment.platform_log import platform_log, timestamp
from sandboxd.environment.runtime_api import Answer, Event, InitError, RuntimeApi
from sandboxd.environment.sandbox import EnvironmentEnded, Ground, Sandbox
from sandboxd.environment.turns import ANSWER, after_turns
from sandboxd.environment.verdict import Ending, RuntimeExit, Timeout, Verdict, judge
from sandboxd.errors import SandboxdError
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult, Outcome, ResponseStream
from sandboxd.privsep.messages import Exited

QUIET_SECONDS = 0.05  # idle for so long before it is frozen: a warm call right behind another pays nothing
ASK_SECONDS = 1.0  # how long an event waits for a runtime that has answered but not asked again
_FIRST_SAMPLE_SECONDS = 1.0  # of memory, in a long invocation; then
_SAMPLE_SECONDS = 5.0
_EXIT_TURNS = 3  # of the loop: connect, send and exit may lie in one turn's events, in any order
_INIT_CPU_SECONDS = 0.01  # beyond its init phase; whoever is answered by then waits for no other process
_MIB = 1024 * 1024

# Times are time.monotonic(): it is what the loop's timers go by, but uvloop's own clock has steps of a millisecond.


class NotDelivered(SandboxdError):
    """The event was not taken: the invocation has not begun, and may be run elsewhere."""


class InitFailed(SandboxdError):
    """The init phase ended with an error, or not within its own limit: AWS runs it again as part of the invocation."""


class Environment:
    """One sandbox of one function version, started for an invocation or `ahead` of any.

    `on_lost` hears, with its id, of one that ended while nothing ran in it.
    """

    def __init__(
        self,
        environment_id: int,
        function: FunctionVersion,
        image_digest: bytes,
        ground: Ground,
        on_lost: Callable[[int], None],
        ahead: bool = False,
    ) -> None:
        self.id, self.function = environment_id, function
        self._movable = ahead  # an event that is not taken here may go elsewhere: this was not made for it
        self._image_digest, self._config, self._on_lost = image_digest, ground.config, on_lost
        self._max_payload = ground.config.limits.sync_payload_bytes
        self._loop = asyncio.get_running_loop()
        self._life = Lifecycle(f"environment {environment_id} of {function.key}")
        self._sandbox = Sandbox(environment_id, function, image_digest, ground, ahead)
        self._output = self._sandbox.output
        self._api = RuntimeApi(self, self._max_payload)
        self._asked: asyncio.Future[None] | None = None  # whoever waits for the runtime to ask
        self._ending: asyncio.Future[Ending] | None = None  # whoever waits for the invocation in flight
        self._stream: ResponseStream | None = None  # of the invocation in flight
        self._failure: Ending | None = None  # how the init phase ended, where it did not end well
        self._exit: RuntimeExit | None = None
        self._unreported: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._freeze_timer: asyncio.TimerHandle | None = None
        self._made_at = self._rested_at = time.monotonic()
        self._booted_at = self._ended_at = self._deadline = 0.0
        self._init_seconds: float | None = None
        self._counted_since: float | None = None  # of the first invocation, where its time began before its event
        self._resting, self._invocations = False, 0
        self._log = platform_log(function)

    @property
    def state(self) -> State:
        """Where the runtime inside stands."""
        return self._life.state

    @property
    def memory(self) -> int:
        """The most memory seen in use, in bytes, when it was last looked at; never 0 of one that is initialised."""
        return self._sandbox.memory_seen or self._sandbox.max_memory()

    def row(self) -> dict[str, Any]:
        """What people are shown of it."""
        now = time.monotonic()
        return {
            "Id": self.id,
            "Account": self.function.account,
            "Function": self.function.name,
            "Version": self.function.version,
            "State": self.state.value,
            "MemorySize": self.function.memory_size,
            "Invocations": self._invocations,
            "AgeSeconds": round(now - self._made_at, 3),
            "IdleSeconds": round(now - self._rested_at, 3) if self._resting else 0,
            "MemoryUsedMB": self._sandbox.max_memory() // _MIB,
        }

    def _go(self, target: State) -> None:
        self._life.go(target, time.monotonic())

    # the start

    async def start(self, seconds: float, phase: str = "init") -> None:
        """Have the sandbox made and the runtime initialized within so many seconds of its first instruction.

        In phase `invoke` that is part of the invocation which follows, and of its time, and a runtime that fails is no
        error: `run` tells it to the invocation that it was started for. In phase `init` it is: InitFailed, whereupon
        init is to be run again in a new environment, within the invocation, as at AWS. Raises also what the builder
        raises: StepFailed, BuilderGone; EnvironmentEnded where it was ended meanwhile.
        """
        self._output.begin(keep_tail=True)
        self._output.say(self._log.init_start(self.function.runtime, self._config.region, self._image_digest))
        await self._build()
        timer = self._loop.call_later(seconds, self._on_init_over)
        try:
            while self.state is State.INIT:
                await self._wait_for_asking()
        finally:
            timer.cancel()
        if self.state is State.ENDING or self.state is State.DEAD:
            raise EnvironmentEnded("the service ends")
        if phase == "invoke" or self._failure is not None:
            self._counted_since = self._booted_at
        self._output.drain()
        if self._failure is not None:
            self._report_init(phase)

    def _report_init(self, phase: str) -> None:
        took_ms = (time.monotonic() - self._booted_at) * 1000
        assert self._failure is not None
        timed_out = isinstance(self._failure, Timeout)
        status, error_type = ("timeout", "") if timed_out else ("error", judge(self._failure, "", 0).error_type)
        self._output.say(self._log.init_report(took_ms, phase, status, error_type))
        if phase == "init":
            raise InitFailed(words.init_report(took_ms, phase, status, error_type).strip())

    async def _build(self) -> None:
        self._go(State.STARTING)
        try:
            doors = await self._sandbox.bind()
        except BaseException:
            if self.state is State.STARTING:
                self._go(State.BROKEN)
            raise
        self._go(State.INIT)
        self._booted_at = time.monotonic()
        await self._sandbox.serve(doors, self._api)
        if self._exit is not None:
            self._on_exit()

    def _on_init_over(self) -> None:
        if self.state is State.INIT:
            self._fail(self._timeout())

    def _timeout(self) -> Timeout:
        return Timeout(self.function.timeout, timestamp())

    def _fail(self, failure: Ending) -> None:
        """The init phase ends badly."""
        self._failure = failure
        self._go(State.BROKEN)
        self._wake()

    def _wake(self) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    async def _wait_for_asking(self, seconds: float | None = None) -> None:
        """Return when the runtime asks, or something ends it, or time is over."""
        self._asked = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._wake) if seconds is not None else None
        try:
            await self._asked
        finally:
            self._asked = None
            if timer is not None:
                timer.cancel()

    # one invocation

    async def run(self, invocation: Invocation) -> InvocationResult:
        """Run one invocation to its end, whatever that is.

        Raises NotDelivered where an environment that has served before did not take the event: it has not begun.
        """
        self._resting = False
        self._settle()
        if self.state is State.FROZEN:
            self._sandbox.thaw()
            self._go(State.IDLE)
        if self._failure is None and not (self.state is State.IDLE and self._api.waiting):
            await self._until_ready()
        now = time.monotonic()
        began = now if self._counted_since is None else self._counted_since
        init_seconds = self._init_seconds if self._counted_since is None else None
        self._counted_since = self._init_seconds = None
        if self._failure is None:
            self._output.begin(invocation.tail)
        self._output.say(self._log.start(invocation.request_id, self.function.version))
        self._invocations, self._movable = self._invocations + 1, True
        ending = self._failure or await self._deliver(invocation, began, now)
        return self._conclude(invocation, ending, began, init_seconds)

    async def _until_ready(self) -> None:
        """The runtime has answered and not asked again, or has let its connection go: give it time."""
        if self.state in (State.ANSWERED, State.IDLE):
            await self._wait_for_asking(ASK_SECONDS if self._movable else self.function.timeout)
        if self._failure is not None or (self.state is State.IDLE and self._api.waiting):
            return
        if self._movable or self.state is not State.IDLE:
            raise NotDelivered(f"environment {self.id} does not take an event: {self.state.value}")
        self._counted_since = self._booted_at
        self._fail(self._timeout())

    async def _deliver(self, invocation: Invocation, began: float, now: float) -> Ending:
        self._deadline = began + self.function.timeout
        self._ending, self._stream = self._loop.create_future(), invocation.stream
        self._go(State.BUSY)
        deadline_ms = int((time.time() + self._deadline - now) * 1000)
        event = Event(
            invocation.request_id, deadline_ms, invocation.invoked_arn, invocation.trace_id or _new_trace_id(),
            invocation.client_context, invocation.payload,
        )  # fmt: skip
        self._api.deliver(event)
        self._timer = self._loop.call_at(min(self._deadline, now + _FIRST_SAMPLE_SECONDS), self._on_timer)
        return await self._ending

    def _on_timer(self) -> None:
        now = time.monotonic()
        if now < self._deadline:
            self._sandbox.max_memory()
            self._timer = self._loop.call_at(min(self._deadline, now + _SAMPLE_SECONDS), self._on_timer)
            return
        self._timer = None
        self._break(self._timeout())

    def _break(self, ending: Ending) -> None:
        """The runtime ends, or is to be ended: tell whoever waits for it."""
        held, self._ending = self._ending, None
        was_busy = self.state is State.BUSY
        self._ended_at = time.monotonic()
        self._go(State.BROKEN)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._movable:  # asked for an event and went before it came
            self._failure, self._counted_since = ending, self._booted_at
        if was_busy and held is not None:
            held.set_result(ending)
        else:
            self._wake()
            self._on_lost(self.id)

    def _conclude(
        self, invocation: Invocation, ending: Ending, began: float, init_seconds: float | None
    ) -> InvocationResult:
        """The result; its lines in the log come behind the answer, unless they are part of it."""
        verdict = judge(ending, invocation.request_id, self._max_payload)
        duration = (self._ended_at or time.monotonic()) - began
        self._unreported = functools.partial(self._report, invocation, verdict, duration, init_seconds, ending)
        if not invocation.tail:
            after_turns(self._loop, ANSWER, self._settle)
            return verdict.result()
        self._settle()
        return verdict.result(self._output.tail())

    def _settle(self) -> None:
        """Write the report that is owed for the invocation before, if one is."""
        if self._unreported is not None:
            report, self._unreported = self._unreported, None
            report()

    def _report(
        self, invocation: Invocation, verdict: Verdict, seconds: float, init_seconds: float | None, ending: Ending
    ) -> None:
        self._output.drain()
        used = -(-self._sandbox.max_memory() // _MIB)
        out_of_memory = isinstance(ending, RuntimeExit) and ending.out_of_memory
        if verdict.outcome is Outcome.TIMED_OUT:
            seconds = self.function.timeout
        init_ms = init_seconds * 1000 if init_seconds is not None else None
        config = self._config
        init_is_billed = config.limits_profile == "current"
        billed = words.billed_ms(seconds * 1000, init_ms, config.limits.billing_ms, init_is_billed)
        report = words.Report(
            invocation.request_id, seconds * 1000, billed, self.function.memory_size,
            self.function.memory_size if out_of_memory else min(used, self.function.memory_size),
            init_ms, verdict.status, verdict.error_type,
        )  # fmt: skip
        self._output.say(self._log.report(report, verdict.line))

    # what the runtime does (runtime_api.Listener), and the builder's word that it ended

    def runtime_asked(self) -> None:
        """The runtime waits for an event (again)."""
        if self.state is State.INIT:
            self._init_seconds = time.monotonic() - self._booted_at
            self._go(State.IDLE)
            self._loop.call_later(_INIT_CPU_SECONDS, self._sandbox.init_ended)
        elif self.state is State.ANSWERED:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._go(State.IDLE)
        self._wake()

    def runtime_answered(self, answer: Answer) -> bool:
        """The invocation in flight was answered; False where its time was over."""
        now = time.monotonic()
        ending, self._ending = self._ending, None
        if self.state is not State.BUSY or ending is None or now >= self._deadline:
            self._ending = ending
            return False
        self._ended_at = now
        self._go(State.ANSWERED)
        ending.set_result(answer)
        return True

    def stream(self) -> ResponseStream | None:
        """Where the answer to the invocation in flight is streamed to; None where it is wanted as a whole."""
        return self._stream if self.state is State.BUSY and self._ending is not None else None

    def runtime_failed_to_start(self, error: InitError) -> None:
        """The runtime reported that it could not load the function."""
        if self.state is State.INIT:
            self._fail(error)

    def exited(self, exited: Exited) -> None:
        """The runtime process ended. What it wrote before may still be on its way through the loop."""
        self._exit = RuntimeExit(exited.status, exited.out_of_memory)
        after_turns(self._loop, _EXIT_TURNS, self._on_exit)

    def _on_exit(self) -> None:
        assert self._exit is not None
        self._life.note("runtime exited", time.monotonic())
        if self.state is State.INIT:
            self._fail(self._exit)
        elif self.state in (State.IDLE, State.FROZEN, State.BUSY, State.ANSWERED):
            self._break(self._exit)

    # rest and end

    def rest(self) -> None:
        """Nothing runs here for now: freeze it, once it has been quiet for a moment."""
        self._resting, self._rested_at = True, time.monotonic()
        if self._freeze_timer is None:
            self._freeze_timer = self._loop.call_later(QUIET_SECONDS, self._on_quiet)

    def _on_quiet(self) -> None:
        self._freeze_timer = None
        left = self._rested_at + QUIET_SECONDS - time.monotonic()
        if not self._resting or self.state not in (State.IDLE, State.ANSWERED):
            return
        if left > 0.001 or self.state is State.ANSWERED:
            self._freeze_timer = self._loop.call_later(max(left, QUIET_SECONDS / 2), self._on_quiet)
            return
        self._output.drain()
        self._sandbox.freeze()
        self._go(State.FROZEN)

    async def destroy(self) -> None:
        """End it with everything in it; returns when nothing is left. Again, or at any time: does no harm."""
        if self.state in (State.ENDING, State.DEAD):
            return
        self._go(State.ENDING)
        self._settle()
        if self._ending is not None and not self._ending.done():
            self._ending.set_exception(EnvironmentEnded("the service ends"))
        self._ending = None
        self._wake()
        for timer in (self._timer, self._freeze_timer):
            if timer is not None:
                timer.cancel()
        await self._sandbox.destroy()
        self._go(State.DEAD)


def _new_trace_id() -> str:
    root = os.urandom(20).hex()
    return f"Root=1-{int(time.time()):08x}-{root[:24]};Parent={root[24:]};Sampled=0"
