"""The framing of event streams, as botocore reads it."""

from __future__ import annotations

import pytest
from botocore.eventstream import EventStreamBuffer

from sandboxd.api.stream import message


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)) * 300])
def test_botocore_reads_what_is_written(payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(
        message("PayloadChunk", "application/octet-stream", payload) + message("InvokeComplete", "a/b", b"{}")
    )
    first, second = buffer
    assert first.payload == payload and second.payload == b"{}"
    assert first.headers == {
        ":message-type": "event",
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
    }
