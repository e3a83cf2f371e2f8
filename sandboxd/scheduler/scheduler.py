"""Acts on what the pool decides: the path of every invocation through its environment.

Room: service. May: start, use and end environments. May not: decide which; know HTTP or the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from sandboxd.config import Config
from sandboxd.environment import guest_environ
from sandboxd.environment.environment import Environment, InitFailed, NotDelivered
from sandboxd.environment.logs import Logs
from sandboxd.environment.sandbox import (
    Builder,
    Credentials,
    DoorHandler,
    EnvironmentEnded,
    Ground,
    Networks,
    no_credentials,
    own_network,
)
from sandboxd.errors import ApiError, StepFailed
from sandboxd.http import Budget
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult, Outcome
from sandboxd.privsep.client import BuilderGone
from sandboxd.privsep.messages import Exited
from sandboxd.scheduler import pool
from sandboxd.scheduler.concurrency import Reason
from sandboxd.scheduler.keep_alive import POLICIES
from sandboxd.scheduler.pool import Assign, Destroy, Freeze, Pool, Prepare, Reject, Start
from sandboxd.scheduler.provisioned import Standing

BUDGET_BYTES = 256 * 1024 * 1024
_STOPPED = "The service stopped before the invocation ended."
# Of an init phase ahead, or the function's timeout where that is longer:
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
_AHEAD_SECONDS = 130
_SOONER = (pool.EnvironmentDied, pool.EnvironmentFailed, pool.EnvironmentReady)  # may make the next tick come sooner

_log = logging.getLogger("sandboxd.scheduler")


class Scheduler:
    """Runs invocations. Use from one running event loop.

    `image_digest` names the image of a runtime (32 bytes); `door_handler` answers requests at the invoke doors inside;
    `budget` is the host's for bodies that are being received; `credentials` are a function's own variables of its role,
    `network` is what it may reach.
    """

    def __init__(
        self,
        config: Config,
        client: Builder,
        logs: Logs,
        image_digest: Callable[[str], bytes],
        door_handler: DoorHandler,
        budget: Budget | None = None,
        credentials: Credentials = no_credentials,
        network: Networks = own_network,
    ) -> None:
        self._config, self._image_digest = config, image_digest
        self._ground = Ground(config, client, logs, budget or Budget(BUDGET_BYTES), door_handler, credentials, network)
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(
            config.limits.concurrency, POLICIES[config.eviction](config.keep_alive), _memory_limit(config)
        )
        self._environments: dict[int, Environment] = {}
        self._warmed = ((b"", 0), 0.0)  # the kind of runtime that the builder was asked for last, and when
        self._wanted: dict[str, FunctionVersion] = {}  # ahead of invocations, by key
        self._carried: set[asyncio.Task[InvocationResult]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        """Run an invocation to its end; a caller that goes away does not end it (as at AWS).

        Raises ApiError: TooManyRequestsException, or ServiceException where no environment could be made.
        """
        function = invocation.function
        arrived = pool.InvocationArrived(invocation.request_id, function.arn, function.key, function.account)
        placement = self._tell(arrived)
        assert placement is not None
        if isinstance(placement, Reject):
            raise _rejection(placement.reason)
        task = self._loop.create_task(self._carry(invocation, placement))
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)
        return await asyncio.shield(task)

    async def _carry(self, invocation: Invocation, placement: Assign | Start) -> InvocationResult:
        environment_id = placement.environment_id
        if isinstance(placement, Assign):
            try:
                return await self._run(self._environments[environment_id], invocation)
            except NotDelivered:
                environment_id = self._replace(environment_id)
        return await self._run(await self._start(environment_id, invocation), invocation)

    def _replace(self, environment_id: int) -> int:
        """Another, new environment for the invocation that this one did not take."""
        placement = self._tell(pool.EnvironmentFailed(environment_id, again=True))
        assert isinstance(placement, Start)
        return placement.environment_id

    async def _start(self, environment_id: int, invocation: Invocation) -> Environment:
        """A new environment that is ready for its invocation, or has its failure ready for it."""
        try:
            environment = self._make(environment_id, invocation.function)
            try:
                await environment.start(self._config.limits.init_seconds)
            except InitFailed:
                environment_id = self._replace(environment_id)
                environment = self._make(environment_id, invocation.function)
                await environment.start(invocation.function.timeout, phase="invoke")
        except BaseException as error:
            self._tell(pool.EnvironmentFailed(environment_id))
            raise (_explain(error) or error) from None
        self._tell(pool.EnvironmentReady(environment_id))
        return environment

    async def _prepare(self, environment_id: int, function: FunctionVersion) -> None:
        """A new environment that is initialised ahead of any invocation."""
        try:
            environment = self._make(environment_id, function, ahead=True)
            await environment.start(max(_AHEAD_SECONDS, function.timeout))
        except Exception as error:
            if not isinstance(error, InitFailed | EnvironmentEnded):  # the function's own log tells the one
                _log.error("no environment of %s ahead: %s", function.key, error)
            self._tell(pool.EnvironmentFailed(environment_id))
        else:
            self._tell(pool.EnvironmentReady(environment_id, environment.memory))

    def _make(self, environment_id: int, function: FunctionVersion, ahead: bool = False) -> Environment:
        digest = self._image_digest(function.runtime)
        environment = Environment(environment_id, function, digest, self._ground, self._on_lost, ahead)
        self._environments[environment_id] = environment
        self._loop.call_soon(self._warm, function, digest)  # the builder hears of this one first
        return environment

    def warm(self, functions: Iterable[FunctionVersion]) -> None:
        """Have these functions' runtimes booted ahead of their first invocation."""
        for function in functions:
            with contextlib.suppress(ApiError):  # its image is gone: an invocation will say so
                self._warm(function, self._image_digest(function.runtime))

    def _warm(self, function: FunctionVersion, image_digest: bytes) -> None:
        kind = image_digest, guest_environ.told_at_boot(function)
        last, asked = self._warmed
        now = time.monotonic()  # it may have had no room for it a while ago
        if (kind == last and now < asked + 1) or not guest_environ.boots_ahead(function.runtime):
            return
        self._warmed = kind, now
        environ = guest_environ.sealed(guest_environ.of_stem(kind[1]))
        try:
            self._ground.builder.warm_image(*kind, environ)
        finally:
            os.close(environ)

    async def _run(self, environment: Environment, invocation: Invocation) -> InvocationResult:
        try:
            result = await environment.run(invocation)
        except NotDelivered:
            raise
        except BaseException as error:
            self._tell(pool.InvocationFinished(environment.id, lives=False))
            raise (_explain(error) or error) from None
        lives = result.outcome in (Outcome.OK, Outcome.HANDLED)
        self._tell(pool.InvocationFinished(environment.id, lives, environment.memory))
        return result

    def _tell(self, event: pool.Event) -> Assign | Start | Reject | None:
        """Feed the pool and do what it says; what it says of the invocation itself is the caller's to do."""
        placement: Assign | Start | Reject | None = None
        for instruction in self._pool.handle(event, time.monotonic()):
            match instruction:
                case Freeze(environment_id):
                    self._environments[environment_id].rest()
                case Destroy(environment_id):
                    environment = self._environments.pop(environment_id, None)
                    if environment is not None:  # there is none where making it failed
                        self._keep(environment.destroy())
                case Prepare(environment_id, key):
                    self._keep(self._prepare(environment_id, self._wanted[key]))
                case _:
                    placement = instruction
        if self._timer is None or isinstance(event, _SOONER):
            self._set_timer()
        return placement

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _set_timer(self) -> None:
        # A timer that comes too early costs one look; setting it anew with every invocation would cost more.
        if self._timer is not None:
            self._timer.cancel()
        at = self._pool.next_tick()
        self._timer = self._loop.call_at(at, self._on_tick) if at is not None else None

    def _on_tick(self) -> None:
        self._timer = None
        self._tell(pool.Tick())

    def _on_lost(self, environment_id: int) -> None:
        self._tell(pool.EnvironmentDied(environment_id))

    def on_exited(self, exited: Exited) -> None:
        """The builder's word that an environment's runtime ended."""
        environment = self._environments.get(exited.environment_id)
        if environment is not None:
            environment.exited(exited)

    def retire(self, key: str) -> None:
        """A version was replaced or deleted: its environments end, those in use after their invocation."""
        self._tell(pool.VersionRetired(key))

    def allot(self, arn: str, reserved: int | None, provisioned: Mapping[FunctionVersion, int]) -> None:
        """A function has this many of its account's invocations at one time for itself, and no more; None: it shares
        what is left.

        So many environments of its versions are made ahead and kept.
        """
        others = {key: version for key, version in self._wanted.items() if version.arn != arn}
        self._wanted = others | {version.key: version for version in provisioned}
        counts = {version.key: count for version, count in provisioned.items()}
        self._tell(pool.Allotted(arn, reserved, counts, arn.split(":", 5)[4]))

    def standing(self, key: str) -> Standing:
        """How far the environments of a version that are made ahead are."""
        return self._pool.standing(key)

    def environments(self) -> list[dict[str, Any]]:
        """What people are shown of every environment."""
        return [environment.row() for environment in self._environments.values()]

    async def drain(self, seconds: float) -> None:
        """Give what runs so many seconds to end, with the invocations that it makes itself, and end everything."""
        deadline = self._loop.time() + seconds
        while self._carried and self._loop.time() < deadline:
            await asyncio.wait(self._carried, timeout=deadline - self._loop.time())
        self._tell(pool.DrainStarted())
        await asyncio.sleep(0)  # what was to begin has begun
        for environment in self._environments.values():
            self._keep(environment.destroy())
        while pending := self._carried | self._background:
            await asyncio.wait(pending)
        if self._timer is not None:
            self._timer.cancel()


def _memory_limit(config: Config) -> int:
    """Bytes that environments may hold together before idle ones go; half of the machine's where nothing is said."""
    return config.memory << 20 or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _rejection(reason: Reason) -> ApiError:
    if reason is Reason.DRAINING:
        return ApiError("ServiceException", _STOPPED, 500, fault="Service")
    return ApiError("TooManyRequestsException", "Rate Exceeded.", 429, Reason=reason.value)


def _explain(error: BaseException) -> ApiError | None:
    """What the caller of an invocation is told of a failure of the service's own; None where that is a mistake."""
    match error:
        case StepFailed():
            return ApiError("ServiceException", f"No execution environment: {error}", 500, fault="Service")
        case BuilderGone() | ConnectionError():
            return ApiError("ServiceException", "The service is starting again.", 503, fault="Service")
        case OSError():
            return ApiError("ServiceException", f"No execution environment: {error.strerror}", 500, fault="Service")
        case EnvironmentEnded():
            return ApiError("ServiceException", _STOPPED, 500, fault="Service")
    return None
