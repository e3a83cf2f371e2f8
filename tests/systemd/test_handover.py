"""What systemd does for the daemon, done by the test: it holds the sockets, hears readiness and the watchdog's word."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection

from tests.support import packages
from tests.support.daemon import Answer, Daemon, UnixConnection
from tests.support.load import Load

NewDaemon = Callable[..., Daemon]

# sd_listen_fds(3): descriptors from 3 on, for the process whose pid is named.
HAND_OVER = 'exec 3<&"$1"- 4<&"$2"-; shift 2; LISTEN_PID=$$ LISTEN_FDS=2 exec "$@"'


@contextlib.contextmanager
def held(daemon: Daemon, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    """The daemon's two sockets, held by this process and passed to every generation; `kind` is that of the second."""
    daemon.run_dir.mkdir()
    with socket.create_server(("127.0.0.1", daemon.port)) as tcp, socket.socket(socket.AF_UNIX, kind) as unix:
        tcp.listen(128)
        unix.bind(str(daemon.socket))
        if kind == socket.SOCK_STREAM:
            unix.listen(128)
        # Far from 3 and 4, so that moving one does not overwrite the other.
        daemon.passed = [fcntl.fcntl(sock, fcntl.F_DUPFD, 20) for sock in (tcp, unix)]
        daemon.under = ["bash", "-c", HAND_OVER, "holder", *map(str, daemon.passed)]
        try:
            yield
        finally:
            for descriptor in daemon.passed:
                os.close(descriptor)


def test_an_upgrade_loses_no_call_that_ends_within_drain(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon(drain=3, api__auth="none")
    with held(daemon):
        daemon.start()
        name = daemon.deploy(packages.load("sleeps"))
        quiet = daemon.deploy(packages.load("hello"))
        outlasting: list[Answer] = []
        long = threading.Thread(target=lambda: outlasting.append(daemon.invoke(name, {"seconds": 60})))
        followed: list[Answer] = []
        follow = f"/functions/{quiet}/logs?wait=30"
        follower = threading.Thread(target=lambda: followed.append(daemon.admin("GET", follow)))
        clients = [lambda: UnixConnection(daemon.socket), lambda: HTTPConnection("127.0.0.1", daemon.port, timeout=60)]
        with Load(clients, name) as load:
            long.start()
            follower.start()
            for _ in range(2):
                load.wait(100)
                daemon.restart()
            load.wait(20)
        assert set(load.results) == {"ok"}, load.results
        follower.join()
        assert (followed[0].status, followed[0].json["Data"]) == (200, "")
        long.join()
        [answer] = outlasting
        assert (answer.status, answer.code) == (500, "ServiceException")
        assert answer.message == "The service stopped before the invocation ended."
        assert daemon.stop() == 0
        assert daemon.socket.is_socket(), "the holder's, not the daemon's"


def test_only_the_configurations_sockets_are_taken(fresh_daemon: NewDaemon) -> None:
    other_kind, other_address = fresh_daemon(), fresh_daemon()
    with held(other_kind, socket.SOCK_DGRAM):
        assert other_kind.spawn().wait(30) == 1
    assert f"systemd passes 127.0.0.1:{other_kind.port}, descriptor 4, no listening stream" in other_kind.log()
    other_address.settings["api.listen"] = "127.0.0.1:1"
    with held(other_address):
        assert other_address.spawn().wait(30) == 1
    assert f"the configuration wants 127.0.0.1:1, {other_address.socket}" in other_address.log()


def test_sockets_for_another_process_are_not_taken(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    daemon.under = ["env", f"LISTEN_PID={os.getpid()}", "LISTEN_FDS=2"]
    daemon.start()
    assert daemon.stop() == 0


def test_a_room_that_hangs_is_started_again_and_the_watchdog_hears_of_healthy_ones(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    patience = "import sandboxd.daemon as d; d._TICK_SECONDS = 0.6; from sandboxd.__main__ import main; main()"
    daemon.launcher = ["-c", patience]
    notified = daemon.base / "notify"
    daemon.under = ["env", f"NOTIFY_SOCKET={notified}"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(notified))
        ear.settimeout(30)
        daemon.spawn()
        assert ear.recv(4096) == b"READY=1\nWATCHDOG=1"
        name = daemon.deploy(packages.load("counter"))
        for room in ("builder", "service"):
            hung = daemon.room(room)
            os.kill(hung.pid, signal.SIGSTOP)
            hung.wait(30)
            daemon.wait_ready()
            assert daemon.call(name)["count"] == 1
        assert daemon.log().count("builder and service have not answered for 3.6 s") == 2
        assert daemon.stop() == 0
        ear.setblocking(False)
        heard = []
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(ear.recv(4096))
    assert heard[-1] == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=55000000"
    assert set(heard[:-1]) == {b"READY=1\nWATCHDOG=1"}
