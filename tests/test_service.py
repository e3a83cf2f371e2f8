"""The service's walls: what its filter leaves, and that the living service is behind it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import re
import resource
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxd import landlock
from sandboxd.config import Config
from sandboxd.model.endpoint import Endpoint
from sandboxd.seccomp import make_filter, read_profile
from sandboxd.service import _profile
from tests.support.daemon import Daemon
from tests.support.patched import launcher

PROFILE = read_profile("sandboxd", "service_profile.json")
_libc = ctypes.CDLL(None, use_errno=True)


def filtered(action: Callable[[], object], profile: dict[str, Any] = PROFILE) -> int:
    """What an action comes to behind the filter: 0, or the errno that it fails with."""
    child = os.fork()
    if child == 0:
        code = 254
        try:
            _libc.prctl(38, 1, 0, 0, 0)
            make_filter(profile).load()
            action()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def system_call(number: int, *arguments: int) -> Callable[[], object]:
    def call() -> None:
        if _libc.syscall(number, *map(ctypes.c_long, arguments)) < 0:
            raise OSError(ctypes.get_errno(), "")

    return call


def memory(protection: int) -> Callable[[], object]:
    return lambda: mmap.mmap(-1, 4096, prot=protection)


REFUSED: dict[str, Callable[[], object]] = {
    "a program": lambda: os.execv("/bin/true", ["true"]),
    "a process": os.fork,
    "clone3": system_call(435, 0, 0),
    "a user namespace": system_call(272, 0x10000000),
    "another's namespace": lambda: system_call(308, os.open("/proc/self/ns/net", os.O_RDONLY), 0)(),
    "a mount": system_call(165, 0, 0, 0, 0, 0),
    "the new mount calls": system_call(428, -100, 0, 1),
    "chroot": lambda: os.chroot("/"),
    "a debugger": system_call(101, 0, 0, 0, 0),
    "another's memory": system_call(310, os.getpid(), 0, 0, 0, 0, 0),
    "bpf": system_call(321, 0, 0, 0),
    "perf": system_call(298, 0, 0, 0, 0, 0),
    "keys": system_call(250, 0, 0, 0, 0, 0),
    "io_uring": system_call(425, 1, 0),
    "userfaultfd": system_call(323, 0),
    "a signal": lambda: os.kill(os.getpid(), 0),
    "a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "a unix socket": lambda: socket.socket(socket.AF_UNIX),
    "a TCP socket": lambda: socket.socket(socket.AF_INET),
    "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "memory to execute": memory(mmap.PROT_READ | mmap.PROT_EXEC),
    "a terminal's input": system_call(16, 0, 0x5412, 0),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    assert filtered(REFUSED[what]) in (errno.EPERM, errno.ENOSYS)


def test_a_foreign_architecture_ends_the_process() -> None:
    # mov eax, 20; int 0x80; ret: getpid of the 32-bit table, put where it can run before the filter is there.
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    assert filtered(call) == -signal.SIGSYS


def test_the_services_own_work() -> None:
    def work() -> None:
        made = threading.Thread(target=lambda: None)
        made.start()
        made.join()
        memory(mmap.PROT_READ | mmap.PROT_WRITE)()
        for family in (socket.AF_INET, socket.AF_INET6):
            socket.socket(family, socket.SOCK_DGRAM).close()
        resource.getrlimit(resource.RLIMIT_NOFILE)

    assert filtered(work) == 0


def test_every_rule_says_who_needs_it() -> None:
    assert all(len(rule["comment"]) > 4 for rule in PROFILE["syscalls"])


def test_the_living_service_is_behind_it(daemon: Daemon) -> None:
    pid = daemon.room("service").pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert (lines["Seccomp"], lines["Seccomp_filters"], lines["NoNewPrivs"]) == ("2", "1", "1")
        assert {lines[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name in ("core file size", "locked memory", "msgqueue size", "realtime priority"):
        assert re.search(rf"^Max {name} +0 +0 ", limits, re.MULTILINE), limits


FILES: dict[str, Callable[[], object]] = {
    "files of the system": lambda: open("/usr/lib/os-release").close(),
    "the root directory": lambda: os.listdir("/"),
    "other processes": lambda: open("/proc/1/status").close(),
    "a file for everybody": lambda: os.open("/tmp/breach", os.O_WRONLY | os.O_CREAT),
    "memory for everybody": lambda: os.open("/dev/shm/breach", os.O_WRONLY | os.O_CREAT),
    "a device": lambda: open("/dev/zero", "rb").close(),
}


def breach(room: str, argument: str) -> None:
    """Run in each room before it begins: the service tries, once it serves, what a stranger in it would."""
    if room != "sandboxd.service":
        return
    from sandboxd.api.server import Api

    original = Api.handle_unix

    def tries(self: Api, request: object) -> object:
        Api.handle_unix = original  # type: ignore[method-assign]
        for name, attempt in (REFUSED | FILES).items():
            try:
                attempt()
            except OSError as error:
                print(f"breach: {name}: {errno.errorcode[error.errno]}", flush=True)
            else:
                os._exit(99)
        return original(self, request)  # type: ignore[arg-type]

    Api.handle_unix = tries  # type: ignore[method-assign]


def test_a_stranger_in_the_service_gets_nowhere(fresh_daemon: Callable[[], Daemon]) -> None:
    daemon = fresh_daemon()
    daemon.launcher = launcher("tests.test_service:breach")
    daemon.start()
    tried = [line for line in daemon.log().splitlines() if line.startswith("breach: ")]
    assert len(tried) == len(REFUSED | FILES)
    for line in tried:
        _, name, reason = line.split(": ")
        assert reason == "EACCES" if name in FILES else reason in ("EPERM", "ENOSYS", "EACCES"), line


def test_the_files_that_are_left(tmp_path: Path) -> None:
    """Beneath a directory what was named, and nothing beside it; the same with ports."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    for name in ("mine", "read", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    child = os.fork()
    if child == 0:
        done = 1
        try:
            _libc.prctl(38, 1, 0, 0, 0)
            mine, read, other = (str(tmp_path / name) for name in ("mine", "read", "other"))
            assert landlock.restrict({mine: landlock.CHANGE, f"{read}/file": landlock.READ}, [port])
            open(f"{mine}/new", "w").close()
            os.rename(f"{mine}/new", f"{mine}/file")
            os.mkdir(f"{mine}/directory")
            os.rename(f"{mine}/directory", f"{mine}/moved")
            os.rmdir(f"{mine}/moved")
            open(f"{read}/file").close()
            for path, flags in (
                (f"{read}/file", os.O_WRONLY),
                (f"{read}/new", os.O_CREAT),
                (f"{other}/file", os.O_RDONLY),
            ):
                with contextlib.suppress(PermissionError):
                    os.open(path, flags)
                    os._exit(2)
            with contextlib.suppress(PermissionError):
                os.symlink("/", f"{mine}/link")
                os._exit(3)
            with contextlib.suppress(PermissionError):
                socket.create_connection(("127.0.0.1", port + 1 if port < 65_535 else 1))
                os._exit(4)
            socket.create_connection(("127.0.0.1", port)).close()
            done = 0
        finally:
            os._exit(done)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    listener.close()


def test_streams_only_where_the_configuration_names_an_endpoint() -> None:
    endpoint = Config(destinations={"arn": Endpoint("127.0.0.1", 9000, "/")})
    services = Config(services_endpoint=Endpoint("127.0.0.1", 9000, "/"))
    for config, allowed in ((Config(), False), (endpoint, True), (services, True)):
        outcome = filtered(lambda: socket.socket(socket.AF_INET).close(), _profile(config))
        assert (outcome == 0) is allowed, outcome
    assert filtered(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), _profile(endpoint)) != 0
