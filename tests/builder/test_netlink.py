"""The router's own requests of the kernel: what they make is what pyroute2 would have made."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from pyroute2.ipset import IPSet

from sandboxd.builder import egress, netlink
from sandboxd.model.egress import EgressRule
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support.network import Namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
ADDRESS = "10.210.0.8"
RULES = ("0.0.0.0/0:1-65535", "0.0.0.0/0:80-81", "8.8.8.8/32:443", "10.0.0.0/8:53", "203.0.113.0/31:65535")
KEPT = {**egress.SETS, "opened": ("ip,port,ip", {})}  # without a time, which passes


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def sets(namespace: Namespace) -> Iterator[IPSet]:
    """The library's socket in there, where the router's sets are."""
    with namespace.entered(), IPSet() as made:
        for name, (kind, options) in KEPT.items():
            made.create(name, stype=f"hash:{kind}", maxelem=200, **options)
        yield made


def entries() -> list[tuple[str, Any, dict[str, Any]]]:
    """Name of the set, value, and what else there is to it, by the library's names."""
    rules = [
        EgressRule(IPv4Network(text.split(":")[0]), int(ports[0]), int(ports[-1]))
        for text in RULES
        for ports in [text.split(":")[1].split("-")]
    ]
    found: list[tuple[str, Any, dict[str, Any]]] = [(*one, {}) for one in egress.entries_for(ADDRESS, rules)]
    found += [(*one, {}) for one in egress.denied_entries(ADDRESS, rules)]
    found += [(*one, {}) for one in egress.opened_entries(ADDRESS, IPv4Address("8.8.4.4"), 443)]
    return [*found, ("numbers", ADDRESS, {"skbmark": (7, 0xFFFFFFFF)})]


def saved(namespace: Namespace) -> list[str]:
    return sorted(line for line in namespace.run("ipset", "save").splitlines() if line.startswith("add "))


@pytest.fixture
def asking(sets: IPSet) -> Iterator[netlink.Socket]:
    """Our own socket in there."""
    with netlink.Socket(netlink.FILTERS) as made:
        yield made


def test_entries_are_the_librarys(namespace: Namespace, sets: IPSet, asking: netlink.Socket) -> None:
    marks = [(which, value, options.get("skbmark", (0,))[0]) for which, value, options in entries()]
    asking.ask(netlink.entry(netlink.ADD, which, value, mark=mark) for which, value, mark in marks)
    own = saved(namespace)
    others = ("numbers", "anywhere", "opened by TCP", "opened by UDP")
    assert len(own) == egress.entry_count((which, value) for which, value, _ in marks) + len(others)
    asking.ask(netlink.entry(netlink.ADD, which, value, mark=mark) for which, value, mark in marks)  # it is there
    asking.ask(netlink.entry(netlink.DELETE, which, value) for which, value, _ in marks)
    assert saved(namespace) == []
    asking.ask(netlink.entry(netlink.DELETE, which, value) for which, value, _ in marks)
    for which, value, options in entries():
        sets.add(which, value, etype=KEPT[which][0], **options)
    assert saved(namespace) == own


def test_an_entry_has_its_time(namespace: Namespace, sets: IPSet, asking: netlink.Socket) -> None:
    sets.create("timed", stype="hash:ip,port,ip", timeout=0)
    value = next(iter(egress.opened_entries(ADDRESS, IPv4Address("8.8.4.4"), 443)))[1]
    asking.ask([netlink.entry(netlink.ADD, "timed", value, timeout=1000)])
    (line,) = saved(namespace)
    assert line.startswith(f"add timed {ADDRESS},tcp:443,8.8.4.4 timeout ") and 900 < int(line.split()[-1]) <= 1000


def test_what_failed_is_told_and_what_follows_is_answered(namespace: Namespace, asking: netlink.Socket) -> None:
    many = [netlink.entry(netlink.ADD, "numbers", f"10.0.{n}.1", mark=n + 1) for n in range(150)]
    asking.ask(many)
    assert len(saved(namespace)) == len(many)
    missing = netlink.entry(netlink.ADD, "nowhere", ADDRESS)
    with pytest.raises(OSError) as raised:
        asking.ask([missing, netlink.entry(netlink.ADD, "anywhere", ADDRESS)])
    assert raised.value.errno == errno.ENOENT
    assert f"add anywhere {ADDRESS}" in saved(namespace), "no answer is left over for the next"
    with pytest.raises(OSError) as raised:
        asking.ask(netlink.entry(netlink.ADD, "anywhere", f"10.1.{n}.1") for n in range(250))
    assert raised.value.errno is not None and raised.value.errno >= 4096, "the set is full: ipset's own number"


def test_a_link_and_the_way_to_its_other_end(namespace: Namespace) -> None:
    other = Namespace()
    with namespace.entered(), netlink.Socket(netlink.ROUTES) as asking:
        asking.ask([netlink.new_pair("here", "there", other.descriptor)])
        index = socket.if_nametoindex("here")
        asking.ask([netlink.new_address(index, IPv4Address("169.254.1.1"))])
        asking.ask([netlink.new_route(IPv4Address(ADDRESS), index)])
        with pytest.raises(FileExistsError):
            asking.ask([netlink.new_pair("here", "again", other.descriptor)])
    about = namespace.run("ip", "-o", "addr", "show", "dev", "here")
    assert "inet 169.254.1.1/32 scope global here" in about
    assert ",UP" in namespace.run("ip", "-o", "link", "show", "here")
    assert namespace.run("ip", "route").split() == [ADDRESS, "dev", "here", "proto", "static", "linkdown"]
    with namespace.entered(), netlink.Socket(netlink.ROUTES) as asking:
        assert not asking.sends(index), "its other end is down"
        other.run("ip", "link", "set", "there", "up")
        eventually(lambda: asking.sends(index))
        assert not asking.sends(index + 1000), "there is none"
    assert other.links() == {"lo", "there"} and "state UP" in other.run("ip", "-o", "link", "show", "there")
    other.close()
