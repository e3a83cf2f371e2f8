"""The closed table of messages: what is packed comes back the same, and nothing else gets through."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandboxd.errors import ProtocolViolation
from sandboxd.model.egress import MAX_PORTS, MAX_RULES, EgressRule, is_closed
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.model.layer import MAX_LAYERS
from sandboxd.privsep import messages as m

numbers = st.integers(1, 2**32 - 1)
digests = st.binary(min_size=32, max_size=32)


@st.composite
def rules(draw: st.DrawFn) -> EgressRule:
    prefix = draw(st.integers(0, 32))
    address = draw(st.integers(0, 2**32 - 1)) >> (32 - prefix) << (32 - prefix)
    first = draw(st.integers(1, 65_535))
    return EgressRule(
        IPv4Network((address, prefix)), first, draw(st.integers(first, min(65_535, first + MAX_PORTS // MAX_RULES - 1)))
    )


ports = st.lists(st.integers(1, 65_535), max_size=MAX_RULES // 2, unique=True).map(tuple)
addresses = st.lists(st.ip_addresses(v=4).filter(lambda a: not is_closed(a)), min_size=1, max_size=m.MAX_ADDRESSES)
specs = st.builds(
    EnvironmentSpec,
    numbers,
    digests,
    digests,
    st.integers(16, 1 << 20),
    st.integers(1, 10_240),
    st.integers(16, 32_768),
    st.integers(64, 65_536),
    st.booleans(),
    st.booleans(),
    st.lists(rules(), max_size=MAX_RULES // 2).map(tuple),
    ports,
    st.lists(digests, max_size=MAX_LAYERS, unique=True).map(tuple),
)
requests = st.one_of(
    st.builds(m.Bind, specs),
    st.builds(m.InitEnded, numbers),
    st.builds(m.Destroy, numbers),
    st.builds(m.Unpack, numbers, digests, st.integers(0, 1 << 34), st.integers(0, 1 << 20)),
    st.builds(m.RemoveCode, digests),
    st.builds(m.WarmImage, digests, st.just(0) | st.integers(16, 1 << 20)),
    st.builds(m.OpenAddresses, numbers, numbers, st.integers(1, 3600), addresses.map(tuple), ports.filter(len)),
)
answers = st.one_of(
    st.just(m.Ready()),
    st.builds(m.Bound, numbers),
    st.builds(m.BindFailed, numbers, st.integers(0, 200), st.sampled_from(["cgroup", "last user namespace"])),
    st.builds(m.Exited, numbers, st.integers(-(2**31), 2**31 - 1), st.booleans()),
    st.builds(m.Destroyed, numbers),
    st.builds(m.AddressesOpened, numbers, st.integers(0, 200)),
    st.builds(m.Unpacked, numbers, st.sampled_from(m.UnpackStatus), st.integers(0, 2**40), numbers),
)


@given(requests)
def test_a_request_comes_back_as_it_was_sent(message: m.Request) -> None:
    datagram = m.encode(message)
    assert len(datagram) <= m.MAX_MESSAGE
    assert m.decode(m.REQUESTS, datagram, message.DESCRIPTORS.start) == message


@given(answers)
def test_an_answer_comes_back_as_it_was_sent(message: m.Answer) -> None:
    assert m.decode(m.ANSWERS, m.encode(message), message.DESCRIPTORS.start) == message


@given(st.binary(max_size=m.MAX_MESSAGE), st.integers(0, m.MAX_DESCRIPTORS), st.sampled_from([m.REQUESTS, m.ANSWERS]))
@example(b"", 0, m.REQUESTS)
@example(b"\x01", 1, m.REQUESTS)
@example(bytes([m.Unpacked.KIND]) + bytes(4) + b"\xff" + bytes(8), 0, m.ANSWERS)
def test_garbage_is_a_violation_or_a_message_of_the_table(datagram: bytes, count: int, table: dict) -> None:
    try:
        message = m.decode(table, datagram, count)
    except ProtocolViolation:
        return
    assert table[message.KIND] is type(message)
    assert m.encode(message)[0] == datagram[0]


@given(requests, st.data())
def test_a_request_cut_or_grown_is_a_violation(message: m.Request, data: st.DataObject) -> None:
    datagram = m.encode(message)
    cut = data.draw(st.integers(1, len(datagram) - 1))
    with pytest.raises(ProtocolViolation):
        m.decode(m.REQUESTS, datagram[:cut], message.DESCRIPTORS.start)
    with pytest.raises(ProtocolViolation):
        m.decode(m.REQUESTS, datagram + b"\0", message.DESCRIPTORS.start)


@given(requests, st.integers(0, 8))
def test_a_wrong_number_of_descriptors_is_a_violation(message: m.Request, count: int) -> None:
    if count in message.DESCRIPTORS:
        count = 8
    with pytest.raises(ProtocolViolation):
        m.decode(m.REQUESTS, m.encode(message), count)


def test_the_tables_share_no_kind() -> None:
    assert not m.REQUESTS.keys() & m.ANSWERS.keys()


OPEN = m.OpenAddresses(1, 2, 60, (IPv4Address("8.8.8.8"),), (443,))


@pytest.mark.parametrize(
    "change",
    [
        {"ttl": 0}, {"ttl": 3601}, {"addresses": ()}, {"addresses": (IPv4Address("8.8.8.8"),) * (m.MAX_ADDRESSES + 1)},
        {"addresses": (IPv4Address("8.8.8.8"), IPv4Address("10.0.0.1"))},
        {"addresses": (IPv4Address("169.254.169.254"),)},
        {"ports": ()}, {"ports": (0,)}, {"ports": (443, 443)}, {"ports": tuple(range(1, MAX_RULES + 2))},
    ],
    ids=str,
)  # fmt: skip
def test_addresses_out_of_bounds_are_a_violation(change: dict) -> None:
    with pytest.raises(ProtocolViolation):
        m.decode(m.REQUESTS, m.encode(replace(OPEN, **change)), 0)


@pytest.mark.parametrize("layers", [[bytes(32)] * 2, [bytes([n]) * 32 for n in range(MAX_LAYERS + 1)]])
def test_layers_out_of_bounds_are_a_violation(layers: list[bytes]) -> None:
    spec = EnvironmentSpec(1, bytes(32), bytes(32), 128, 512, 64, 1024, layers=tuple(layers))
    with pytest.raises(ProtocolViolation, match="layers"):
        m.decode(m.REQUESTS, m.encode(m.Bind(spec)), 1)


def test_more_ports_than_a_policy_may_name_are_a_violation() -> None:
    spec = EnvironmentSpec(1, bytes(32), bytes(32), 128, 512, 64, 1024)
    wide = EgressRule(IPv4Network("8.0.0.0/8"), 1, MAX_PORTS)
    everything = EgressRule(IPv4Network("0.0.0.0/0"), 1, 65_535)
    whole = replace(wide, port_last=65_535)
    most = (replace(wide, port_last=1),) * (MAX_RULES - 1)
    for egress, host_ports, denied, fits in (
        ((wide, everything), (), (whole,), True),
        ((wide,), (443,), (), False),
        ((wide, wide), (), (), False),
        ((wide,), (), (wide,), False),
        (most, (443,), (), True),
        (most, (443,), (whole,), False),
    ):
        datagram = m.encode(m.Bind(replace(spec, egress=egress, host_ports=host_ports, denied=denied)))
        if fits:
            found = m.decode(m.REQUESTS, datagram, 1)
            assert isinstance(found, m.Bind) and (found.spec.egress, found.spec.denied) == (egress, denied)
        else:
            with pytest.raises(ProtocolViolation):
                m.decode(m.REQUESTS, datagram, 1)
