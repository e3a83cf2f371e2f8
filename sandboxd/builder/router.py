"""The router: one network namespace of ours in which every link ends, with its chains, sets and forwarding.

Room: root, a process of its own below the builder. May: netlink, iptables, the forwarding switch while a permission
needs it. May not: touch a chain, set, link or address that is not ours.

Inside the router a fixed handful of rules decides; facts per environment are set entries. The host gets one link and
two rules (forward, NAT) while an environment with a permission lives; a foreign flush of them breaks egress for at
most `_WATCH_SECONDS` and opens nothing, because what is closed is closed in here: `egress.py`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import prctl
from pyroute2 import IPRoute
from pyroute2.ipset import IPSet
from pyroute2.netlink.exceptions import NetlinkError

from sandboxd.builder import egress, host, link, linux, netlink, no_way
from sandboxd.builder.link import GATEWAY, LINK
from sandboxd.builder.network import ADMIT, OPEN, REPLY, REQUEST, RULE
from sandboxd.config import Config
from sandboxd.errors import SandboxdError, StepFailed
from sandboxd.model.egress import CLOSED, EgressRule
from sandboxd.privsep.messages import OpenAddresses

log = logging.getLogger("sandboxd.router")

_WATCH_SECONDS = 2.0
_LINGER_SECONDS = 10.0  # a host's rules do not come and go with every invocation
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x10, 0x40
_RTM_NEWROUTE = 24
_RT_TABLE_LOCAL = 255  # what the kernel takes for itself: addresses, their broadcasts, whole networks by "ip route"
_IPSET_ERRORS = 4096  # its own numbers begin here: a set is full
_MAX_MESSAGE = 1024
_IPV6 = Path("/proc/sys/net/ipv6")
_Rules = tuple[list[EgressRule], list[EgressRule]]  # what is permitted, and what is denied


@dataclass(slots=True)
class _Admitted:
    """What the router holds for one environment."""

    address: str
    entries: list[egress.Entry] = field(default_factory=list)
    shut: list[IPv4Network] = field(default_factory=list)
    opened: dict[tuple[IPv4Address, int], float] | None = None  # until when; None: no host is permitted


class Router:
    """Holds the namespace and answers the builder."""

    def __init__(self, config: Config, channel: socket.socket, host_namespace: int) -> None:
        self._config, self._channel, self._host_namespace = config, channel, host_namespace
        self._host = IPRoute(strict_check=True)
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._changes.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE))
        linux.unshare(linux.CLONE_NEWNET)
        self._namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._route, self._sets = IPRoute(), IPSet()
        self._links = netlink.Socket(netlink.ROUTES)
        self._entries = netlink.Socket(netlink.FILTERS)
        self._admitted: dict[int, _Admitted] = {}
        self._of_host: set[IPv4Network] = set()
        self._up = False
        self._used = self._looked = 0.0  # when an environment last had a permission; when the host was last looked at
        self._complaint = ""
        self._make_namespace()

    # the namespace

    def _make_namespace(self) -> None:
        for name, value in (
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/icmp_ratemask", "0"),  # every refusal is told, so that no function waits for a timeout
            # Here are the host's values, and the larger of a link's own and of the one for all counts: systemd's is 2,
            # which takes a packet from any address that there is a route to.
            ("net/ipv4/conf/all/rp_filter", "1"), ("net/ipv4/conf/default/rp_filter", "1"),
        ):  # fmt: skip
            _set_switch(name, value)
        _disable_ipv6("all")  # and of links to come
        for name, (kind, options) in egress.SETS.items():
            self._sets.create(name, stype=f"hash:{kind}", maxelem=1 << 20, **options)
        for network in CLOSED:
            self._sets.add("closed", str(network), etype="net")
        router, exact = host.router_addresses(self._config)
        _run("iptables-restore", given=egress.router_rules(router, exact))
        if _IPV6.exists():
            _run("ip6tables-restore", given=egress.NO_IPV6)
        self._refresh_host()

    def _refresh_host(self) -> None:
        """Know what the host takes for itself now: nothing that a function may call public is any of it."""
        addresses = (message.get_attr("IFA_LOCAL") for message in self._host.get_addr(family=socket.AF_INET))
        routes = self._host.get_routes(family=socket.AF_INET, table=_RT_TABLE_LOCAL)
        now = {IPv4Network(address) for address in addresses if address} | {
            part
            for route in routes
            for part in egress.halves(IPv4Network((route.get_attr("RTA_DST") or "0.0.0.0", route["dst_len"])))
        }
        for network in now - self._of_host:
            self._sets.add("host", str(network), etype="net")
        for network in self._of_host - now:
            self._sets.delete("host", str(network), etype="net")
        self._of_host = now

    def _host_changed(self) -> bool:
        """Take every waiting message about the host; whether one may be of an address."""
        changed = False
        while True:
            try:
                message = self._changes.recv(65_536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changed = True  # more has happened than the socket holds
                continue
            kind, table = struct.unpack_from("=4xH14xB", message)
            changed = changed or kind < _RTM_NEWROUTE or table == _RT_TABLE_LOCAL

    # environments

    def admit(self, environment_id: int, namespace: int, address: str, rules: _Rules, *, hosts: bool) -> None:
        """Its route, its set entries, and a link that leads there; raises with nothing half-made left."""
        self._raise_uplink()
        name, (permitted, denied) = f"e{environment_id}", rules
        admitted = self._admitted[environment_id] = _Admitted(address, opened={} if hosts else None)
        try:
            self._links.ask([netlink.new_pair(name, LINK, namespace)])
            index, inside = socket.if_nametoindex(name), IPv4Address(address)
            self._links.ask([netlink.new_address(index, GATEWAY), netlink.new_route(inside, index)])
            admitted.shut = [rule.network for rule in denied if rule.has_all_ports]
            no_way.shut(self._route, environment_id, address, admitted.shut)
            # Known before they are there: of a range, a full set takes a part.
            admitted.entries += egress.denied_entries(address, denied)
            admitted.entries += egress.entries_for(address, permitted)
            self._entries.ask(netlink.entry(netlink.ADD, *one) for one in admitted.entries)
            if hosts:
                admitted.entries.append(("numbers", address))
                self._entries.ask([netlink.entry(netlink.ADD, "numbers", address, mark=environment_id)])
            with self._inside(namespace):  # last: there may be a process in there, and now there is a way
                _disable_ipv6(LINK)  # before it is up: a link-local address comes with that
                link.configure_here(inside)
            link.wait_until_it_sends(self._links, index)
        except BaseException:
            self.release(environment_id)
            raise

    def release(self, environment_id: int) -> None:
        """Take the entries away; the link went with the environment's namespace, or goes now."""
        self._used = time.monotonic()
        admitted = self._admitted.pop(environment_id, None)
        if admitted is not None:
            self._forget(admitted, list(admitted.opened or ()))
            self._entries.ask(netlink.entry(netlink.DELETE, *one) for one in admitted.entries)
            if admitted.shut:
                no_way.reopen(self._route, environment_id)
        for index in self._route.link_lookup(ifname=f"e{environment_id}"):
            try:
                self._route.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:  # the kernel has just taken it away with the namespace
                    raise

    def open(self, request: OpenAddresses) -> None:
        """Let an environment reach what a permitted name led to, for its time; raises OSError where it may not."""
        admitted = self._admitted.get(request.environment_id)
        if admitted is None or admitted.opened is None:
            raise OSError(errno.ENOENT, "no host is permitted")
        now = time.monotonic()
        self._forget(admitted, [key for key, until in admitted.opened.items() if until <= now])
        until = now + request.ttl
        wanted = {(address, port) for address in request.addresses for port in request.ports}
        if len(wanted | admitted.opened.keys()) > egress.MAX_OPENED:
            raise OSError(errno.ENOSPC, f"{egress.MAX_OPENED} addresses are open")
        for key in wanted:
            if until - admitted.opened.get(key, 0.0) >= 1:  # the sets count whole seconds
                admitted.opened[key] = until
                entries = egress.opened_entries(admitted.address, *key)
                self._entries.ask(netlink.entry(netlink.ADD, *one, timeout=request.ttl) for one in entries)

    def _forget(self, admitted: _Admitted, keys: list[tuple[IPv4Address, int]]) -> None:
        """Take what was opened away; the kernel may have done so already."""
        for key in keys:
            assert admitted.opened is not None
            del admitted.opened[key]
            entries = egress.opened_entries(admitted.address, *key)
            self._entries.ask(netlink.entry(netlink.DELETE, *one) for one in entries)

    # the host's side

    @contextlib.contextmanager
    def _inside(self, namespace: int) -> Iterator[None]:
        linux.setns(namespace, linux.CLONE_NEWNET)
        try:
            yield
        finally:
            linux.setns(self._namespace, linux.CLONE_NEWNET)

    def _raise_uplink(self) -> None:
        if self._up:
            return
        self._up = True
        try:
            self._link_to_host()
            self._refresh_host()
            self._ensure_host()
        except BaseException:
            self.lower_uplink()
            raise

    def _link_to_host(self) -> None:
        pool, uplink = self._config.network_pool, host.link_name(self._config.instance)
        self._route.link(
            "add", ifname=egress.UPLINK, kind="veth", peer={"ifname": uplink, "net_ns_fd": self._host_namespace}
        )
        host_index = self._host.link_lookup(ifname=uplink)[0]
        with self._inside(self._host_namespace):
            _disable_ipv6(uplink)
            _set_switch(f"net/ipv4/conf/{uplink}/rp_filter", "1")
        self._host.addr("add", index=host_index, address=str(pool[1]), prefixlen=host.UPLINK_PREFIX)
        self._host.link("set", index=host_index, state="up")
        index = self._route.link_lookup(ifname=egress.UPLINK)[0]
        for address in host.router_addresses(self._config):
            self._route.addr("add", index=index, address=str(address), prefixlen=host.UPLINK_PREFIX)
        self._route.link("set", index=index, state="up")
        self._route.route("add", dst="default", gateway=str(pool[1]))

    def _ensure_host(self) -> None:
        self._looked = time.monotonic()
        with self._inside(self._host_namespace):
            host.ensure(self._config)

    def _look_after_host(self) -> None:
        """Put back what of ours somebody flushed; give it all back when no permission was in use for a while."""
        now = time.monotonic()
        if self._admitted:
            self._used = now
        elif now - self._used >= _LINGER_SECONDS:
            self.lower_uplink()
            return
        complaint = ""
        try:
            self._ensure_host()
        except (OSError, SandboxdError) as error:  # somebody holds the tables' lock: the next look may find them free
            complaint = str(error)
            if complaint != self._complaint:
                log.warning("the host's rules: %s", error)
        self._complaint = complaint

    def lower_uplink(self) -> None:
        """No environment has a permission: the host gets everything back as it was."""
        if not self._up:
            return
        with self._inside(self._host_namespace):
            host.clear(self._config)
        for index in self._route.link_lookup(ifname=egress.UPLINK):
            self._route.link("del", index=index)
        self._up = False

    # serving

    def run(self) -> None:
        """Answer the builder until it is gone."""
        poll = select.poll()
        for readable in (self._channel, self._changes):
            poll.register(readable, select.POLLIN)
        while True:
            if self._up and time.monotonic() - self._looked >= _WATCH_SECONDS:
                self._look_after_host()
            wait = max(0.0, self._looked + _WATCH_SECONDS - time.monotonic()) if self._up else None
            ready = dict(poll.poll(None if wait is None else wait * 1000))
            if self._host_changed():
                self._refresh_host()
            if self._channel.fileno() in ready and not self._answer():
                self.lower_uplink()
                return

    def _answer(self) -> bool:
        request, descriptors = _receive(self._channel)
        if not request:
            return False
        kind, environment_id, packed, hosts = REQUEST.unpack_from(request)
        tail, reason = request[REQUEST.size :], 0
        try:
            if kind == ADMIT:
                rules: _Rules = [], []
                for net, size, first, last, denied, partial in RULE.iter_unpack(tail):
                    rules[denied].append(EgressRule(IPv4Network((net, size)), first, last, partial))
                self.admit(environment_id, descriptors[0], str(IPv4Address(packed)), rules, hosts=hosts)
            elif kind == OPEN:
                self.open(OpenAddresses.unpack(tail))
            else:
                self.release(environment_id)
        except Exception as error:
            log.warning("environment %d: %s", environment_id, error)
            reason = _reason(error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        _reply(self._channel, kind, environment_id, reason)
        return True


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One request; an empty one when the builder is gone."""
    try:
        return socket.recv_fds(channel, _MAX_MESSAGE, 1)[:2]
    except ConnectionResetError:  # it went without reading its last reply
        return b"", []


def _reply(channel: socket.socket, kind: int, environment_id: int, reason: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the builder is leaving: the next read says so
        channel.send(REPLY.pack(kind, environment_id, reason, b"network"))


def _reason(error: Exception) -> int:
    """An error's errno; pyroute2's errors share no base with OSError, and ipset has numbers of its own."""
    code = getattr(error, "code", 0) or getattr(error, "errno", 0) or errno.EIO
    return errno.ENOSPC if code >= _IPSET_ERRORS else int(code)


def _set_switch(name: str, value: str) -> None:
    Path("/proc/sys", name).write_text(value)


def _disable_ipv6(link: str) -> None:
    if _IPV6.exists():
        _set_switch(f"net/ipv6/conf/{link}/disable_ipv6", "1")


def _run(*command: str, given: str) -> None:
    try:
        subprocess.run(command, input=given, text=True, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise StepFailed("network", errno.ENOENT, f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise StepFailed("network", 0, f"{command[0]}: {error.stderr.strip()}") from error


def _refuse(channel: socket.socket, error: Exception) -> None:
    """Answer one request for a router that could not be made, then become a new one when the next arrives."""
    request, descriptors = _receive(channel)
    for descriptor in descriptors:
        os.close(descriptor)
    if request:
        kind, environment_id, _, _ = REQUEST.unpack_from(request)
        _reply(channel, kind, environment_id, _reason(error))
        with contextlib.suppress(ConnectionResetError):
            if channel.recv(1, socket.MSG_PEEK):
                os.execv(sys.executable, [sys.executable, "-I", "-m", "sandboxd.builder.router", *sys.argv[1:]])


def main() -> None:
    """Become the router: `python -m sandboxd.builder.router CONFIG_FD CHANNEL_FD`."""
    prctl.set_pdeathsig(signal.SIGKILL)
    prctl.set_name("sandboxd-route")
    prctl.set_proctitle("sandboxd: router")
    logging.basicConfig(level=logging.INFO, format="router: %(message)s")
    config: Config = pickle.loads(os.pread(int(sys.argv[1]), 1 << 20, 0))  # noqa: S301  # from the builder, root
    channel = socket.socket(fileno=int(sys.argv[2]))
    host_namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        router = Router(config, channel, host_namespace)
    except Exception as error:  # iptables or a module of the kernel is missing: functions without a link do without
        log.error("no network: %s", error)
        linux.setns(host_namespace, linux.CLONE_NEWNET)
        _refuse(channel, error)
        return
    router.run()


if __name__ == "__main__":
    main()
