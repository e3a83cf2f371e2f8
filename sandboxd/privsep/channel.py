"""One end of the door: datagrams with descriptors over a SOCK_SEQPACKET pair.

Room: both sides of the door. May: send and receive. May not: look into a message.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import stat
from collections.abc import Sequence

from sandboxd.errors import ProtocolViolation
from sandboxd.privsep.messages import MAX_DESCRIPTORS, MAX_MESSAGE

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new channel, close-on-exec, non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    return ends[0], ends[1]


def send(channel: socket.socket, datagram: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one datagram whole; raises BlockingIOError where the peer's queue is full, OSError where it is gone."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([datagram], ancillary, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One datagram and its descriptors (now ours, close-on-exec); an empty datagram means that the peer is gone.

    A truncated datagram or descriptor list is a ProtocolViolation, with every descriptor closed.
    """
    datagram, ancillary, flags, _ = channel.recvmsg(MAX_MESSAGE, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            descriptors.extend(numbers)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        raise ProtocolViolation("datagram or descriptors cut short")
    return datagram, descriptors


def close_all(descriptors: Sequence[int]) -> None:
    """Close every descriptor of a list that was received."""
    for descriptor in descriptors:
        os.close(descriptor)


def check_file(descriptor: int) -> None:
    """Raise ProtocolViolation where a descriptor is no regular file's: whoever reads another may be kept waiting."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ProtocolViolation("a descriptor that is no file's")


def seal(descriptor: int) -> None:
    """Let nobody change a memfd any more."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def check_sealed(descriptor: int) -> None:
    """Raise ProtocolViolation where a descriptor is not a memfd's that nobody can change any more."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:  # EINVAL: of a kind that cannot be sealed
        seals = 0
    if seals & _SEALS != _SEALS:
        raise ProtocolViolation("a descriptor that is no sealed memfd's")
