"""The filter: what the profile says is what the kernel does."""

import ctypes
import errno
import mmap
import os
import signal
import socket
from collections.abc import Callable

import pytest

from sandboxd.builder import linux, seccomp
from sandboxd.errors import SandboxdError

PROFILE = seccomp.profile()
PROGRAM = seccomp.compile_profile(PROFILE)
_libc = ctypes.CDLL(None, use_errno=True)


def filtered(action: Callable[[], int]) -> int:
    """The wait status of a child that loads the filter and exits with what the action returns."""
    child = os.fork()
    if child == 0:
        try:
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
            linux.load_seccomp(PROGRAM)
            os._exit(action())
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(254)
    return os.waitpid(child, 0)[1]


def syscall(number: int, *arguments: int) -> Callable[[], int]:
    def call() -> int:
        return ctypes.get_errno() if _libc.syscall(number, *map(ctypes.c_long, arguments)) < 0 else 0

    return call


def test_every_rule_says_who_needs_it() -> None:
    assert all(len(rule["comment"]) > 4 for rule in PROFILE["syscalls"])


def test_no_call_is_both_allowed_and_forbidden() -> None:
    by_action: dict[str, set[str]] = {}
    for rule in PROFILE["syscalls"]:
        by_action.setdefault(rule["action"], set()).update(rule["names"])
    assert not by_action["SCMP_ACT_ALLOW"] & by_action["SCMP_ACT_ERRNO"]


def test_ordinary_work_goes_on() -> None:
    def work() -> int:
        with open("/proc/self/status") as file:
            return 0 if "Seccomp:\t2" in file.read() else 1

    assert filtered(work) == 0


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (101, (0, 0, 0, 0)),  # ptrace
        (165, (0, 0, 0, 0, 0)),  # mount
        (248, (0, 0, 0, 0, 0)),  # add_key
        (272, (0x10000000,)),  # unshare(CLONE_NEWUSER)
        (298, (0, 0, 0, 0, 0)),  # perf_event_open
        (321, (0, 0, 0)),  # bpf
        (323, (0,)),  # userfaultfd
        (425, (1, 0)),  # io_uring_setup
    ],
)
def test_forbidden_calls_are_not_permitted(number: int, arguments: tuple[int, ...]) -> None:
    assert os.waitstatus_to_exitcode(filtered(syscall(number, *arguments))) == errno.EPERM


@pytest.mark.parametrize("number", [435, 999])  # clone3, whose flags no filter can read, and a number of no call
def test_unknown_calls_do_not_exist(number: int) -> None:
    assert os.waitstatus_to_exitcode(filtered(syscall(number, 0, 0))) == errno.ENOSYS


@pytest.mark.parametrize("flag", [0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x02000000, 0x80])
def test_clone_makes_no_namespace(flag: int) -> None:
    assert os.waitstatus_to_exitcode(filtered(syscall(56, flag | signal.SIGCHLD, 0, 0, 0, 0))) == errno.ENOSYS


@pytest.mark.parametrize("flag", [0x8000, 0x8000 | 0x100])
def test_clone_makes_no_child_of_the_builder(flag: int) -> None:
    """CLONE_PARENT gives the caller's parent a child, and a runtime's parent is the builder."""
    assert os.waitstatus_to_exitcode(filtered(syscall(56, flag | signal.SIGCHLD, 0, 0, 0, 0))) == errno.ENOSYS


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (253, ()),  # inotify_init
        (294, (0,)),  # inotify_init1
        (72, (0, 1026, 1)),  # fcntl(F_NOTIFY)
        (72, (0, 1 << 32 | 1026, 1)),  # the same to the kernel, which takes 32 bits
        (72, (0, 1024, 0)),  # F_SETLEASE
        (451, (0, 0, 0, 0)),  # cachestat
    ],
)
def test_nobody_watches_the_files_of_a_shared_image(number: int, arguments: tuple[int, ...]) -> None:
    assert os.waitstatus_to_exitcode(filtered(syscall(number, *arguments))) == errno.ENOSYS


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (206, (128, 0)),  # io_setup: fs.aio-max-nr is one number for the whole host
        (157, (62, 1, 0, 0, 0)),  # prctl(PR_SCHED_CORE)
        (157, (67, 1, 0, 0, 0)),  # prctl(PR_SET_MEMORY_MERGE)
        (157, (1 << 32 | 67, 1, 0, 0, 0)),
    ],
)
def test_nobody_uses_up_or_shapes_what_the_host_shares(number: int, arguments: tuple[int, ...]) -> None:
    assert os.waitstatus_to_exitcode(filtered(syscall(number, *arguments))) == errno.ENOSYS


@pytest.mark.parametrize(
    ("operation", "argument"),
    [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 0),
        (9, 0),
        (1030, 0),
        (1032, 0),
    ],  # F_DUPFD to F_GETOWN, F_DUPFD_CLOEXEC, F_GETPIPE_SZ
)
def test_ordinary_operations_on_descriptors_go_on(operation: int, argument: int) -> None:
    def work() -> int:
        reader, _ = os.pipe()
        return ctypes.get_errno() if _libc.fcntl(reader, operation, argument) < 0 else 0

    assert filtered(work) == 0


@pytest.mark.parametrize("protocol", [(2, 1, 262), (2, 2, 136), (2, 1, 132), (10, 1, 262), (1, 1, 1)])
def test_protocols_but_tcp_and_udp_do_not_exist(protocol: tuple[int, int, int]) -> None:
    """MPTCP, UDP-Lite and SCTP are code of the kernel's that no function needs, some of it loaded by asking."""
    assert os.waitstatus_to_exitcode(filtered(syscall(41, *protocol))) == errno.ENOSYS


@pytest.mark.parametrize("protocol", [(1, 1, 0), (2, 1, 0), (2, 0x80801, 6), (2, 2, 17), (10, 1, 6), (10, 2, 0)])
def test_tcp_udp_and_local_sockets_exist(protocol: tuple[int, int, int]) -> None:
    assert os.waitstatus_to_exitcode(filtered(syscall(41, *protocol))) == 0


@pytest.mark.parametrize(("family", "kind"), [(17, 3), (40, 1), (38, 5), (2, 3), (16, 3), (15, 3), (44, 3)])
def test_other_socket_families_and_raw_sockets_do_not_exist(family: int, kind: int) -> None:
    protocol = 12 if family == 16 else 0  # NETLINK_NETFILTER
    assert os.waitstatus_to_exitcode(filtered(syscall(41, family, kind, protocol))) == errno.ENOSYS


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x5423])  # TIOCSTI, TIOCLINUX, TIOCSETD
def test_terminal_injection_does_not_exist(request_: int) -> None:
    assert os.waitstatus_to_exitcode(filtered(syscall(16, 0, request_, 0))) == errno.ENOSYS


def test_the_limit_on_cores_can_be_asked_for_and_not_set() -> None:
    limit = ctypes.create_string_buffer(16)
    address = ctypes.addressof(limit)
    assert os.waitstatus_to_exitcode(filtered(syscall(302, 0, 4, 0, address))) == 0
    assert os.waitstatus_to_exitcode(filtered(syscall(302, 0, 4, address, 0))) == errno.ENOSYS
    assert os.waitstatus_to_exitcode(filtered(syscall(160, 4, address))) == errno.ENOSYS
    assert os.waitstatus_to_exitcode(filtered(syscall(302, 0, 7, 0, address))) == 0


def test_a_call_of_the_32_bit_architecture_ends_the_process() -> None:
    def call() -> int:
        code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20 (getpid of i386); int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)() == 0)

    assert os.WTERMSIG(filtered(call)) == signal.SIGSYS


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(SandboxdError, match="SCMP_ACT_TRACE"):
        seccomp.compile_profile({"defaultAction": "SCMP_ACT_TRACE", "syscalls": []})


@pytest.mark.parametrize(
    ("level", "option", "value"),
    [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1),
        (socket.SOL_SOCKET, 20, b"\1" + bytes(15)),  # SO_RCVTIMEO
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 9),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9),
        (socket.IPPROTO_IP, socket.IP_TOS, 0),
        (socket.IPPROTO_IP, 24, 1),  # IP_BIND_ADDRESS_NO_PORT
        (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1),
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0),
    ],
)
def test_ordinary_options_of_sockets_are_set(level: int, option: int, value: int | bytes) -> None:
    def work() -> int:
        with socket.socket(socket.AF_INET6 if level == socket.IPPROTO_IPV6 else socket.AF_INET) as one:
            one.setsockopt(level, option, value)
        return 0

    assert os.waitstatus_to_exitcode(filtered(work)) == 0


@pytest.mark.parametrize("advice", [0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 1 << 32 | 4])
def test_ordinary_advice_on_memory_is_taken(advice: int) -> None:
    """An int may come with anything in its register's upper half, and the kernel does not look there."""

    def work() -> int:
        page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return syscall(28, address, 4096, advice)()

    assert os.waitstatus_to_exitcode(filtered(work)) in (0, errno.EINVAL)  # one that this kernel was built without


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_local_pairs_of_sockets_exist(kind: int) -> None:
    def work() -> int:
        for one in socket.socketpair(socket.AF_UNIX, kind):
            one.close()
        return 0

    assert os.waitstatus_to_exitcode(filtered(work)) == 0
