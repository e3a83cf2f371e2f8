"""Permitted destinations: networks and host names with their ports, and what no name may lead to.

Room: model. May: arithmetic and text. May not: resolve a name.

IPv6 is closed, whatever a policy says: the router has none of it, so there is no rule that could name it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

MAX_RULES = 64  # of one policy, networks and names together
MAX_PORTS = 1024  # of one policy: the router's sets hold an entry per port; "every port of 0.0.0.0/0" is one for all

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


@dataclass(frozen=True, slots=True, order=True)
class EgressRule:
    """One permitted network and a TCP/UDP port range (0.0.0.0/0 with 1 to 65535: everything public)."""

    network: IPv4Network
    port_first: int
    port_last: int

    def __str__(self) -> str:
        ports = f"{self.port_first}" if self.port_first == self.port_last else f"{self.port_first}-{self.port_last}"
        return f"{self.network}:{ports}"

    @property
    def is_everything(self) -> bool:
        """Whether it names every port of every public address."""
        return self == _EVERYTHING


_EVERYTHING = EgressRule(IPv4Network("0.0.0.0/0"), 1, 65_535)


@dataclass(frozen=True, slots=True, order=True)
class HostRule:
    """One permitted host name in lower case and a TCP/UDP port; `*.` stands for one or more labels."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"

    def covers(self, name: str) -> bool:
        """Whether it names this host (lower case, no dot at the end)."""
        return name.endswith(self.name[1:]) if self.name.startswith("*") else name == self.name


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


def check_bounds(rules: Iterable[EgressRule], host_ports: Iterable[int]) -> None:
    """See that one policy costs the router a bounded number of entries; raises ValueError."""
    rules, host_ports = list(rules), list(host_ports)
    if len(rules) + len(host_ports) > MAX_RULES:
        raise ValueError(f"more than {MAX_RULES} rules")
    ports = len(host_ports) + sum(r.port_last - r.port_first + 1 for r in rules if not r.is_everything)
    if ports > MAX_PORTS:
        raise ValueError(f"{ports} ports; {MAX_PORTS} are the most in all, unless it is {_EVERYTHING}")


def is_host(name: str) -> bool:
    """Whether a text is one host's name in lower case, of letters, digits, "-" and "_" and not too long."""
    return bool(_HOST.fullmatch(name)) and len(name) <= _MAX_HOST and not name.startswith("*")


def is_closed(address: IPv4Address) -> bool:
    """Whether an address lies where no name may lead."""
    return any(address in network for network in CLOSED)
