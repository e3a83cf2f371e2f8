"""The event source mappings that are polled.

Room: service. May: begin and end pollers. May not: know what a mapping's record says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from sandboxd.config import Config
from sandboxd.events.poller import Bounds, Poller, Queues, Target
from sandboxd.model.queue_batch import QueueSource

MOST = 50  # mappings that are polled at one time: each has a connection, and a batch in memory
_TOGETHER = 64  # batches in memory, beyond the one that every mapping may have
_LAST_SECONDS = 1.0  # what ended a moment ago is removed from its queue still


class Sources:
    """Pollers by the UUIDs of their mappings. `queues`: None where the configuration names no endpoint of services."""

    def __init__(self, config: Config, queues: Queues | None) -> None:
        self._config, self._queues = config, queues
        self._pollers: dict[str, Poller] = {}
        self._ending: list[tuple[str, Poller]] = []  # that were stopped and may not be over
        self._sorter = ThreadPoolExecutor(1, "filters")
        self._bounds = Bounds(config.limits.sync_payload_bytes, config.event_backoff, self._crowded, self._sorter)

    @property
    def offered(self) -> bool:
        """Whether queues can be polled."""
        return self._queues is not None

    @property
    def full(self) -> bool:
        """Whether no more mappings can be polled."""
        return len(self._pollers) >= MOST

    def polls(self, uuid: str) -> bool:
        """Whether a mapping is polled."""
        return uuid in self._pollers

    async def attributes(self, arn: str) -> Mapping[str, str]:
        """What a queue says of itself. Raises OSError or SandboxdError."""
        assert self._queues is not None
        return await self._queues.attributes(arn)

    def poll(self, uuid: str, source: QueueSource, target: Target) -> None:
        """Begin to poll, or go on in another way."""
        assert self._queues is not None
        self.stop(uuid)
        self._pollers[uuid] = Poller(source, self._queues, target, self._bounds)
        self._pollers[uuid].begin(self._last(uuid))

    def stop(self, uuid: str) -> None:
        """Take nothing more for a mapping; what runs may end."""
        self._ending = [(of, poller) for of, poller in self._ending if not poller.over]
        poller = self._pollers.pop(uuid, None)
        if poller is not None:
            poller.stop()
            self._ending.append((uuid, poller))

    async def ended(self, uuid: str) -> None:
        """Return when nothing of a mapping that was stopped runs any more."""
        poller = self._last(uuid)
        if poller is not None:
            await poller.ended()

    def settling(self, uuid: str) -> bool:
        """Whether something goes on still as it was before the last change of a mapping."""
        poller = self._last(uuid)
        return poller is not None and not poller.over

    def _last(self, uuid: str) -> Poller | None:
        """The one that was stopped last: it began, or begins, when those before it are over."""
        return next((poller for of, poller in reversed(self._ending) if of == uuid), None)

    def problem(self, uuid: str) -> str:
        """Why nothing comes of a mapping at present, or nothing."""
        poller = self._pollers.get(uuid)
        return "" if poller is None else poller.problem

    def stop_all(self) -> None:
        """Take nothing more for any mapping."""
        for poller in self._every():
            poller.stop()

    async def close(self) -> None:
        """Cut off what still runs: its messages come again."""
        self.stop_all()
        everybody = self._every()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await asyncio.gather(*(poller.ended() for poller in everybody))
        for poller in everybody:
            await poller.cut_off()
        self._sorter.shutdown()

    def _crowded(self) -> bool:
        return sum(poller.batches for poller in self._every()) >= _TOGETHER

    def _every(self) -> list[Poller]:
        return [*self._pollers.values(), *(poller for _, poller in self._ending)]
