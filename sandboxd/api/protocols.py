"""What the API needs of the rooms below it, and nothing more.

Room: service. May: name types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult
from sandboxd.model.queue_batch import QueueSource
from sandboxd.scheduler.provisioned import Standing


class Scheduler(Protocol):
    """Runs invocations."""

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        """Run a function once. Raises ApiError (TooManyRequestsException, ServiceException)."""
        ...

    def warm(self, functions: Iterable[FunctionVersion]) -> None:
        """Have these functions' runtimes booted ahead of their first invocation."""
        ...

    def retire(self, key: str) -> None:
        """End the environments that a version (FunctionVersion.key) has now, each as soon as it is idle."""
        ...

    def allot(self, arn: str, reserved: int | None, provisioned: Mapping[FunctionVersion, int]) -> None:
        """A function has this many of its account's invocations at one time for itself, and no more; None: it shares
        what is left.

        So many environments of its versions are made ahead and kept.
        """
        ...

    def standing(self, key: str) -> Standing:
        """How far the environments of a version (FunctionVersion.key) that are made ahead are."""
        ...

    def environments(self) -> list[dict[str, Any]]:
        """Every environment, as the administration shows it."""
        ...


class Target(Protocol):
    """A function that the records of an event source go to."""

    def problem(self) -> str:
        """Why nothing can be run now, or nothing."""
        ...

    async def run(self, payload: bytes) -> InvocationResult:
        """Run it once. Raises ApiError where it did not run."""
        ...


class Sources(Protocol):
    """Polls event sources, for mappings by their UUIDs."""

    @property
    def offered(self) -> bool:
        """Whether queues can be polled."""
        ...

    @property
    def full(self) -> bool:
        """Whether no more mappings can be polled."""
        ...

    async def attributes(self, arn: str) -> Mapping[str, str]:
        """What a queue says of itself. Raises OSError or SandboxdError."""
        ...

    def polls(self, uuid: str) -> bool:
        """Whether a mapping is polled."""
        ...

    def poll(self, uuid: str, source: QueueSource, target: Target) -> None:
        """Begin to poll, or go on in another way."""
        ...

    def stop(self, uuid: str) -> None:
        """Take nothing more for a mapping; what runs may end."""
        ...

    async def ended(self, uuid: str) -> None:
        """Return when nothing of a mapping that was stopped runs any more."""
        ...

    def settling(self, uuid: str) -> bool:
        """Whether something goes on still as it was before the last change of a mapping."""
        ...

    def problem(self, uuid: str) -> str:
        """Why nothing comes of a mapping at present, or nothing."""
        ...


class Events(Protocol):
    """Takes in what is to run later, and has what polls event sources."""

    @property
    def sources(self) -> Sources:
        """What polls event sources."""
        ...

    async def accept(self, invocation: Invocation) -> None:
        """Keep an invocation to be made once this returned. Raises OSError where there is no room for it."""
        ...

    def report(self) -> dict[str, int]:
        """How many events wait, and what became of others since the start, by AWS's names of metrics."""
        ...


class Logs(Protocol):
    """What functions wrote. Offsets count bytes since a log began; a negative one counts from its end."""

    def read(self, account: str, function_name: str, version: str, offset: int, limit: int) -> tuple[int, bytes]:
        """Up to `limit` bytes from an offset, and the offset behind them."""
        ...

    async def wait(self, account: str, function_name: str, version: str, offset: int, timeout: float) -> None:
        """Return when there is something behind the offset, or after `timeout` seconds."""
        ...

    def forget(self, account: str, function_name: str) -> None:
        """Remove the logs of every version of a function."""
        ...

    def forget_account(self, account: str) -> None:
        """Remove what is left of the logs of an account that is deleted."""
        ...
