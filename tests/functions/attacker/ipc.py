"""Communication between processes: System V, POSIX queues, keyrings and shared memory of others."""

import ctypes
import os

from attack import collection, libc, opens, syscall

ATTACKS, attack = collection()
SHMGET, SEMGET, MSGGET, KEYCTL, SHMCTL, SEMCTL, MSGCTL = 29, 64, 68, 250, 31, 66, 71


@attack
def shared_memory_of_the_host(host):
    return syscall(SHMGET, host["key"], 0, 0)


@attack
def semaphores_of_the_host(host):
    return syscall(SEMGET, host["key"], 0, 0)


@attack
def message_queue_of_the_host(host):
    return syscall(MSGGET, host["key"], 0)


@attack
def shared_memory_of_a_neighbour(host):
    return syscall(SHMGET, host["neighbour_key"], 0, 0)


@attack
def shared_memory_by_number(host):
    libc.shmat.restype = ctypes.c_void_p
    found = []
    for number in range(256):
        address = libc.shmat(number, None, 0o10000)
        if address not in (None, ctypes.c_void_p(-1).value):
            found.append(number)
    return found


def _listed(name):
    return lambda host: open(f"/proc/sysvipc/{name}").read().splitlines()[1:]


for _kind in ("shm", "sem", "msg"):
    ATTACKS[f"listed_{_kind}"] = _listed(_kind)


@attack
def segments_of_everybody(host):
    """SHM_INFO counts the segments of the ipc namespace."""
    info = ctypes.create_string_buffer(64)
    syscall(SHMCTL, 0, 14, info)
    return int.from_bytes(info.raw[:4], "little")


@attack
def queue_of_the_host(host):
    libc.mq_open.restype = ctypes.c_int
    if libc.mq_open(b"/" + host["abstract"].encode(), os.O_RDONLY) < 0:
        raise OSError(ctypes.get_errno(), "mq_open")
    return "opened"


@attack
def queue_file_system(host):
    return opens("/dev/mqueue")


@attack
def posix_shared_memory(host):
    return opens("/dev/shm")


@attack
def session_keyring(host):
    return syscall(KEYCTL, 0, -3, 0)


@attack
def user_keyring(host):
    return syscall(KEYCTL, 0, -4, 1)


@attack
def keys_searched(host):
    return syscall(KEYCTL, 10, -3, b"user", b"sandboxd-test-canary", 0)


@attack
def persistent_keyring(host):
    return syscall(KEYCTL, 22, -1, -3)


@attack
def shared_memory_of_huge_pages(host):
    return syscall(SHMGET, 0, 2 << 20, 0o5600)  # IPC_CREAT | SHM_HUGETLB | 0600
