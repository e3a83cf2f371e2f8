"""Capabilities: having one, getting one, doing what takes one."""

import ctypes
import os
import shutil
import socket
import subprocess
import time

from attack import collection, libc, syscall

ATTACKS, attack = collection()
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
PR_GET_SECUREBITS, PR_SET_SECUREBITS, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAPBSET_READ = 27, 28, 8, 47, 23
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
LOCKED = 0xEF
SPARE = "/tmp/of-capabilities"


def _status(process="self"):
    return dict(line.rstrip("\n").split(":\t", 1) for line in open(f"/proc/{process}/status") if ":\t" in line)


def _set_of(kind, process):
    return lambda host: int(_status(process)[kind], 16)


for _kind in SETS:
    ATTACKS[f"{_kind}_is_not_empty"] = _set_of(_kind, "self")
    ATTACKS[f"{_kind}_of_pid_1_is_not_empty"] = _set_of(_kind, "1")


def _prctl(*arguments):
    value = libc.prctl(*map(ctypes.c_ulong, (*arguments, *[0] * (5 - len(arguments)))))
    if value < 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return value


@attack
def securebits_are_not_locked(host):
    return None if _prctl(PR_GET_SECUREBITS) == LOCKED else "not locked"


@attack
def securebits_set(host):
    return f"returned {_prctl(PR_SET_SECUREBITS, 0)}"


@attack
def keepcaps_set(host):
    return f"returned {_prctl(PR_SET_KEEPCAPS, 1)}"


@attack
def ambient_capability_raised(host):
    return f"returned {_prctl(PR_CAP_AMBIENT, 2, 10)}"  # PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE


@attack
def bounding_set_holds_one(host):
    return [number for number in range(41) if _prctl(PR_CAPBSET_READ, number)]


@attack
def capset_to_one(host):
    header = ctypes.create_string_buffer((0x20080522).to_bytes(4, "little") + bytes(4), 8)
    return syscall(126, header, (1 << 10).to_bytes(4, "little") * 3 + bytes(12))


@attack
def no_new_privs_missing(host):
    return _prctl(PR_GET_NO_NEW_PRIVS) != 1 or _status("1")["NoNewPrivs"] != "1"


@attack
def seccomp_missing(host):
    return [process for process in ("self", "1") if _status(process)["Seccomp"] != "2"]


@attack
def a_thread_without_the_filter(host):
    parent = os.getppid()
    states = [_status(f"{parent}/task/{thread}") for thread in os.listdir(f"/proc/{parent}/task")]
    return [state for state in states if state["Seccomp"] != "2" or int(state["CapBnd"], 16)]


@attack
def supplementary_groups(host):
    return os.getgroups() or _status("1")["Groups"].split()


@attack
def setuid_root(host):
    os.setuid(0)
    return "root"


@attack
def setgid_root(host):
    os.setgid(0)
    return "root"


@attack
def setresuid_host(host):
    os.setresuid(1, 1, 1)
    return "daemon"


@attack
def setgroups_root(host):
    os.setgroups([0])
    return "returned"


@attack
def setfsuid_root(host):
    libc.setfsuid(0)
    return libc.setfsuid(-1) == 0


def _copy_of_id(mode, **extended):
    shutil.copy("/usr/bin/id", SPARE)
    os.chmod(SPARE, mode)
    for name, value in extended.items():
        os.setxattr(SPARE, name.replace("_", "."), value)


def _ids(run_as=None):
    try:
        if run_as is not None:
            os.chown(SPARE, run_as, run_as)
            os.chmod(SPARE, 0o6755)
        said = subprocess.run([SPARE, "-u"], capture_output=True, text=True, check=True).stdout
    finally:
        os.unlink(SPARE)
    return said


@attack
def setuid_copy_owned_by_root(host):
    _copy_of_id(0o755)
    return _ids(run_as=0)


@attack
def setuid_copy_of_pid_1s_user(host):
    _copy_of_id(0o755)
    return _ids(run_as=65534)


@attack
def file_with_capabilities(host):
    value = bytes.fromhex("0100000200040000000000000000000000000000")  # VFS_CAP_REVISION_2, CAP_NET_BIND_SERVICE
    try:
        _copy_of_id(0o755, security_capability=value)
        return "set"
    finally:
        os.unlink(SPARE)


@attack
def trusted_attribute(host):
    try:
        _copy_of_id(0o755, trusted_overlay=b"y")
        return "set"
    finally:
        os.unlink(SPARE)


@attack
def chown_to_another(host):
    try:
        os.close(os.open(SPARE, os.O_CREAT | os.O_WRONLY))
        os.chown(SPARE, 0, 0)
        return "root's"
    finally:
        os.unlink(SPARE)


@attack
def read_without_permission(host):
    try:
        os.close(os.open(SPARE, os.O_CREAT | os.O_WRONLY, 0))
        return open(SPARE).fileno()
    finally:
        os.unlink(SPARE)


@attack
def bind_to_a_privileged_port(host):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 80))
        return one.getsockname()


@attack
def nice_below_zero(host):
    return os.nice(-5)


@attack
def memory_locked_beyond_the_limit(host):
    page = ctypes.create_string_buffer(8 << 20)
    if libc.mlock(page, ctypes.c_size_t(len(page))) < 0:
        raise OSError(ctypes.get_errno(), "mlock")
    return "locked"


@attack
def all_memory_locked(host):
    return syscall(151, 1)  # mlockall


@attack
def wake_the_machine(host):
    timer = ctypes.c_int()
    return syscall(222, time.CLOCK_BOOTTIME + 2, 0, ctypes.byref(timer))  # CLOCK_BOOTTIME_ALARM
