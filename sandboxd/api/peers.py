"""Who is at the other end of the unix socket: root, or a member of the daemon's group.

Room: service. May: ask the kernel about a connection.
"""

from __future__ import annotations

import grp
import socket
import struct
import weakref
from typing import Any

_SO_PEERGROUPS = 59  # <asm-generic/socket.h>; the supplementary groups at connect time, since Linux 4.13
_UCRED = struct.Struct("=iII")
_GROUPS_BYTES = 1024  # the most that Python's getsockopt fetches: 256 groups


class Peers:
    """Decides per connection, once: the credentials of a connected socket never change."""

    def __init__(self, group: str) -> None:
        try:
            self._group = grp.getgrnam(group).gr_gid
        except KeyError:
            self._group = -1
        self._decided: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()

    def may_administer(self, transport: Any) -> bool:
        """Whether the connection's peer is root or in the group."""
        decided = self._decided.get(transport)
        if decided is None:
            decided = self._decided[transport] = self._decide(transport.get_extra_info("socket"))
        return decided

    def _decide(self, connection: Any) -> bool:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, gid = _UCRED.unpack(credentials)
        if uid == 0 or gid == self._group:
            return True
        try:
            groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
        except OSError:  # ERANGE: in more groups than can be looked through
            return False
        return self._group in memoryview(groups).cast("I")
