"""Addresses and rules of the router, as far as they are arithmetic; traffic is tested end to end."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sandboxd.builder.egress import denied_entries, entries_for, halves, set_for
from sandboxd.builder.network import Addresses
from sandboxd.errors import StepFailed
from sandboxd.model.egress import EgressRule

POOL = IPv4Network("10.210.0.0/28")
FREE = 16 - 9  # less the uplink's /29 and the pool's broadcast


class AddressMachine(RuleBasedStateMachine):
    """No address in two hands, every free one to be had."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.addresses = Addresses(POOL)
        self.held: list = []

    @rule(target=taken)
    def take(self):
        if len(self.held) == FREE:
            with pytest.raises(StepFailed):
                self.addresses.take()
            return None
        address = self.addresses.take()
        assert address in POOL
        assert int(address) - int(POOL.network_address) >= 8
        assert address != POOL.broadcast_address
        self.held.append(address)
        return address

    @rule(address=consumes(taken))
    def give_back(self, address) -> None:
        if address is not None:
            self.addresses.give_back(address)
            self.held.remove(address)

    @invariant()
    def no_address_twice(self) -> None:
        assert len(set(self.held)) == len(self.held)


TestAddresses = AddressMachine.TestCase


@given(st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_halves_cover_a_network_exactly(prefix: int, address: int) -> None:
    network = IPv4Network((address >> (32 - prefix) << (32 - prefix), prefix))
    parts = halves(network)
    assert all(part.prefixlen >= 1 for part in parts)
    assert sum(part.num_addresses for part in parts) == network.num_addresses
    assert all(part.subnet_of(network) for part in parts)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "8.8.8.0/24", "128.0.0.0/1", "0.0.0.0/1", "8.0.0.0/6"])
def test_what_reaches_beyond_a_closed_range_is_public(text: str) -> None:
    assert set_for(EgressRule(IPv4Network(text), 80, 80)) == "public"


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.1.2.0/31", "192.168.7.0/24", "169.254.169.254/31"])
def test_what_lies_in_a_closed_range_is_named(text: str) -> None:
    assert set_for(EgressRule(IPv4Network(text), 80, 80)) == "named"


@pytest.mark.parametrize("text", ["10.1.2.3/32", "169.254.169.254/32", "8.8.8.8/32"])
def test_one_address_is_exact(text: str) -> None:
    assert set_for(EgressRule(IPv4Network(text), 80, 80)) == "exact"
    part = "public" if text.startswith("8.") else "named"
    assert set_for(EgressRule(IPv4Network(text), 80, 80, partial=True)) == part


def test_everything_is_one_entry_and_no_range() -> None:
    everywhere = IPv4Network("0.0.0.0/0")
    found = list(entries_for("10.210.0.4", [EgressRule(everywhere, 1, 65_535), EgressRule(everywhere, 80, 81)]))
    assert found[0] == ("anywhere", "10.210.0.4")
    assert [which for which, _ in found[1:]] == ["public"] * 4


def test_what_is_denied_whole_takes_no_entry() -> None:
    rules = [EgressRule(IPv4Network("10.0.0.0/8"), 1, 65_535), EgressRule(IPv4Network("8.8.8.8"), 80, 81)]
    assert [which for which, _ in denied_entries("10.210.0.4", rules)] == ["denied"] * 2
