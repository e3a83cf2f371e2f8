"""A real store and a real EventMode over one directory; what is below, the scheduler, is a test's own coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from sandboxd.config import Config
from sandboxd.events.mode import EventMode
from sandboxd.model.destination import Spool
from sandboxd.model.endpoint import Endpoint
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult, Outcome
from sandboxd.services import Neighbours
from sandboxd.store.store import Stores
from tests.api.conftest import package
from tests.store.unpacker import InProcessUnpacker

BASE = "arn:aws:lambda:us-east-1:000000000000:function:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:dead"
TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"

OK = InvocationResult(Outcome.OK, b'{"done": true}')
FAILED = InvocationResult(Outcome.HANDLED, b'{"errorMessage": "no", "errorType": "E"}', function_error="Unhandled")


def version(name: str, number: str = "$LATEST", **changes: Any) -> FunctionVersion:
    """A function that is there."""
    fields: dict[str, Any] = {
        "name": name, "version": number, "arn": BASE + name, "runtime": "python3.13", "role": "", "handler": "a.b",
        "code_digest": "00" * 32, "code_size": 1, "memory_size": 128, "timeout": 3, "revision_id": "",
        "last_modified": "", "state": "Active", "last_update_status": "Successful",
    }  # fmt: skip
    return FunctionVersion(**fields | changes)


class World:
    """One service's part that is about events. `runs` is what was run, in order; `answer` decides what comes of it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        standing: dict[str, Any] = {
            "event_retry_waits": (0.02, 0.04),
            "event_backoff": (0.02, 0.1),
            "destinations": {QUEUE: Spool("dead"), TOPIC: Endpoint("127.0.0.1", 1, "/")},
            "disk_floor": 1,
        }
        self.config = Config(data_dir=directory, **standing | settings)
        for path in (self.config.images_dir, self.config.code_dir, self.config.service_dir):
            path.mkdir(exist_ok=True)
        self.runs: list[Invocation] = []
        self.forbidden: set[tuple[str, str]] = set()  # function and destination
        self.answer: Callable[[Invocation], Awaitable[InvocationResult]] = self.succeed

    async def succeed(self, invocation: Invocation) -> InvocationResult:
        return OK

    async def run(self, invocation: Invocation) -> InvocationResult:
        self.runs.append(invocation)
        return await self.answer(invocation)

    @contextlib.asynccontextmanager
    async def open(self, *names: str) -> AsyncIterator[World]:
        """Open the store, with these functions, and begin."""
        self.stores = await Stores.open(self.config, InProcessUnpacker(self.config.code_dir))
        self.store = self.stores.own
        async with self.store.code.hold(package()) as digest:
            for name in names:
                await self.store.functions.create(version(name, code_digest=digest))
        self.mode = EventMode(self.config, self.stores, Neighbours(self.config))
        await self.mode.start(self.run, lambda function, arn: (function.name, arn) not in self.forbidden)
        try:
            yield self
        finally:
            await self.mode.close()
            self.stores.close()

    async def send(self, name: str, payload: Any = None, qualifier: str = "") -> str:
        """Accept an event; its request id."""
        arn = BASE + name + (f":{qualifier}" if qualifier else "")
        request_id = f"request-{name}-{payload}"
        invocation = Invocation(request_id, version(name), arn, json.dumps(payload).encode(), trace_id="Root=1")
        await self.mode.accept(invocation)
        return request_id

    async def set(self, name: str, qualifier: str = "$LATEST", **members: Any) -> None:
        """The function's EventInvokeConfig."""
        await self.store.settings.put("EventInvokeConfig", name, members, qualifier)

    async def until(self, happened: Callable[[], Any]) -> Any:
        """What is true soon."""
        async with asyncio.timeout(30):
            while not (found := happened()):
                await asyncio.sleep(0.005)
        return found

    async def drained(self) -> None:
        """Every event is over."""
        await self.until(lambda: not self.store.events.held)

    def spooled(self) -> list[dict[str, Any]]:
        """What the queue's directory holds."""
        files = sorted((self.config.service_dir / "spool" / "dead").glob("*.json"))
        return [json.loads(file.read_text()) for file in files]
