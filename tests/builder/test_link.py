"""A link that is said to be there carries: the kernel drops by one that it does not take for up yet."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from sandboxd.builder import link, netlink
from tests.support.network import Namespace
from tests.support.places import TIME_FACTOR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
LINKS = 40  # without the wait, a few of them lose what comes first: nobody can say which


def test_the_first_packet_arrives() -> None:
    router = Namespace()
    with router.entered(), netlink.Socket(netlink.ROUTES) as asking, socket.create_server(("0.0.0.0", 7000)) as server:
        for number in range(LINKS):
            inside, address = Namespace(), IPv4Address(f"10.210.0.{number + 8}")
            asking.ask([netlink.new_pair(f"e{number}", link.LINK, inside.descriptor)])
            index = socket.if_nametoindex(f"e{number}")
            asking.ask([netlink.new_address(index, link.GATEWAY), netlink.new_route(address, index)])
            if Path("/proc/sys/net/ipv6").exists():
                inside.switch(f"ipv6/conf/{link.LINK}/disable_ipv6", "1")  # it has questions of its own
            with inside.entered(), socket.socket() as first:
                link.configure_here(address)
                link.wait_until_it_sends(asking, index)
                first.settimeout(10 * TIME_FACTOR)
                first.connect((str(link.GATEWAY), 7000))
                devices = Path("/proc/thread-self/net/dev").read_text().splitlines()
            (sent,) = (int(line.split()[10]) for line in devices if line.split()[0] == f"{link.LINK}:")
            server.accept()[0].close()
            inside.close()
            assert sent == 3, "a question for the address (ARP), SYN and ACK, none of them twice"
    router.close()
