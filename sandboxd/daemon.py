"""The keeper: systemd's main pid, root, a few lines. It starts the rooms, and starts them again.

Room: root. May: open the listening sockets, start builder and service. May not: anything else.

Builder and service stand and fall together: when either ends, or hangs, the keeper ends the other, and the kernel ends
every process of the outer pid namespace with its init. The listening sockets are the keeper's, or systemd's before
it, so that between two generations connections wait in the backlog.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import grp
import logging
import os
import pickle
import pwd
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import prctl

from sandboxd import systemd
from sandboxd.config import Config
from sandboxd.errors import StartFailed
from sandboxd.privsep import channel as door

log = logging.getLogger("sandboxd")

_CLONE_NEWPID = 0x20000000
_BACKLOG = 4096
_BUILDER_END_SECONDS = 10.0
_SERVICE_END_SECONDS = 15.0  # beyond `drain`: what the service's own end may take
_TICK_SECONDS, _SILENT_TICKS = 5.0, 6  # ticks, not a clock: one who was stopped together with the rooms counts one
_MAX_REFUSALS, _MAX_DEATHS = 2, 6  # starts in a row that ended by their own word, or were killed, before they served
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Rooms:
    """One generation: the two processes, and the pipe in which each byte says that just now both answered."""

    builder: subprocess.Popen[bytes]
    service: subprocess.Popen[bytes]
    beats: int


def main(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT; the process's exit code. Raises StartFailed where it cannot start."""
    prctl.set_name("sandboxd")
    prctl.set_proctitle(f"sandboxd: keeper ({config.instance})")
    _set_up_logging()
    account = _account(config)
    _make_directories(config, account)
    locks = [_lock(config.run_dir, config), _lock(config.data_dir, config)]
    systemd.leave_delegated_group()
    given = systemd.sockets(config)
    try:
        return _Keeper(config, locks[0], given or [_listen_tcp(config), _listen_unix(config, account)]).run()
    finally:
        if not given:
            config.api_socket.unlink(missing_ok=True)
        for lock in locks:
            os.close(lock)


class _Keeper:
    def __init__(self, config: Config, lock: int, sockets: list[socket.socket]) -> None:
        self._config, self._lock, self._sockets = config, lock, sockets
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        self._wakeup = reader
        self._wakeup_writer = writer
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        self._selector.register(reader, selectors.EVENT_READ)

    def _on_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._stopping = True

    def run(self) -> int:
        """Keep one generation alive after another until told to stop, or until several in a row do not serve."""
        refusals = deaths = 0
        while True:
            try:
                rooms = self._start()
            except OSError as error:  # no descriptor, process or memory is left for one
                log.error("cannot start builder and service: %s", error)
                return 1
            served = self._watch(rooms)
            if self._stopping:
                return self._stop(rooms)
            killed = -signal.SIGKILL in (rooms.builder.poll(), rooms.service.poll())
            log.warning("%s ended: starting again", self._end(rooms))
            refusals = 0 if served else refusals + (not killed)
            deaths = 0 if served else deaths + killed
            if refusals == _MAX_REFUSALS or deaths == _MAX_DEATHS:
                log.error("did not come up: giving up")
                self._remove_leftovers()
                return 1

    def _start(self) -> _Rooms:
        generation = f"{time.time_ns():x}"
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, generation.encode(), 0)
        settings = pickle.dumps(self._config)
        builder_end, service_end = door.pair()
        beats, beats_writer = os.pipe()
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Children from here on are born in a new pid namespace, the first of them as its init.
            _checked(_libc.unshare(_CLONE_NEWPID))
            builder = _spawn("sandboxd.builder.room", [_readable(settings), builder_end.detach()], generation)
            listening = [socket.dup(sock.fileno()) for sock in self._sockets]
            service = _spawn("sandboxd.service", [_readable(settings), service_end.detach(), beats_writer, *listening])
        finally:
            _checked(_libc.setns(own, _CLONE_NEWPID))
            os.close(own)
        return _Rooms(builder, service, beats)

    def _watch(self, rooms: _Rooms) -> bool:
        """Wait until a room ends or hangs, or a stop is asked for; whether the service came to serve."""
        served, silent = False, 0
        self._selector.register(rooms.beats, selectors.EVENT_READ)
        while not self._stopping and rooms.builder.poll() is None and rooms.service.poll() is None:
            ready = self._selector.select(_TICK_SECONDS)
            silent += served and not ready
            if silent == _SILENT_TICKS:
                log.error("builder and service have not answered for %g s", _TICK_SECONDS * silent)
                break
            for key, _ in ready:
                if key.fd != rooms.beats:
                    with contextlib.suppress(BlockingIOError):
                        self._wakeup.recv(4096)
                elif os.read(rooms.beats, 4096):
                    systemd.notify("READY=1\nWATCHDOG=1")
                    served, silent = True, 0
                else:
                    self._selector.unregister(rooms.beats)
        if rooms.beats in self._selector.get_map():
            self._selector.unregister(rooms.beats)
        os.close(rooms.beats)
        return served

    def _end(self, rooms: _Rooms) -> str:
        """End both rooms of a generation; which had ended before, or hung."""
        both = {"builder": rooms.builder, "service": rooms.service}
        ended = [name for name, room in both.items() if room.poll() is not None] or both
        # The builder is init of the namespace that the service lives in: it can only end when the service, which is a
        # child of this process, has been reaped.
        rooms.service.kill()
        rooms.service.wait()
        rooms.builder.kill()
        rooms.builder.wait()
        return " and ".join(ended)

    def _stop(self, rooms: _Rooms) -> int:
        """Let the service drain, then the builder end what is left."""
        seconds = self._config.drain + _SERVICE_END_SECONDS
        systemd.notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={(seconds + 3 * _BUILDER_END_SECONDS) * 1e6:.0f}")
        for sock in self._sockets:  # who calls now waits for the next generation, or is told at once that there is none
            sock.close()
        rooms.service.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            rooms.service.wait(seconds)
        rooms.service.kill()
        rooms.service.wait()
        with contextlib.suppress(subprocess.TimeoutExpired):
            rooms.builder.wait(_BUILDER_END_SECONDS)
        self._end(rooms)
        if rooms.builder.returncode != 0:
            self._remove_leftovers()
        return 0

    def _remove_leftovers(self) -> None:
        """Have that removed which a builder that was killed could not: no start will do it soon."""
        with contextlib.suppress(OSError):
            collector = _spawn("sandboxd.builder.leftovers", [_readable(pickle.dumps(self._config))])
            with contextlib.suppress(subprocess.TimeoutExpired):
                collector.wait(_BUILDER_END_SECONDS)
            collector.kill()
            collector.wait()


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "pid namespace")


def _spawn(module: str, descriptors: list[int], *arguments: str) -> subprocess.Popen[bytes]:
    """Start a room in a process of its own memory, with these descriptors and no others, in a session of its own."""
    command = [sys.executable, "-I", "-m", module, *map(str, descriptors), *arguments]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True, env=_environment()
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def _readable(data: bytes) -> int:
    descriptor = os.memfd_create("sandboxd-config")
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _account(config: Config) -> pwd.struct_passwd:
    if os.geteuid() != 0:
        raise StartFailed("sandboxd daemon must be started as root: it builds namespaces, cgroups and mounts")
    try:
        grp.getgrnam(config.user)
        return pwd.getpwnam(config.user)
    except KeyError:
        raise StartFailed(
            f"user and group {config.user!r} (configuration key user) do not exist; "
            f"make them with: useradd --system --user-group --shell /usr/sbin/nologin {config.user}"
        ) from None


def _make_directories(config: Config, account: pwd.struct_passwd) -> None:
    for directory, mode, owner in (
        (config.data_dir, 0o755, None),
        (config.images_dir, 0o755, None),
        (config.code_dir, 0o750, (0, account.pw_gid)),  # the service compares what is there with what should be
        (config.run_dir, 0o755, None),
        (config.service_dir, 0o700, (account.pw_uid, account.pw_gid)),
    ):
        try:
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
            os.chmod(directory, mode)
            if owner is not None:
                os.chown(directory, *owner, follow_symlinks=False)
        except OSError as error:
            raise StartFailed(f"cannot make {directory}: {error.strerror}") from error


def _lock(directory: Path, config: Config) -> int:
    """A directory's lock, held as long as this process lives; in run_dir, its text names the living generation."""
    path = directory / "daemon.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartFailed(
            f"another daemon uses {directory} ({path} is locked); instance here: {config.instance!r}"
        ) from None
    return descriptor


def _listen_tcp(config: Config) -> socket.socket:
    host, port = config.api_listen
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        raise StartFailed(f"cannot listen on {host}:{port} (configuration key api.listen): {error.strerror}") from error
    return sock


def _listen_unix(config: Config, account: pwd.struct_passwd) -> socket.socket:
    config.api_socket.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        sock.bind(str(config.api_socket))
        os.chown(config.api_socket, 0, account.pw_gid)
        config.api_socket.chmod(0o660)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise StartFailed(f"cannot listen on {config.api_socket}: {error.strerror}") from error
    finally:
        os.umask(umask)
    return sock


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
