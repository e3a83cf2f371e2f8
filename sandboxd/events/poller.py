"""The poller of one event source mapping: takes messages from its queue, has its function run, removes what succeeded.

Room: service. May: ask the queue's server, run functions. May not: keep messages anywhere but in memory.

The queue keeps a message until it is removed, and shows it again when its visibility time-out is over: whatever is
killed in between, it comes again. So nothing is begun with a message whose time is over, and what cannot be done with
one is left to the queue, which counts its receipts and has a dead-letter queue for it.
Source: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from sandboxd.errors import ApiError, SandboxdError
from sandboxd.model.event_filter import TooCostly, matches_any
from sandboxd.model.invocation import InvocationResult
from sandboxd.model.queue_batch import Item, QueueSource, event, failed, item, pieces, record

_RECEIVED = 10  # messages at most that one request brings or removes
_LONG_POLL = 5  # seconds: SQS's longest, 20, would keep whoever changes or disables a mapping waiting
_ATTRIBUTES_HOLD = 300.0  # seconds for which what a queue says of itself is believed
_VISIBILITY = 30.0  # seconds, SQS's standard
_REMOVALS = 3  # tries
_BREATH = 0.5  # seconds between two requests that bring nothing: not every server knows long polls

_log = logging.getLogger("sandboxd.events")

# What an endpoint that is down, refuses or answers nonsense raises.
Unavailable = (OSError, SandboxdError, ValueError)


class Queues(Protocol):
    """The server of the queues."""

    async def attributes(self, arn: str) -> Mapping[str, str]:
        """What a queue says of itself. Raises OSError or SandboxdError."""
        ...

    async def receive(self, arn: str, limit: int, wait: int) -> Sequence[Mapping[str, Any]]:
        """Messages, for whose first one it waits `wait` seconds. Raises OSError or SandboxdError."""
        ...

    async def delete(self, arn: str, receipts: Sequence[str]) -> Sequence[str]:
        """Remove messages; the receipts with which it did not succeed. Raises OSError or SandboxdError."""
        ...


class Target(Protocol):
    """The function of a mapping."""

    def problem(self) -> str:
        """Why nothing can be run now, or nothing."""
        ...

    async def run(self, payload: bytes) -> InvocationResult:
        """Run it once. Raises ApiError where it did not run."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a poller keeps to: bytes of an event, the first and the longest pause in seconds, others' need of room."""

    payload: int
    pauses: tuple[float, ...]
    crowded: Callable[[], bool]  # so many batches are in memory that a poller may have one only
    sorter: Executor  # filters are matched there: they may take some tenths of a second


@dataclass(frozen=True, slots=True)
class _Batch:
    items: list[Item]
    until: float  # monotonic: the queue may show them to others from then on

    @property
    def groups(self) -> set[str]:
        return {each.group for each in self.items}


class Poller:
    """One mapping's. `problem` says why nothing comes of it at present, or nothing."""

    def __init__(self, source: QueueSource, queues: Queues, target: Target, bounds: Bounds) -> None:
        self._source, self._queues, self._target, self._bounds = source, queues, target, bounds
        self._batches: set[asyncio.Task[None]] = set()
        self._busy: dict[str, asyncio.Task[Any]] = {}  # which batch a message group runs in
        self._held_back = 0  # batches that were refused and are tried again
        self._news = asyncio.Event()
        self._visibility, self._known_until = _VISIBILITY, -math.inf
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self.problem = ""

    @property
    def batches(self) -> int:
        """How many are in memory."""
        return len(self._batches)

    @property
    def over(self) -> bool:
        """Whether it was stopped, and nothing runs any more."""
        return self._stopped and not self._batches and (self._task is None or self._task.done())

    def begin(self, after: Poller | None = None) -> None:
        """Poll, once another that was stopped is over."""
        self._task = asyncio.get_running_loop().create_task(self._serve(after))

    def stop(self) -> None:
        """Ask for nothing more. What a request under way brings is run still: cut off, its server might not know it."""
        self._stopped = True
        self._news.set()

    async def ended(self) -> None:
        """Return when what was stopped is over."""
        if self._task is not None:
            await asyncio.wait([self._task])
        while self._batches:
            await asyncio.wait(self._batches)

    async def cut_off(self) -> None:
        """End what runs at once."""
        self.stop()
        for task in (*self._batches, *([self._task] if self._task is not None else [])):
            task.cancel()
        await self.ended()

    # taking

    async def _serve(self, after: Poller | None) -> None:
        if after is not None:
            await after.ended()
        failures = 0
        while not self._stopped:
            if not self._has_room():
                await self._wait(1.0)
                continue
            reason, batch = "", None
            try:
                reason = self._target.problem()
                if not reason:
                    batch = await self._gather()
            except Unavailable as error:
                reason = f"{type(error).__name__}: {error}"
            except Exception:
                _log.exception("polling %s failed", self._source.arn)
                reason = "an internal error"
            if reason:
                self._report(reason)
                await self._wait(min(self._pause(failures), _LONG_POLL))
                failures += 1
                continue
            failures = 0
            if batch is not None:
                self._hold(self._handle(batch))
            elif not self._batches:
                self._report("")

    def _has_room(self) -> bool:
        running = len(self._batches)
        if self._held_back or running >= self._source.concurrency:
            return False
        return not running or not self._bounds.crowded()

    async def _gather(self) -> _Batch | None:
        """The messages of one batch that are of interest. Raises what `Unavailable` names."""
        source = self._source
        await self._look()
        asked = time.monotonic()
        items, began = await self._receive(source.batch, _LONG_POLL)
        # Half of the time is the function's: gathered for longer, messages would be over when they are to run.
        deadline = began + min(source.window, self._visibility / 2)
        with contextlib.suppress(*Unavailable):  # then there is a batch still
            while items and len(items) < source.batch and self._fits(items) and not self._stopped:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                more, _ = await self._receive(source.batch - len(items), max(1, min(_LONG_POLL, round(left))))
                items += more
        if items:
            return _Batch(items, began + self._visibility)
        await self._wait(max(0.0, asked + _BREATH - time.monotonic()))
        return None

    def _fits(self, items: Iterable[Item]) -> bool:
        return sum(len(each.data) for each in items) < self._bounds.payload

    async def _look(self) -> None:
        if time.monotonic() > self._known_until:
            attributes = await self._queues.attributes(self._source.arn)
            self._visibility = max(1.0, float(attributes.get("VisibilityTimeout", _VISIBILITY)))
            self._known_until = time.monotonic() + _ATTRIBUTES_HOLD

    async def _receive(self, limit: int, wait: int) -> tuple[list[Item], float]:
        """Messages that are of interest, and when they came; the others are removed."""
        messages, now = await self._queues.receive(self._source.arn, min(limit, _RECEIVED), wait), time.monotonic()
        # Filters that take long keep waiting only those who have filters too.
        executor = self._bounds.sorter if self._source.patterns else None
        items, unwanted, reason = await asyncio.get_running_loop().run_in_executor(executor, self._sort, messages)
        if reason:
            self._report(reason)
        if unwanted:
            await self._remove(unwanted)
        return items, now

    def _sort(self, messages: Iterable[Mapping[str, Any]]) -> tuple[list[Item], list[str], str]:
        """Messages as items, receipts of those that no pattern wants, and why one is left where it is, if one is."""
        items, unwanted, reason = [], [], ""
        for message in messages:
            try:
                found = record(message, self._source)
                if self._source.patterns and not matches_any(self._source.patterns, found):
                    unwanted.append(str(found["receiptHandle"]))
                else:
                    items.append(item(found))
            except (ValueError, RecursionError):
                reason = "a message is left that no event can hold"
            except TooCostly:
                reason = "a message is left that has too many values for the filters"
            if reason and self._source.fifo:  # what follows it in its group would overtake it
                break
        return items, unwanted, reason

    # running

    def _hold(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._batches.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._news.set()

    async def _handle(self, batch: _Batch) -> None:
        fifo = self._source.fifo
        groups = batch.groups if fifo else set()
        while before := [self._busy[group] for group in groups if group in self._busy]:
            await asyncio.wait(before)
        this = asyncio.current_task()
        assert this is not None
        self._busy |= dict.fromkeys(groups, this)
        try:
            items = list(itertools.takewhile(self._is_small, batch.items)) if fifo else batch.items
            for piece in pieces(items, self._bounds.payload):
                if not await self._run(_Batch(piece, batch.until)) and fifo:
                    break
            if len(items) < len(batch.items) or not all(map(self._is_small, items)):
                self._report(f"a message is larger than an event of {self._bounds.payload} bytes")
        except Exception:
            _log.exception("a batch of %s failed", self._source.arn)
        finally:
            self._busy = {group: task for group, task in self._busy.items() if task is not this}

    def _is_small(self, each: Item) -> bool:
        return bool(list(pieces([each], self._bounds.payload)))

    async def _run(self, batch: _Batch) -> bool:
        """Run the function, however often it is refused while the messages are ours, and remove what it succeeded in.

        False where a message is left.
        """
        result = await self._invoke(batch)
        if result is None:
            return False
        receipts = {each.id: each.receipt for each in batch.items}
        if result.function_error is not None:
            self._report("the function failed")
            return False
        left = failed(result.payload, receipts) if self._source.partial else set()
        removed = await self._remove([receipt for id_, receipt in receipts.items() if id_ not in left])
        if removed:
            self._report("")
        return removed and not left

    async def _invoke(self, batch: _Batch) -> InvocationResult | None:
        failures = 0
        try:
            while time.monotonic() < batch.until:
                try:
                    return await self._target.run(event(batch.items))
                except ApiError as error:
                    self._report(f"{error.code}: {error.message}")
                self._held_back += not failures
                await asyncio.sleep(self._pause(failures))
                failures += 1
        finally:
            self._held_back -= bool(failures)
        self._report("the visibility time-out of messages was over before the function could run")
        return None

    async def _remove(self, receipts: list[str]) -> bool:
        """Remove messages. False where it could not be done: they come again."""
        for begin in range(0, len(receipts), _RECEIVED):
            left: Sequence[str] = receipts[begin : begin + _RECEIVED]
            for failures in range(_REMOVALS):
                try:
                    left = await self._queues.delete(self._source.arn, left)
                except Unavailable as error:
                    self._report(f"{type(error).__name__}: {error}")
                if not left:
                    break
                await asyncio.sleep(self._pause(failures))
            else:
                return False
        return True

    def _pause(self, failures: int) -> float:
        first, longest = self._bounds.pauses
        return float(min(longest, first * 2 ** min(failures, 30)))

    async def _wait(self, seconds: float) -> None:
        if not self._stopped:
            self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _report(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.warning("%s: %s", self._source.arn, problem)
        self.problem = problem
