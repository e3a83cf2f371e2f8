"""Links of environments that a policy lets out: the builder's side of the router.

Room: root. Environments without a permission have loopback only and never come here.

The router is a process of its own (`router.py`) because netlink and iptables want libraries and programs that no fork
of the builder should copy. Until the first permission is used it is a sleeping fork of a few hundred kilobytes, made
before the builder leaves the host's mount tree; then it becomes the router by exec. It ends with the pid namespace, and
its network namespace with every link in it.
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv4Network

import prctl

from sandboxd.builder import linux
from sandboxd.config import Config
from sandboxd.errors import StepFailed
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.privsep.messages import OpenAddresses

ADMIT, RELEASE, OPEN = 1, 2, 3
REQUEST = struct.Struct("!BI4s?")  # kind, environment, its address, whether hosts are permitted; rules follow
RULE = struct.Struct("!4sBHH??")  # network, ports, whether it is denied, whether it is one address of a network
REPLY = struct.Struct("!BIi32s")

_RESERVED = 8  # the uplink's /29


class Addresses:
    """The pool's addresses, each in one hand at a time and reused as late as possible."""

    def __init__(self, pool: IPv4Network) -> None:
        self._pool = pool
        self._next = _RESERVED
        self._taken: set[int] = set()

    def take(self) -> IPv4Address:
        """An address that no environment has; StepFailed where all are taken."""
        size = self._pool.num_addresses - 1
        if len(self._taken) >= size - _RESERVED:
            raise StepFailed("network", errno.EADDRNOTAVAIL, f"every address of {self._pool} is taken")
        while self._next in self._taken or self._next >= size:
            self._next = self._next + 1 if self._next < size else _RESERVED
        self._taken.add(self._next)
        address = self._pool[self._next]
        self._next += 1
        return address

    def give_back(self, address: IPv4Address) -> None:
        """The environment of this address is gone."""
        self._taken.discard(int(address) - int(self._pool.network_address))


class Router:
    """The builder's end of the router's socket."""

    def __init__(self, config: Config) -> None:
        self.addresses = Addresses(config.network_pool)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _sleep_until_needed(config, theirs)
            finally:
                os._exit(1)
        theirs.close()

    def admit(self, spec: EnvironmentSpec, namespace: int, address: IPv4Address) -> None:
        """Ask for a link into an environment's network namespace; a REPLY follows on the channel."""
        request = REQUEST.pack(ADMIT, spec.environment_id, address.packed, bool(spec.host_ports)) + b"".join(
            RULE.pack(r.network.network_address.packed, r.network.prefixlen, r.port_first, r.port_last, d, r.partial)
            for d, r in (*((False, rule) for rule in spec.egress), *((True, rule) for rule in spec.denied))
        )
        socket.send_fds(self.channel, [request], [namespace])

    def open(self, message: OpenAddresses) -> None:
        """Ask for addresses to be opened to an environment that was admitted with hosts; a REPLY follows."""
        self.channel.send(REQUEST.pack(OPEN, message.environment_id, bytes(4), True) + message.pack())

    def release(self, environment_id: int, address: IPv4Address) -> None:
        """The environment is gone: its permissions too; a REPLY follows, and then the address is free."""
        self.channel.send(REQUEST.pack(RELEASE, environment_id, address.packed, False))

    def close(self) -> None:
        """Have the router give the host its rules back and end; waits until it has."""
        self.channel.close()
        os.waitpid(self.pid, 0)

    def reply(self) -> tuple[int, int, int, str]:
        """One reply: request, environment, errno, step; raises OSError where the router is gone."""
        try:
            record = self.channel.recv(REPLY.size)
        except ConnectionResetError:  # with a request unread
            record = b""
        if len(record) != REPLY.size:
            raise OSError(errno.EPIPE, "the router ended")
        request, environment_id, reason, step = REPLY.unpack(record)
        return request, environment_id, reason, step.rstrip(b"\0").decode("ascii", "replace")


def _sleep_until_needed(config: Config, channel: socket.socket) -> None:
    prctl.set_proctitle("sandboxd: router (asleep)")
    settings = os.memfd_create("sandboxd-config", 0)
    os.write(settings, pickle.dumps(config))
    os.lseek(settings, 0, os.SEEK_SET)
    linux.keep_only((0, 1, 2, channel.fileno(), settings), inheritable=5)
    if socket.socket(fileno=os.dup(3)).recv(1, socket.MSG_PEEK):
        os.execv(sys.executable, [sys.executable, "-I", "-m", "sandboxd.builder.router", "4", "3"])
