"""InvokeWithResponseStream: an answer while the function still makes it, in the framing of AWS's event streams.

Room: service. May: frame bytes.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_InvokeWithResponseStream.html and
https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

from sandboxd.environment.stream import Stream
from sandboxd.errors import ApiError
from sandboxd.model.invocation import Invocation, InvocationResult

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE, _CRC, _LENGTH = struct.Struct("!II"), struct.Struct("!I"), struct.Struct("!H")
_STRING = 7

Run = Callable[[Invocation], Coroutine[Any, Any, InvocationResult]]


class Begun(NamedTuple):
    """An answer that is still being made, and the task that ends with how it ended."""

    stream: Stream
    task: asyncio.Task[InvocationResult]


class Streams:
    """Runs invocations whose answers are streamed, of at most `limit` bytes each."""

    def __init__(self, run: Run, limit: int) -> None:
        self._run, self._limit = run, limit
        self._running: set[asyncio.Task[InvocationResult]] = set()

    async def begin(self, invocation: Invocation) -> Begun:
        """The answer of an invocation, once there is some of it. Raises ApiError where it does not come to run."""
        stream = Stream(self._limit)
        task = asyncio.get_running_loop().create_task(self._run(replace(invocation, stream=stream)))
        self._running.add(task)  # it runs to its end, whoever waits for it
        task.add_done_callback(self._running.discard)
        task.add_done_callback(functools.partial(_over, stream))
        try:
            await stream.begun()
        except asyncio.CancelledError:
            stream.close()
            raise
        if task.done():
            task.result()
        return Begun(stream, task)


def _over(stream: Stream, task: asyncio.Task[InvocationResult]) -> None:
    stream.end()
    if not task.cancelled():
        task.exception()  # whoever would hear of it may have gone away


class EventStream:
    """PayloadChunks as they come, and InvokeComplete, as the body of an answer (http.Chunks)."""

    def __init__(self, begun: Begun, tail: bool) -> None:
        self._stream, self._task = begun
        self._tail = tail

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream.pieces():
            yield message("PayloadChunk", "application/octet-stream", piece)
        complete: dict[str, str] = {}
        try:
            result = await asyncio.shield(self._task)
        except ApiError as error:
            complete = {"ErrorCode": error.code, "ErrorDetails": error.message}
        else:
            if result.function_error is not None:
                details = result.payload.decode("utf-8", "replace")
                complete = {"ErrorCode": result.function_error, "ErrorDetails": details}
            elif result.payload:  # the function answered as a whole
                yield message("PayloadChunk", "application/octet-stream", result.payload)
            if self._tail:
                complete["LogResult"] = base64.b64encode(result.log_tail).decode()
        yield message("InvokeComplete", "application/json", json.dumps(complete).encode())

    def close(self) -> None:
        """Nobody reads any further."""
        self._stream.close()


def message(event: str, content_type: str, payload: bytes) -> bytes:
    """One event in the framing of application/vnd.amazon.eventstream."""
    headers = b"".join(
        bytes((len(name),)) + name.encode() + bytes((_STRING,)) + _LENGTH.pack(len(value)) + value.encode()
        for name, value in ((":message-type", "event"), (":event-type", event), (":content-type", content_type))
    )
    prelude = _PRELUDE.pack(_PRELUDE.size + len(headers) + len(payload) + 2 * _CRC.size, len(headers))
    framed = b"".join((prelude, _CRC.pack(zlib.crc32(prelude)), headers, payload))
    return framed + _CRC.pack(zlib.crc32(framed))
