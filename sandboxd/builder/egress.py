"""What the router lets pass: its rules, its sets and a permission's entries in them.

Room: root. May: arithmetic only.

A fixed handful of rules decides; facts per environment are set entries.
Match order in the sets is `src,dst,dst`: environment's address, destination's protocol and port, destination network.
*exact* holds single addresses that a policy names; *named* its networks inside closed ranges, looked at only after
*host*, whatever this host takes for itself; *public* the rest, looked at only after *closed*: private, link-local and
the clouds' metadata addresses. A set holds an entry per port, so whoever may reach every public one is in *anywhere*.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pyroute2.ipset import PortRange

UPLINK = "uplink"
FLOWS_PER_ENVIRONMENT = 256
SETS = {
    "exact": "ip,port,net",
    "host": "net",
    "named": "ip,port,net",
    "closed": "net",
    "public": "ip,port,net",
    "anywhere": "ip",
}
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

_RULES = f"""*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:decide - [0:0]
-A FORWARD -i {UPLINK} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD ! -o {UPLINK} -j DROP
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate NEW -m connlimit --connlimit-above {FLOWS_PER_ENVIRONMENT} --connlimit-mask 32 -j DROP
-A FORWARD -p tcp -j decide
-A FORWARD -p udp -j decide
-A FORWARD -j REJECT --reject-with icmp-admin-prohibited
-A decide -m set --match-set exact src,dst,dst -j ACCEPT
-A decide -m set --match-set host dst -j RETURN
-A decide -m set --match-set named src,dst,dst -j ACCEPT
-A decide -m set --match-set closed dst -j RETURN
-A decide -m set --match-set public src,dst,dst -j ACCEPT
-A decide -m set --match-set anywhere src -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o {UPLINK} -j SNAT --to-source %(router)s
COMMIT
"""
NO_IPV6 = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\nCOMMIT\n"
_ANYWHERE = (IPv4Network("0.0.0.0/0"), 1, 65_535)
Entry = tuple[str, str | tuple[Any, ...]]  # name of the set, value


def router_rules(router: IPv4Address) -> str:
    """The router's rules as iptables-restore reads them; `router` is its end of the uplink."""
    return _RULES % {"router": router}


def entries_for(address: str, rules: list[tuple[IPv4Network, int, int]]) -> Iterator[Entry]:
    """The set entries that are an environment's permissions: networks, first and last port."""
    for rule in rules:
        if rule == _ANYWHERE:
            yield "anywhere", address
            continue
        network, first, last = rule
        for part in halves(network):
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                yield set_for(network), (address, PortRange(first, last, protocol=protocol), str(part))


def set_for(network: IPv4Network) -> str:
    """Which set a destination belongs in: one exact address, a network inside a closed range, or any other."""
    if network.prefixlen == 32:
        return "exact"
    return "named" if any(network.subnet_of(closed) for closed in CLOSED) else "public"


def halves(network: IPv4Network) -> list[IPv4Network]:
    """A network as the sets can hold it: they know no /0, so that one is stored as two /1."""
    return list(network.subnets()) if network.prefixlen == 0 else [network]
