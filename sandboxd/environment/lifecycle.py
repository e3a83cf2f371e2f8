"""The life of an environment as one table, and the story that an illegal step is told with.

Room: service. May: hold values. May not: any I/O.

States are those of the runtime inside, not of the service's wishes:

    NEW ─> STARTING ─> INIT ─> IDLE ⇄ FROZEN
                                │ ▲
                       deliver  ▼ │ the runtime asks for the next event
                              BUSY ─> ANSWERED

An answer reaches its caller in BUSY -> ANSWERED; the environment may be promised to the next invocation at once, and
the event is handed out when the runtime asks. BROKEN is every end that the runtime brought about itself (exit, init
error, timeout). Whatever the state, ENDING -> DEAD is the only way out.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from sandboxd.errors import SandboxdError


class State(Enum):
    """Where the runtime inside stands; the value is what people see."""

    NEW = "New"
    STARTING = "Starting"  # the builder builds the sandbox
    INIT = "Init"  # the runtime boots and imports the function
    IDLE = "Idle"  # the runtime waits for an event
    FROZEN = "Frozen"
    BUSY = "Busy"  # an event is out
    ANSWERED = "Answered"  # answered; the runtime has not asked for the next event yet
    BROKEN = "Broken"  # of no more use; destroying it was not asked for yet
    ENDING = "Ending"
    DEAD = "Dead"


_S = State
TRANSITIONS: dict[State, frozenset[State]] = {
    _S.NEW: frozenset({_S.STARTING, _S.ENDING}),
    _S.STARTING: frozenset({_S.INIT, _S.BROKEN, _S.ENDING}),
    _S.INIT: frozenset({_S.IDLE, _S.BROKEN, _S.ENDING}),
    _S.IDLE: frozenset({_S.BUSY, _S.FROZEN, _S.BROKEN, _S.ENDING}),
    _S.FROZEN: frozenset({_S.IDLE, _S.BROKEN, _S.ENDING}),
    _S.BUSY: frozenset({_S.ANSWERED, _S.BROKEN, _S.ENDING}),
    _S.ANSWERED: frozenset({_S.IDLE, _S.BROKEN, _S.ENDING}),
    _S.BROKEN: frozenset({_S.ENDING}),
    _S.ENDING: frozenset({_S.DEAD}),
    _S.DEAD: frozenset(),
}


class IllegalTransition(SandboxdError):
    """A step that the table does not know: a mistake in sandboxd, told with the environment's last events."""


class Lifecycle:
    """The state of one environment and its last events. Times are the caller's clock, in seconds."""

    __slots__ = ("_name", "_story", "state")

    def __init__(self, name: str) -> None:
        self._name = name
        self._story: deque[tuple[float, str]] = deque(maxlen=24)
        self.state = State.NEW

    def go(self, target: State, now: float) -> None:
        """Step to another state; raises IllegalTransition where the table has no such step."""
        if target not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{self._name}: {self.state.value} -> {target.value}\n{self.story()}")
        self.state = target
        self._story.append((now, target.value))

    def note(self, event: str, now: float) -> None:
        """Remember something that happened without a step."""
        self._story.append((now, event))

    def story(self) -> str:
        """The last events, one a line, oldest first."""
        return "\n".join(f"  {when:.6f} {event}" for when, event in self._story)
