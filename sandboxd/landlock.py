"""Landlock: a process gives up all files but those beneath a few directories.

Room: service, before it meets anybody. May: ctypes for the three calls that Python has no name for.
Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_BIND_TCP, _CONNECT_TCP = 1, 2

WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(1, 6))
MAKE_DIR, MAKE_REG, TRUNCATE = 1 << 7, 1 << 8, 1 << 14
READ = READ_FILE | READ_DIR
CHANGE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE
_OF_FILES = WRITE_FILE | READ_FILE | TRUNCATE
_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # by version of the interface: how many kinds of access there are


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result


def restrict(rules: Mapping[str, int], ports: Iterable[int] = ()) -> bool:
    """Leave this process and what it starts only the access that `rules` name beneath each path, for good.

    False where the kernel has no Landlock. Where it can, TCP (but for connections to `ports`) and other sandboxes'
    sockets and processes go too. Needs no_new_privs, and a process of one thread. Raises OSError.
    """
    try:
        version = _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise
    files = (1 << _KNOWN.get(version, 16)) - 1
    # From version 4 on: TCP; from 6 on: abstract unix sockets and signals.
    tcp = _BIND_TCP | _CONNECT_TCP if version >= 4 else 0
    attributes = struct.pack("=QQQ", files, tcp, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for path, access in rules.items():
            _allow(ruleset, path, access & files)
        for port in ports if tcp else ():
            _add(ruleset, _RULE_NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port))
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: str, access: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            access &= _OF_FILES
        _add(ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", access, place))
    finally:
        os.close(place)


def _add(ruleset: int, kind: int, rule: bytes) -> None:
    _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(kind), ctypes.c_char_p(rule), ctypes.c_uint(0))
