"""A service that was taken over: it hands its end of the door to the test, and does nothing more.

`patch` runs in each room before it begins (tests.support.patched); in the service it never returns.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path


def patch(room: str, place: str) -> None:
    """Send the door to the test, which listens at `place`, and tell the keeper that the service serves."""
    if room != "sandboxd.service":
        return
    builder, ready = int(sys.argv[2]), int(sys.argv[3])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mine:
        mine.connect(place)
        socket.send_fds(mine, [b"door"], [builder])
    os.close(builder)
    while True:
        os.write(ready, b"R")  # it serves, and goes on answering
        time.sleep(1)


class Desk:
    """Where hostile services report: each `door()` is the next generation's channel."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "desk.sock"
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(str(self.place))
        self._listening.listen(8)
        self._listening.settimeout(30)

    def door(self) -> socket.socket:
        """The service's end of a channel to a builder that has just begun."""
        connection, _ = self._listening.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 16, 1)
        channel = socket.socket(fileno=descriptors[0])
        channel.settimeout(30)
        return channel

    def close(self) -> None:
        """Take no further door."""
        self._listening.close()
