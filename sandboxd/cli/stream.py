"""Messages of AWS's event streams: what InvokeWithResponseStream answers.

Room: command line. Source: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_PRELUDE = struct.Struct("!III")  # of the message, of its headers; then a checksum, which a unix socket does not need
_CRC_BYTES = 4
_STRING = 7
_EVENT = ":event-type"


def messages(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Type and payload of each event in a stream that comes in pieces. Raises ValueError for what is none."""
    data = b""
    for piece in pieces:
        data += piece
        while len(data) >= _PRELUDE.size:
            size, headers, _ = _PRELUDE.unpack_from(data)
            begin, end = _PRELUDE.size + headers, size - _CRC_BYTES
            if begin > end:
                raise ValueError(f"a message of {size} bytes with headers of {headers}")
            if len(data) < size:
                break
            yield _event(data[_PRELUDE.size : begin]), data[begin:end]
            data = data[size:]
    if data:
        raise ValueError("the last message is not complete")


def _event(headers: bytes) -> str:
    """The type of an event, which is one of its headers; all of them are texts."""
    names: dict[str, str] = {}
    while headers:
        length = headers[0]
        name, rest = headers[1 : 1 + length], headers[1 + length :]
        if len(rest) < 3 or rest[0] != _STRING:
            raise ValueError(f"header {name!r} is no text")
        size = int.from_bytes(rest[1:3], "big")
        names[name.decode()], headers = rest[3 : 3 + size].decode(), rest[3 + size :]
    return names.get(_EVENT, "")
