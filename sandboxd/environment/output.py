"""What an environment says: the pipe of its stdout and stderr, and the service's own lines between.

Room: service. May: read the pipe. May not: read it without bound, or let it fill up, which would stop the function.
"""

from __future__ import annotations

import asyncio
import os
import time

from sandboxd.environment.logs import LogStream

TAIL_BYTES = 4096  # what AWS gives back with LogType=Tail
_READ_BYTES = 65_536  # a pipe's size: one look empties it, and each environment gets one look per turn of the loop
_DRAIN_LOOKS = 16
_BURST_BYTES = 4 * 1024 * 1024
_BYTES_PER_SECOND = 1024 * 1024


class Output:
    """One environment's log as it comes. Each may say 4 MiB at once and 1 MiB a second; the rest is counted only."""

    __slots__ = (
        "_allowance", "_allowed_at", "_at_line_start", "_dropped", "_loop", "_null", "_pipe", "_stream", "_tail",
    )  # fmt: skip

    def __init__(self, stream: LogStream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._pipe = self._null = -1
        self._tail: bytearray | None = None
        self._at_line_start = True
        self._allowance = float(_BURST_BYTES)
        self._allowed_at = time.monotonic()
        self._dropped = 0

    def attach(self, pipe: int) -> None:
        """Read from now on; the descriptor is owned from now on."""
        self._pipe = pipe
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._look)

    def close(self) -> None:
        """Take what is left, up to a bound, and end."""
        if self._pipe >= 0:
            self.drain()
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        self._tell_dropped()
        if self._null >= 0:
            os.close(self._null)
            self._null = -1

    def begin(self, keep_tail: bool) -> None:
        """Begin an invocation's own log, whose last bytes `tail` gives where they are kept."""
        self._tail = bytearray() if keep_tail else None

    def tail(self) -> bytes:
        """The last 4 KiB since `begin`."""
        return bytes(self._tail[-TAIL_BYTES:]) if self._tail is not None else b""

    def say(self, lines: str) -> None:
        """Put lines of the service's own, if there are any, into the log, behind what the function has said so far."""
        if not lines:
            return
        self._tell_dropped()
        self._put(lines.encode() if self._at_line_start else b"\n" + lines.encode())

    def drain(self) -> None:
        """Take what is in the pipe now, up to a bound."""
        for _ in range(_DRAIN_LOOKS):
            if self._pipe < 0 or not self._look():
                return

    def _look(self) -> bool:
        """Take one pipeful; whether there was something."""
        now = time.monotonic()
        self._allowance = min(_BURST_BYTES, self._allowance + (now - self._allowed_at) * _BYTES_PER_SECOND)
        self._allowed_at = now
        try:
            count = self._skip() if self._allowance <= 0 else self._take()
        except BlockingIOError:
            return False
        if count == 0:  # every writer has closed its end
            self._loop.remove_reader(self._pipe)
        return count > 0

    def _take(self) -> int:
        data = os.read(self._pipe, _READ_BYTES)
        self._allowance -= len(data)
        if data:
            # awslambdaric parts the lines of one message by \r, as CloudWatch wants them from a pipe.
            self._put(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data)
        return len(data)

    def _skip(self) -> int:
        if self._null < 0:
            self._null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        # splice lets the pages go without copying them: a function that writes without end costs little.
        count = os.splice(self._pipe, self._null, _READ_BYTES * 16, flags=os.SPLICE_F_NONBLOCK)
        self._dropped += count
        return count

    def _put(self, data: bytes) -> None:
        self._at_line_start = data.endswith(b"\n")
        if not self._stream.append(data):
            self._dropped += len(data)
        elif self._tail is not None:
            self._tail += data
            if len(self._tail) > 4 * TAIL_BYTES:
                del self._tail[:-TAIL_BYTES]

    def _tell_dropped(self) -> None:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            start = "" if self._at_line_start else "\n"
            limit = f"{_BURST_BYTES >> 20} MiB at once and {_BYTES_PER_SECOND >> 20} MiB a second"
            self._put(f"{start}[sandboxd] {count} bytes of output were dropped: the limit is {limit}\n".encode())
