"""What the router lets pass: its rules, its sets and a permission's entries in them.

Room: root. May: arithmetic only.

A fixed handful of rules decides; facts per environment are set entries.
Match order in the sets is `src,dst,dst`: environment's address, destination's protocol and port, destination network.
*denied* holds what a policy denies, whatever else is in a set, a name's addresses included;
*exact* holds single addresses that a policy names; *named* its networks inside closed ranges, looked at only after
*host*, whatever this host takes for itself; *public* the rest, looked at only after *closed*: private, link-local and
the clouds' metadata addresses. A set holds an entry per port, so whoever may reach every public one is in *anywhere*.

A network that is denied with every port to who may reach every public address has no entry: the kernel's sets that hold
pairs of addresses are missing in many kernels, or take few. The router has no route there for packets of that address
(no_way.py): it answers as a rule that rejects.

*opened* is filled by what permitted names lead to, each address for its answer's time, and is looked at last. A flow
that began in that time may go on after it, and only while its environment lives: *numbers* gives an environment's
address its number, which the flow's first packet leaves in the flow (connmark). No rule can compare two marks, but a
mask of 0 makes CONNMARK combine them by XOR: 0 says that they are the same.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pyroute2.ipset import PortEntry, PortRange

from sandboxd.model.egress import EgressRule, Reach

UPLINK = "uplink"
FLOWS_PER_ENVIRONMENT = 256
# A TCP flow that has ended is remembered for two minutes, here and by the host, and counts as none of those above.
NEW_FLOWS_PER_SECOND = 50
MAX_OPENED = 512  # addresses with a port that names have led one environment to, open at one time
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "denied": ("ip,port,net", {}),
    "exact": ("ip,port,net", {}),
    "host": ("net", {}),
    "named": ("ip,port,net", {}),
    "closed": ("net", {}),
    "public": ("ip,port,net", {}),
    "anywhere": ("ip", {}),
    "opened": ("ip,port,ip", {"timeout": 0}),
    "numbers": ("ip", {"skbinfo": True}),
}

_NEW, _ESTABLISHED = "-m conntrack --ctstate NEW", "-m conntrack --ctstate ESTABLISHED"
_RULES = f"""*mangle
:FORWARD ACCEPT [0:0]
:names - [0:0]
-A FORWARD -m set --match-set numbers src -j names
-A names {_NEW} -m set --match-set opened src,dst,dst -j SET --map-set numbers src --map-mark
-A names {_NEW} -j CONNMARK --save-mark
-A names {_ESTABLISHED} -j SET --map-set numbers src --map-mark
-A names {_ESTABLISHED} -j CONNMARK --restore-mark --nfmask 0 --ctmask 0xffffffff
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:decide - [0:0]
:slowly - [0:0]
-A FORWARD -i {UPLINK} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD ! -o {UPLINK} -j DROP
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD {_NEW} -m connlimit --connlimit-above {FLOWS_PER_ENVIRONMENT} --connlimit-mask 32 -j DROP
-A FORWARD -p tcp -j decide
-A FORWARD -p udp -j decide
-A FORWARD -j REJECT --reject-with icmp-admin-prohibited
-A decide -m set --match-set denied src,dst,dst -j RETURN
-A decide -m set --match-set exact src,dst,dst -g slowly
-A decide -m set --match-set host dst -j RETURN
-A decide -m set --match-set named src,dst,dst -g slowly
-A decide -m set --match-set closed dst -j RETURN
-A decide -m set --match-set public src,dst,dst -g slowly
-A decide -m set --match-set anywhere src -g slowly
-A decide {_NEW} -m set --match-set opened src,dst,dst -g slowly
-A decide {_ESTABLISHED} -m set --match-set numbers src -m mark --mark 0 -j ACCEPT
-A slowly -p tcp {_NEW} -m hashlimit --hashlimit-name flows --hashlimit-mode srcip \
--hashlimit-above {NEW_FLOWS_PER_SECOND}/sec --hashlimit-burst {FLOWS_PER_ENVIRONMENT} -j DROP
-A slowly -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o {UPLINK} -m set --match-set exact src,dst,dst -j SNAT --to-source %(exact)s
-A POSTROUTING -o {UPLINK} -j SNAT --to-source %(router)s
COMMIT
"""
NO_IPV6 = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\nCOMMIT\n"
_PROTOCOLS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
Entry = tuple[str, str | tuple[Any, ...]]  # name of the set, value


def router_rules(router: IPv4Address, exact: IPv4Address) -> str:
    """The router's rules as iptables-restore reads them; the addresses are its own, on the uplink: `exact` is where
    flows to addresses that a policy names exactly come from, by which the host knows them."""
    return _RULES % {"router": router, "exact": exact}


def entries_for(address: str, rules: list[EgressRule]) -> Iterator[Entry]:
    """The set entries that are an environment's permissions."""
    for rule in rules:
        if rule.is_everything:
            yield "anywhere", address
            continue
        for part in halves(rule.network):
            for protocol in _PROTOCOLS:
                ports = PortRange(rule.port_first, rule.port_last, protocol=protocol)
                yield set_for(rule), (address, ports, str(part))


def denied_entries(address: str, rules: list[EgressRule]) -> Iterator[Entry]:
    """The set entries that are what an environment is denied, but for what it is denied with every port."""
    for rule in rules:
        for part in () if rule.has_all_ports else halves(rule.network):
            for protocol in _PROTOCOLS:
                yield "denied", (address, PortRange(rule.port_first, rule.port_last, protocol=protocol), str(part))


def entry_count(entries: Iterable[Entry]) -> int:
    """How many entries a set has of them: one for each port."""
    values = (part for _, value in entries for part in value if isinstance(part, PortRange))
    return sum(ports.end - ports.begin + 1 for ports in values)


def opened_entries(address: str, destination: IPv4Address, port: int) -> Iterator[Entry]:
    """The set entries of an address that a name led to."""
    for protocol in _PROTOCOLS:
        yield "opened", (address, PortEntry(port, protocol=protocol), str(destination))


def set_for(rule: EgressRule) -> str:
    """Which set a permission belongs in: one exact address, a network inside a closed range, or any other."""
    return {Reach.EXACT: "exact", Reach.NAMED: "named", Reach.PUBLIC: "public"}[rule.reach]


def halves(network: IPv4Network) -> list[IPv4Network]:
    """A network as the sets can hold it: they know no /0, so that one is stored as two /1."""
    return list(network.subnets()) if network.prefixlen == 0 else [network]
