"""The logs of functions: stdout and stderr with the service's own lines, one stream per function and version.

Those of the configuration's account lie in the directory itself, another's in one of its own in there.

Room: service. May: files below its own directory. May not: write to disk on the path of an invocation.

What is appended waits in memory until a timer hands it to the one writing thread. A stream's offsets count its bytes
since it began and never go back: a segment's file is named by the offset of its first byte, so that a restart finds
where it was. Only the newest segments are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

log = logging.getLogger(__name__)

SEGMENT_BYTES = 8 * 1024 * 1024
SEGMENTS = 2
FLUSH_SECONDS = 0.25
_SOON_BYTES = 512 * 1024  # of one stream: written without waiting for the timer
_STREAM_BYTES = 8 * 1024 * 1024  # of one stream that may wait in memory; what is more is dropped
_ALL_BYTES = 64 * 1024 * 1024

_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_$-]{1,140}")
_SEGMENT = re.compile(r"(\d{20})\.log")
_FORGOTTEN = ".forgotten-"  # no function's name begins with a dot
_OF_ACCOUNT = "@"  # before the id: nor with this


@dataclass(frozen=True, slots=True)
class _Segment:
    start: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.start:020d}.log"


@dataclass(slots=True, weakref_slot=True, eq=False)
class LogStream:
    """One function version's log. Alive as long as an environment, a reader or unwritten bytes hold it."""

    directory: Path
    _logs: Logs
    _segments: list[_Segment] = field(default_factory=list)
    _loaded: bool = False
    _written: int = 0  # offset of the first byte that is in memory only
    _writing: bytes = b""
    _waiting: list[bytes] = field(default_factory=list)
    _waiting_bytes: int = 0
    _forgotten: bool = False
    _readers: list[asyncio.Future[None]] = field(default_factory=list)

    def append(self, data: bytes) -> bool:
        """Take bytes, to be written later; False where they were dropped because too many wait already."""
        if self._forgotten or not data:
            return True
        if self._waiting_bytes + len(data) > _STREAM_BYTES or not self._logs.note_waiting(self, len(data)):
            return False
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _SOON_BYTES:
            self._logs.flush_soon()
        if self._readers:
            self.wake_readers()
        return True

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        self._load()
        return self._written + len(self._writing) + self._waiting_bytes

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Up to `limit` bytes from `offset` (negative: from so many bytes before the end), and the offset after them.

        An offset before what is kept starts at what is kept.
        """
        end = self.end
        first = self._segments[0].start if self._segments else self._written
        position = min(max(end + offset if offset < 0 else offset, first), end)
        pieces: list[bytes] = []
        room = limit
        for segment in self._segments:
            if room > 0 and position < segment.start + segment.size:
                position = max(position, segment.start)
                piece = self._read_segment(segment, position, min(room, segment.start + segment.size - position))
                pieces.append(piece)
                position += len(piece)
                room -= len(piece)
        if room > 0 and position < end:
            position = max(position, self._written)
            memory = self._writing + b"".join(self._waiting)
            piece = memory[position - self._written :][:room]
            pieces.append(piece)
            position += len(piece)
        return position, b"".join(pieces)

    def _read_segment(self, segment: _Segment, position: int, count: int) -> bytes:
        try:
            descriptor = os.open(self.directory / segment.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return b""  # the writing thread has just removed it
        try:
            return os.pread(descriptor, count, position - segment.start)
        finally:
            os.close(descriptor)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                if match := _SEGMENT.fullmatch(entry.name):
                    self._segments.append(_Segment(int(match[1]), entry.stat(follow_symlinks=False).st_size))
        self._segments.sort(key=lambda segment: segment.start)
        if self._segments:
            self._written = self._segments[-1].start + self._segments[-1].size

    def wake_readers(self) -> None:
        """Let everybody who waits go."""
        readers, self._readers = self._readers, []
        for reader in readers:
            if not reader.done():
                reader.set_result(None)

    async def wait(self, offset: int, seconds: float) -> None:
        """Return when there is something beyond `offset`, or after so many seconds."""
        if self.end <= offset and not self._forgotten:
            reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await asyncio.wait((reader,), timeout=seconds)
            finally:
                if reader in self._readers:
                    self._readers.remove(reader)

    # the writing, in turns with the thread: between begin_writing and end_writing `_segments` is not touched

    def begin_writing(self) -> _Job:
        """Hand over what waits."""
        self._load()
        self._writing, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        return _Job(self.directory, self._written, self._writing, list(self._segments))

    def end_writing(self, segments: list[_Segment]) -> None:
        """Take over where it went."""
        self._segments = segments
        self._written += len(self._writing)
        self._writing = b""

    def forget(self) -> None:
        """Take nothing more, and drop what waits: the function is gone."""
        self._forgotten = True
        self._waiting, self._waiting_bytes = [], 0
        self.wake_readers()


@dataclass(frozen=True, slots=True)
class _Job:
    """What the writing thread does for one stream."""

    directory: Path
    offset: int
    data: bytes
    segments: list[_Segment]

    def write(self) -> list[_Segment]:
        """Append to the newest segment or a new one; the segments that are kept then. Raises OSError."""
        segments = list(self.segments)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        offset, data = self.offset, memoryview(self.data)
        while data:
            last = segments[-1] if segments else None
            if last is None or last.size >= SEGMENT_BYTES or last.start + last.size != offset:
                segments.append(last := _Segment(offset, 0))
            piece = data[: SEGMENT_BYTES - last.size]
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.directory / last.name, flags, 0o600)
            try:
                count = os.pwrite(descriptor, piece, last.size)
            finally:
                os.close(descriptor)
            segments[-1] = _Segment(last.start, last.size + count)
            offset += count
            data = data[count:]
        for segment in segments[:-SEGMENTS]:
            (self.directory / segment.name).unlink(missing_ok=True)
        return segments[-SEGMENTS:]


class Logs:
    """Every log of the service, below one directory of its own. `account` is the configuration's.

    Use from one running event loop.
    """

    def __init__(self, directory: Path, account: str) -> None:
        self._directory, self._account = directory, account
        self._loop = asyncio.get_running_loop()
        self._streams: WeakValueDictionary[tuple[str, str, str], LogStream] = WeakValueDictionary()
        self._dirty: set[LogStream] = set()
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: _Writing | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._graves = itertools.count()
        self._to_bury: list[Path] = []
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (directory, *directory.glob(f"{_OF_ACCOUNT}*")):
            for leftover in place.glob(f"{_FORGOTTEN}*"):
                shutil.rmtree(leftover)

    def stream(self, account: str, function: str, version: str) -> LogStream:
        """The log of a version of an account's function. Raises ValueError for what cannot be the name of any."""
        stream = self._streams.get((account, function, version))
        if stream is None:
            if not _NAME.fullmatch(version):
                raise ValueError(f"{function!r} version {version!r} names no log")
            directory = self._of_function(account, function) / version
            stream = self._streams[account, function, version] = LogStream(directory, self)
        return stream

    def read(self, account: str, function: str, version: str, offset: int, limit: int) -> tuple[int, bytes]:
        """Up to `limit` bytes of a log from `offset`, and the offset after them; see LogStream.read."""
        return self.stream(account, function, version).read(offset, limit)

    async def wait(self, account: str, function: str, version: str, offset: int, timeout: float) -> None:
        """Return when a log reaches beyond `offset`, or after `timeout` seconds."""
        await self.stream(account, function, version).wait(offset, timeout)

    def wake_readers(self) -> None:
        """Let everybody who waits for a log go, with nothing."""
        for stream in list(self._streams.values()):
            stream.wake_readers()

    def forget(self, account: str, function: str) -> None:
        """Remove every log of a function that was deleted; what its last environments still say goes nowhere."""
        directory = self._of_function(account, function)
        for key, stream in list(self._streams.items()):
            if key[:2] == (account, function):
                stream.forget()
                self._dirty.discard(stream)
                del self._streams[key]
        self._bury_soon(directory)

    def forget_account(self, account: str) -> None:
        """Remove what is left of the logs of an account, not the configuration's, whose functions are deleted."""
        self._bury_soon(self._of_function(account, "f").parent)

    def _bury_soon(self, directory: Path) -> None:
        if self._writing is None:
            self._bury(directory)
        else:  # the thread may be about to make the directory again
            self._to_bury.append(directory)

    def _of_function(self, account: str, function: str) -> Path:
        if not _ACCOUNT.fullmatch(account) or not _NAME.fullmatch(function):
            raise ValueError(f"{function!r} of account {account!r} names no log")
        return self._directory / ("" if account == self._account else _OF_ACCOUNT + account) / function

    def _bury(self, directory: Path) -> None:
        while (grave := directory.with_name(f"{_FORGOTTEN}{next(self._graves)}")).exists():
            pass
        with contextlib.suppress(FileNotFoundError):
            directory.rename(grave)
            self._thread.submit(shutil.rmtree, grave)

    def note_waiting(self, stream: LogStream, count: int) -> bool:
        """Grant room in memory for bytes that are to be written soon; False where there is none."""
        if self._waiting_bytes + count > _ALL_BYTES:
            return False
        self._waiting_bytes += count
        self._dirty.add(stream)
        if self._timer is None and self._writing is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self._flush)
        return True

    def flush_soon(self) -> None:
        """Write without waiting for the timer, once what is being written is."""
        if self._timer is not None and self._writing is None:
            self._timer.cancel()
            self._timer = self._loop.call_later(0, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._writing is None and self._dirty:
            streams, jobs = self._take_dirty()
            self._writing = _Writing(streams, self._thread.submit(_run_jobs, jobs))
            self._writing.jobs.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._on_written))

    def _take_dirty(self) -> tuple[list[LogStream], list[_Job]]:
        streams, self._dirty = list(self._dirty), set()
        self._waiting_bytes = 0
        return streams, [stream.begin_writing() for stream in streams]

    def _on_written(self) -> None:
        if self._writing is None:
            return  # `close` was there first
        self._writing.finish()
        self._writing = None
        for directory in self._to_bury:
            self._bury(directory)
        self._to_bury = []
        if self._dirty and self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self._flush)

    def close(self) -> None:
        """Write what waits, and stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            wait((self._writing.jobs,))
            self._on_written()
        self._flush()
        if self._writing is not None:
            wait((self._writing.jobs,))
            self._on_written()
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class _Writing:
    """What the writing thread is at."""

    streams: list[LogStream]
    jobs: Future[list[list[_Segment]]]

    def finish(self) -> None:
        for stream, segments in zip(self.streams, self.jobs.result(), strict=True):
            stream.end_writing(segments)


def _run_jobs(jobs: list[_Job]) -> list[list[_Segment]]:
    results = []
    for job in jobs:
        try:
            results.append(job.write())
        except OSError as error:
            # The bytes are lost, their offsets are not: the next write begins a segment of its own behind the gap.
            log.warning("%s: %d bytes of log are lost: %s", job.directory, len(job.data), error.strerror)
            results.append(job.segments)
    return results
