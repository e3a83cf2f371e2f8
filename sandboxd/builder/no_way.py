"""Networks that an environment is denied with every port: in the router, a table of routes to nowhere for its packets.

Room: root. May: routes and rules of the namespace that the given socket is of. Who may reach a part of the public
addresses at some ports is denied by entries of a set (egress.py).
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Network

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import rt_type

TABLES = 1 << 16  # with an environment's number: its table, which is looked at before the main one


def shut(route: IPRoute, environment_id: int, address: str, networks: list[IPv4Network]) -> None:
    """No way to networks for packets of an address; they are refused as by a rule that rejects."""
    for network in networks:
        route.route("add", dst=str(network), table=TABLES + environment_id, type="prohibit")
    if networks:
        route.rule("add", src=address, src_len=32, table=TABLES + environment_id, priority=1)


def reopen(route: IPRoute, environment_id: int) -> None:
    """Take away what `shut` made, or a part of it."""
    table = TABLES + environment_id
    for rule in route.get_rules(family=socket.AF_INET):
        if rule.get_attr("FRA_TABLE") == table:
            route.rule("del", src=rule.get_attr("FRA_SRC"), src_len=32, table=table, priority=1)
    for network in _networks(route, table):
        route.route("del", dst=network, table=table, type="prohibit")


def shut_ones(route: IPRoute, environment_id: int, address: str) -> list[str]:
    """The networks that packets of an address have no way to."""
    table = TABLES + environment_id
    rules = {(one.get_attr("FRA_SRC"), one.get_attr("FRA_TABLE")) for one in route.get_rules(family=socket.AF_INET)}
    return _networks(route, table) if (address, table) in rules else []


def _networks(route: IPRoute, table: int) -> list[str]:
    found = route.get_routes(family=socket.AF_INET, table=table, type=rt_type["prohibit"])
    return sorted(f"{one.get_attr('RTA_DST') or '0.0.0.0'}/{one['dst_len']}" for one in found)
