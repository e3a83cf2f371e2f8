"""What a policy's entries mean, and what none of them can say."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from sandboxd.model.egress import MAX_PORTS, MAX_RULES, EgressRule, HostRule, check_bounds, is_closed, is_host, parse


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10.0.0.0/8:443", EgressRule(IPv4Network("10.0.0.0/8"), 443, 443)),
        ("10.0.0.0/8:80-90", EgressRule(IPv4Network("10.0.0.0/8"), 80, 90)),
        ("8.8.8.8:53", EgressRule(IPv4Network("8.8.8.8/32"), 53, 53)),
        ("api.example.org:443", HostRule("api.example.org", 443)),
        ("API.Example.ORG.:443", HostRule("api.example.org", 443)),
        ("*.example.org:443", HostRule("*.example.org", 443)),
        ("_sip.example.org:5061", HostRule("_sip.example.org", 5061)),
        ("xn--bcher-kva.example:80", HostRule("xn--bcher-kva.example", 80)),
        ("database:5432", HostRule("database", 5432)),
    ],
)
def test_an_entry_is_a_network_or_a_host(text: str, rule: EgressRule | HostRule) -> None:
    assert parse(text) == rule
    assert parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "example.org", "example.org:", "example.org:0", "example.org:65536", "example.org:80-90", "*:80", "*.*.org:80",
        "a.*.org:80", "*example.org:80", "-a.org:80", "a-.org:80", "a..org:80", ".org:80", "bücher.example:80",
        "a b.org:80", "a/b.org:80", "256.1.1.1:80", "1.2.3:80", "0x7f.1:80", "8.8.8.8/33:80", "10.0.0.1/8:80",
        "2001:db8::/32:80", "[::1]:80", f"{'a' * 64}.org:80", f"{'abc.' * 64}org:80", ":80", "", "a.org:٣",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize(
    ("rule", "name", "covered"),
    [
        ("a.org:1", "a.org", True), ("a.org:1", "b.a.org", False), ("a.org:1", "ba.org", False),
        ("*.a.org:1", "b.a.org", True), ("*.a.org:1", "c.b.a.org", True), ("*.a.org:1", "a.org", False),
        ("*.a.org:1", "ba.org", False),
    ],
)  # fmt: skip
def test_a_name_is_covered_exactly_or_by_the_wildcard_above_it(rule: str, name: str, covered: bool) -> None:
    host = parse(rule)
    assert isinstance(host, HostRule) and host.covers(name) is covered


@pytest.mark.parametrize("name", [r"evil\.a.org", "a.org.", "*.a.org", "A.org", "a\\000.org", "127.0.0.1", ""])
def test_names_that_are_no_hosts(name: str) -> None:
    assert not is_host(name)


def test_a_policy_costs_a_bounded_number_of_entries() -> None:
    everything = EgressRule(IPv4Network("0.0.0.0/0"), 1, 65_535)
    wide = EgressRule(IPv4Network("10.0.0.0/8"), 1, MAX_PORTS)
    check_bounds([everything, wide], [])
    check_bounds([], range(MAX_RULES))
    for rules, ports in (([wide], [1]), ([wide, wide], []), ([everything], range(MAX_RULES))):
        with pytest.raises(ValueError):
            check_bounds(rules, ports)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "127.0.0.1", "172.17.0.1", "10.0.0.1", "192.168.0.1",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1",
    ],
)  # fmt: skip
def test_metadata_and_private_addresses_are_closed(address: str) -> None:
    assert is_closed(IPv4Address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "168.63.129.15", "100.128.0.1", "172.32.0.1", "203.0.113.5"])
def test_public_addresses_are_not(address: str) -> None:
    assert not is_closed(IPv4Address(address))
