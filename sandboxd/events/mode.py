"""Event mode: takes events in, tries each until it is over, and tells whoever wants to know how it ended.

Room: service. May: read the store's maps, write the queue, run invocations. May not: hold more payloads than run.

An event is a row until it is over. A lane looks for the rows of its target that are due, no more than it has room for,
and runs them; what comes of an attempt is written in one step: the row goes and what follows from it comes, or the row
is due again later. Whatever is killed in between, the row is there and is tried again.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sandboxd.config import Config
from sandboxd.errors import ApiError
from sandboxd.events.endings import Endings
from sandboxd.events.lane import Lane
from sandboxd.events.records import Condition, Ending
from sandboxd.events.sources import Sources
from sandboxd.events.targets import Targets, Undeliverable
from sandboxd.model.arn import FunctionReference, parse_function_reference
from sandboxd.model.event import Event
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult
from sandboxd.services import Neighbours
from sandboxd.store.store import Store, Stores

Run = Callable[[Invocation], Awaitable[InvocationResult]]

MaySend = Callable[[FunctionVersion, str], bool]

_TOGETHER = 128  # events that run at one time, beyond the one that every lane may have: each is a payload in memory
_SHED = 32  # the part of the queue's size that goes at once where it is full: one thirty-second
_LAST_SECONDS = 1.0  # what ended a moment ago is written still
_ADRIFT = 3600.0  # seconds beyond which nothing is put off; longer: the clock was set back

_log = logging.getLogger("sandboxd.events")


class EventMode:
    """Accepted events of all accounts and what becomes of them. For one running event loop."""

    def __init__(self, config: Config, stores: Stores, neighbours: Neighbours) -> None:
        self._config, self._stores, self._queue = config, stores, stores.events
        spool, floor = config.service_dir / "spool", config.disk_floor << 20
        self._targets = Targets(config.destinations, spool, floor, neighbours)
        self._endings = Endings(config)
        self.sources = Sources(config, neighbours.sqs)
        # The host's clock is read once: setting it makes nothing early or late.
        self._began = time.time() - time.monotonic()
        self._limit = config.event_queue << 20
        self._lanes: dict[str, Lane] = {}
        self._crowded: dict[str, Lane] = {}  # that had to leave room to others, in their order
        self._tasks: set[asyncio.Task[None]] = set()
        self._running, self._shedding = 0, asyncio.Lock()
        self._run: Run | None = None
        self._may_send: MaySend = lambda function, arn: False
        self.counts: Counter[str] = Counter()

    async def accept(self, invocation: Invocation) -> None:
        """Take an event in; it is on disk when this returns. Raises DiskFull."""
        now = self._now()
        event = Event(
            invocation.invoked_arn,
            now,
            now,
            invocation.request_id,
            invocation.payload,
            invocation.client_context,
            invocation.trace_id,
        )
        await self._make_room(len(event.payload))
        await self._queue.add(event)
        self.counts["AsyncEventsReceived"] += 1
        self._wake(event.target)

    def report(self) -> dict[str, int]:
        """How many events wait, and what became of others since the start, by AWS's names of metrics."""
        queued = sum(held.events for held in self._queue.held.values())
        return {"AsyncEventsQueued": queued} | dict(self.counts)

    async def start(self, run: Run, may_send: MaySend) -> None:
        """Begin to run what waits and what comes. `may_send` says which function may tell which destination."""
        self._may_send = may_send
        await self._queue.settle_clock(self._now(), _ADRIFT)
        self._run = run
        for target in list(self._queue.held):
            self._wake(target)

    def stop(self) -> None:
        """Begin nothing more; what runs may end."""
        self._run = None
        self.sources.stop_all()
        for lane in self._lanes.values():
            lane.wake()

    async def close(self) -> None:
        """Cut off what still runs, which stays in the queue, and let the disk have the rest."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sources.close()
        await self._queue.flush()
        self._targets.close()

    def _now(self) -> float:
        return self._began + time.monotonic()

    async def _make_room(self, size: int) -> None:
        """Where the queue is full, the oldest events go of that target which has most, of the account that has most."""
        if self._queue.size + size <= self._limit:
            return
        async with self._shedding:
            while self._queue.size + size > self._limit and self._queue.held:
                target = self._largest()
                busy = frozenset(self._lanes[target].running) if target in self._lanes else frozenset[int]()
                gone = await self._queue.shed(target, self._limit // _SHED, busy)
                if not gone:
                    return
                self._drop(target, "QueueFull", gone)

    def _largest(self) -> str:
        of_account: Counter[str] = Counter()
        for target, held in self._queue.held.items():
            of_account[_account(target)] += held.size
        return max(self._queue.held, key=lambda target: (of_account[_account(target)], self._queue.held[target].size))

    def _drop(self, target: str, reason: str, count: int = 1, request_id: str = "") -> None:
        self.counts["AsyncEventsDropped"] += count
        self.counts[f"AsyncEventsDropped:{reason}"] += count
        which = f"request {request_id}" if request_id else f"the oldest {count}"
        _log.warning("AsyncEventsDropped: %s for %s: %s", which, target, reason)

    # lanes

    def _wake(self, target: str) -> None:
        if self._run is None:
            return
        lane = self._lanes.get(target)
        if lane is None:
            lane = self._lanes[target] = Lane(target, self._config.event_concurrency, self._config.event_backoff)
            self._hold(self._serve(lane))
        lane.wake()

    def _hold(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, lane: Lane) -> None:
        """Run a lane's events as they come due, until there are none."""
        while self._run is not None:
            lane.look()
            room, next_look = self._room(lane), math.inf
            if room:
                events, following = await self._queue.due(lane.target, self._now(), room, frozenset(lane.running))
                for event in events:
                    self._begin(lane, event)
                if following is not None and self._room(lane):
                    next_look = following
                elif following is None and not lane.running and not lane.woken:
                    break
            if lane.closed_until > self._now():
                next_look = min(next_look, lane.closed_until)
            await lane.wait(max(0.0, next_look - self._now()))
        del self._lanes[lane.target]

    def _room(self, lane: Lane) -> int:
        """How many more of a lane may run: one always, more while there is room for others too."""
        together, room = _TOGETHER - self._running, lane.room(self._now())
        if room <= together or not room:
            return room
        self._crowded[lane.target] = lane
        return max(together, 0) or (0 if lane.running else 1)

    def _begin(self, lane: Lane, event: Event) -> None:
        lane.running.add(event.id)
        self._running += 1
        self._hold(self._try(lane, event))

    async def _try(self, lane: Lane, event: Event) -> None:
        try:
            reference = parse_function_reference(event.target)
            if reference is None:
                await self._deliver(lane, event)
            else:
                await self._invoke(lane, event, reference)
        except Exception:
            _log.exception("request %s failed", event.request_id)
            await self._fail(lane, event)
        finally:
            lane.running.discard(event.id)
            self._running -= 1
            lane.wake()
            if self._crowded:
                self._crowded.pop(next(iter(self._crowded))).wake()

    # attempts

    async def _invoke(self, lane: Lane, event: Event, reference: FunctionReference) -> None:
        store, name, qualifier = self._stores.get(reference.account), reference.name, reference.qualifier
        latest = None if store is None else store.functions.resolve(name)
        if store is None or latest is None:
            await self._keep(self._queue.finish, event)
            self._drop(event.target, "FunctionNotFound", request_id=event.request_id)
            return
        now, policy = self._now(), self._endings.policy(store, name, qualifier)
        number = store.aliases.draw(name, qualifier) if qualifier else None
        version = store.functions.resolve(name, number or qualifier)
        if now >= event.created + policy.age:
            await self._end(store, event, version or latest, Ending(Condition.AGE, event.attempts))
        elif self._endings.reserves_nothing(store, name):
            await self._end(store, event, version or latest, Ending(Condition.ZERO, event.attempts))
        elif version is None or version.state != "Active":
            await self._fail(lane, event)
        else:
            await self._attempt(lane, store, event, version)

    async def _attempt(self, lane: Lane, store: Store, event: Event, version: FunctionVersion) -> None:
        invocation = Invocation(
            event.request_id, version, event.target, event.payload, event.client_context, event.trace_id
        )
        if self._run is None:
            return
        try:
            result = await self._run(invocation)
        except ApiError as error:
            if error.status == 429:
                lane.refused(self._now())
            else:
                await self._fail(lane, event)
            return
        lane.passed()
        count = event.attempts + 1
        if result.function_error is None:
            await self._end(store, event, version, Ending(Condition.SUCCESS, count, result, version.version))
            return
        reference = parse_function_reference(event.target)
        assert reference is not None
        policy, now = self._endings.policy(store, reference.name, reference.qualifier), self._now()
        wait = self._config.event_retry_waits[min(event.attempts, 1)]
        if event.attempts >= policy.retries:
            await self._end(store, event, version, Ending(Condition.RETRIES, count, result, version.version))
        elif now + wait > event.created + policy.age:
            await self._end(store, event, version, Ending(Condition.AGE, count, result, version.version))
        else:
            await self._keep(self._queue.put_off, replace(event, due=now + wait, attempts=count, failures=0))

    async def _end(self, store: Store, event: Event, version: FunctionVersion, ending: Ending) -> None:
        """The event is over: whoever wants to know is told by events of their own."""
        followers = []
        for follower in self._endings.followers(store, event, version, ending, self._now()):
            if self._may_send(version, follower.target):
                followers.append(follower)
            else:
                self.counts["DestinationDeliveryFailures"] += 1
                _log.warning("request %s: its function's role may not tell %s", event.request_id, follower.target)
        await self._make_room(sum(len(follower.payload) for follower in followers))
        known = await self._keep(self._queue.finish, event, followers)
        if known and ending.condition is not Condition.SUCCESS:
            self._drop(event.target, ending.condition.value, request_id=event.request_id)
        for follower in followers if known else ():
            self._wake(follower.target)

    async def _deliver(self, lane: Lane, event: Event) -> None:
        try:
            await self._targets.deliver(event)
        except OSError as error:
            self.counts["DestinationDeliveryFailures"] += 1
            hopeless = isinstance(error, Undeliverable)
            if not hopeless and self._now() < event.created + self._endings.longest_age:
                _log.warning("record %s for %s: %s", event.request_id, event.target, error)
                await self._fail(lane, event)
                return
            self._drop(event.target, "DestinationDeliveryFailures", request_id=event.request_id)
        else:
            lane.passed()
        await self._keep(self._queue.finish, event)

    async def _fail(self, lane: Lane, event: Event) -> None:
        """The system failed: this event waits longer each time, and the lane goes on with another after a pause."""
        now = self._now()
        lane.refused(now)
        due = now + lane.pause(event.failures)
        await self._keep(self._queue.put_off, replace(event, due=due, failures=event.failures + 1))

    async def _keep(self, write: Callable[..., Awaitable[bool | None]], *arguments: object) -> bool:
        """Write what came of an attempt, however long the disk is full: forgotten, it would be made again."""
        failures = 0
        while True:
            try:
                return bool(await write(*arguments))
            except OSError as error:
                _log.error("the queue of events cannot be written: %s", error)
                await asyncio.sleep(min(60, 2**failures))
                failures = min(failures + 1, 6)


def _account(target: str) -> str:
    return target.split(":", 5)[4]
