"""Destinations: networks and host names with their ports, what one permission has of another, what no name may lead to.

Room: model. May: arithmetic and text. May not: resolve a name.

IPv6 is closed, whatever a policy says: the router has none of it, so there is no rule that could name it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

MAX_RULES = 64  # of one policy, networks and names together, whether they are permitted or denied
# Of one policy: the router's sets hold an entry per port. "Every port of 0.0.0.0/0" is one for all, as is "every port"
# of a network that is denied.
MAX_PORTS = 1024
ALL_PORTS = (1, 65_535)

# What nobody reaches unless a policy names the network itself: a name that leads here leads nowhere (DNS rebinding).
CLOSED = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # Azure's metadata; AWS's and Alibaba's lie in 169.254/16 and 100.64/10
        ),
    )
)  # fmt: skip

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*(?![0-9]+$){_LABEL}")  # no name ends in a number: that is an address
_MAX_HOST = 253
_EXPECTED = "expected CIDR:PORT, CIDR:FIRST-LAST, HOST:PORT or *.HOST:PORT"


class Reach(IntEnum):
    """How far a permission goes, by how narrowly it names: what a greater one opens, a smaller one leaves closed."""

    PUBLIC = 0  # nothing in closed ranges, nothing that this host takes for itself
    NAMED = 1  # a network inside a closed range, but nothing that this host takes for itself
    EXACT = 2  # one address, whosever it is


@dataclass(frozen=True, slots=True, order=True)
class EgressRule:
    """One network and a TCP/UDP port range (0.0.0.0/0 with 1 to 65535: everything public).

    `partial`: one address, which is not named as such but as a part of a network.
    """

    network: IPv4Network
    port_first: int
    port_last: int
    partial: bool = False

    def __str__(self) -> str:
        ports = f"{self.port_first}" if self.port_first == self.port_last else f"{self.port_first}-{self.port_last}"
        return f"{self.network}:{ports}"

    @property
    def is_everything(self) -> bool:
        """Whether it names every port of every public address."""
        return self == EVERYTHING

    @property
    def has_all_ports(self) -> bool:
        """Whether it names every port."""
        return (self.port_first, self.port_last) == ALL_PORTS

    @property
    def reach(self) -> Reach:
        """How far it goes where it permits."""
        if self.network.prefixlen == 32 and not self.partial:
            return Reach.EXACT
        return Reach.NAMED if _within_closed(self.network) else Reach.PUBLIC

    def contains(self, other: EgressRule) -> bool:
        """Whether every address and port of another is one of its own, whatever either permits of them."""
        return (
            other.network.subnet_of(self.network)
            and self.port_first <= other.port_first
            and other.port_last <= self.port_last
        )

    def overlaps(self, other: EgressRule) -> bool:
        """Whether they have an address with a port in common."""
        return (
            self.network.overlaps(other.network)
            and self.port_first <= other.port_last
            and other.port_first <= self.port_last
        )

    def within(self, other: EgressRule, reach: Reach) -> EgressRule | None:
        """What lies in both and goes as far as `reach`, None where that is nothing."""
        if not self.overlaps(other):
            return None
        network = max(self.network, other.network, key=lambda one: one.prefixlen)
        if reach is Reach.PUBLIC and _within_closed(network):
            return None
        ports = max(self.port_first, other.port_first), min(self.port_last, other.port_last)
        return EgressRule(network, *ports, partial=network.prefixlen == 32 and reach is not Reach.EXACT)


EVERYTHING = EgressRule(IPv4Network("0.0.0.0/0"), *ALL_PORTS)


@dataclass(frozen=True, slots=True, order=True)
class HostRule:
    """One host name in lower case and a TCP/UDP port, 0 for every port; `*.` stands for one or more labels."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}" if self.port else self.name

    def covers(self, name: str) -> bool:
        """Whether it names this host (lower case, no dot at the end), or all that another wildcard does."""
        return name.endswith(self.name[1:]) if self.name.startswith("*") else name == self.name

    def contains(self, other: HostRule) -> bool:
        """Whether every name and port of another is one of its own."""
        return self.port in (0, other.port) and self.covers(other.name)


def parse(text: str) -> EgressRule | HostRule:
    """Read CIDR:PORT, CIDR:FIRST-LAST, ADDRESS:PORT, HOST:PORT or *.HOST:PORT; raises ValueError with the reason."""
    destination, separator, ports = text.rpartition(":")
    if not separator:
        raise ValueError(f"egress {text!r}: {_EXPECTED}")
    first, _, last = ports.partition("-")
    if not (first.isascii() and first.isdigit()) or (last and not (last.isascii() and last.isdigit())):
        raise ValueError(f"egress {text!r}: port {ports!r} is not a number or FIRST-LAST")
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= 65_535:
        raise ValueError(f"egress {text!r}: port {ports!r} is not within 1 to 65535")
    if ":" in destination:
        raise ValueError(f"egress {text!r}: there is no egress by IPv6")
    name = destination.lower().removesuffix(".")
    if _HOST.fullmatch(name) and len(name) <= _MAX_HOST:
        if low != high:
            raise ValueError(f"egress {text!r}: a host has one port; name it once for each")
        return HostRule(name, low)
    if not re.fullmatch(r"[0-9./]+", destination):
        raise ValueError(f"egress {text!r}: {_EXPECTED}")
    try:
        return EgressRule(IPv4Network(destination, strict=True), low, high)
    except ValueError as error:
        raise ValueError(f"egress {text!r}: {error}") from error


def check_bounds(rules: Iterable[EgressRule], host_ports: Iterable[int], denied: Iterable[EgressRule] = ()) -> None:
    """See that one policy costs the router a bounded number of entries; raises ValueError."""
    rules, host_ports, denied = list(rules), list(host_ports), list(denied)
    if len(rules) + len(host_ports) + len(denied) > MAX_RULES:
        raise ValueError(f"more than {MAX_RULES} rules")
    ranges = [rule for rule in rules if not rule.is_everything] + [rule for rule in denied if not rule.has_all_ports]
    ports = len(host_ports) + sum(rule.port_last - rule.port_first + 1 for rule in ranges)
    if ports > MAX_PORTS:
        raise ValueError(f"{ports} ports; {MAX_PORTS} are the most in all, unless it is {EVERYTHING}")


def is_host(name: str) -> bool:
    """Whether a text is one host's name in lower case, of letters, digits, "-" and "_" and not too long."""
    return bool(_HOST.fullmatch(name)) and len(name) <= _MAX_HOST and not name.startswith("*")


def is_closed(address: IPv4Address) -> bool:
    """Whether an address lies where no name may lead."""
    return any(address in network for network in CLOSED)


def _within_closed(network: IPv4Network) -> bool:
    return any(network.subnet_of(closed) for closed in CLOSED)
