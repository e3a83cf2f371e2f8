"""What a zygote does in its image's interpreter: fork a child for each request, and make that child an environment.

Room: zygote: no privilege, and the only one that runs code of ours by an image's interpreter: standard library only.
May: fork. May not: meet a function, its variables or its code.

The children's first steps are those of every environment (`init.FIRST`), in a user namespace below the zygote's own.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time

from sandboxd.builder import init

REQUESTS, LADDER, PROGRAM = 3, 4, 5  # descriptors
DESCRIPTORS = 3  # of a request: channel, facts twice
_PLACE = "/mnt"
_RETRY_SECONDS = 0.001


def serve() -> None:
    """Fork until nobody asks any more. Returns in each child, when its sandbox is complete."""
    program = _read(PROGRAM)
    os.close(LADDER)
    os.close(PROGRAM)
    os.chdir(_PLACE)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children end by themselves, and those that stay are the builder's
    requests = socket.socket(fileno=REQUESTS)
    init.name_process("zygote")
    gc.collect()
    gc.freeze()  # every fork copies what a collection would touch
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 1, DESCRIPTORS)
        if not request:
            os._exit(0)
        if _fork() == 0:
            requests.detach()  # `init` closes it, and gives its number to another
            _become_environment(descriptors, program)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _fork() -> int:
    """As os.fork; where too many are on their way into cgroups of their own, when there is room for one more."""
    while True:
        try:
            return os.fork()
        except BlockingIOError:  # pids.max
            time.sleep(_RETRY_SECONDS)


def _become_environment(descriptors: list[int], program: bytes) -> None:
    channel, common, own = descriptors
    # Into its cgroup it is put from outside, while it waits for its ids.
    init.run_maker(socket.socket(fileno=channel), (common, own), program, lambda: None, init.start_here)
    _renew_random()


def _renew_random() -> None:
    """OpenSSL sees a fork by the pid, the same in every environment; `random` and `os.urandom` need nothing."""
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(32), 32.0)


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
