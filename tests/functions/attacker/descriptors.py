"""Descriptors: what the runtime was given, and what can be made of it."""

import fcntl
import os
import socket
import stat

from attack import collection

ATTACKS, attack = collection()


def _held():
    """The runtime's own descriptors, by number."""
    directory = f"/proc/{os.getppid()}/fd"
    found = {}
    for number in os.listdir(directory):
        try:
            found[int(number)] = (os.readlink(f"{directory}/{number}"), os.stat(f"{directory}/{number}"))
        except OSError:
            continue
    return found


def _of_kind(test):
    return [target for number, (target, about) in _held().items() if number > 2 and test(about.st_mode)]


@attack
def directories(host):
    return _of_kind(stat.S_ISDIR)


@attack
def regular_files(host):
    return _of_kind(stat.S_ISREG)


@attack
def device_descriptors(host):
    return [t for t in _of_kind(lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) if t != "/dev/null"]


@attack
def powerful_kinds(host):
    words = ("memfd:", "pidfd", "userfaultfd", "io_uring", "bpf", "perf_event", "seccomp", "fanotify", "inotify",
             "mnt:", "net:", "user:", "pid:", "fscontext", "kvm")  # fmt: skip
    return [target for target, _ in _held().values() if any(word in target for word in words)]


@attack
def listening_sockets(host):
    found = []
    for number, (target, _) in _held().items():
        if target.startswith("socket:"):
            with socket.socket(fileno=os.dup(number)) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.append(target)
    return found


@attack
def sockets_of_the_daemon(host):
    """Message sockets with ends outside: the channel to the builder is one."""
    found = []
    for number, (target, _) in _held().items():
        if target.startswith("socket:"):
            with socket.socket(fileno=os.dup(number)) as one:
                if one.family == socket.AF_UNIX and one.type & 15 == socket.SOCK_SEQPACKET:
                    found.append(target)
    return found


@attack
def pipes_beyond_the_log(host):
    held = _held()
    log = held[1][0]
    return [t for n, (t, about) in held.items() if n > 2 and stat.S_ISFIFO(about.st_mode) and t != log and n < 6]


@attack
def standard_input(host):
    target = _held()[0][0]
    return target if target != "/dev/null" else None


@attack
def standard_output_is_a_file(host):
    return [target for number, (target, _) in _held().items() if number in (1, 2) and not target.startswith("pipe:")]


@attack
def descriptors_of_pid_1(host):
    return os.listdir("/proc/1/fd")


@attack
def signals_for_others(host):
    """SIGIO to a process of the host's, by F_SETOWN on a descriptor of ours."""
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, host["pid"])
    return fcntl.fcntl(reader, fcntl.F_GETOWN)


@attack
def pipe_larger_than_the_limit(host):
    reader, _ = os.pipe()
    return fcntl.fcntl(reader, 1031, 64 << 20)  # F_SETPIPE_SZ


@attack
def more_than_the_limit(host):
    held = []
    while len(held) < 5000:
        held.append(os.open("/dev/null", os.O_RDONLY))
    return len(held)
