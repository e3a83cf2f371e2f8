"""The closed table of messages: what is packed comes back the same, and nothing else gets through."""

from ipaddress import IPv4Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandboxd.errors import ProtocolViolation
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.model.function import EgressRule
from sandboxd.privsep import messages as m

numbers = st.integers(1, 2**32 - 1)
digests = st.binary(min_size=32, max_size=32)


@st.composite
def rules(draw: st.DrawFn) -> EgressRule:
    prefix = draw(st.integers(0, 32))
    address = draw(st.integers(0, 2**32 - 1)) >> (32 - prefix) << (32 - prefix)
    first = draw(st.integers(1, 65_535))
    return EgressRule(IPv4Network((address, prefix)), first, draw(st.integers(first, min(65_535, first + 255))))


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
    st.lists(rules(), max_size=m.MAX_EGRESS).map(tuple),
)
requests = st.one_of(
    st.builds(m.Bind, specs),
    st.builds(m.InitEnded, numbers),
    st.builds(m.Destroy, numbers),
    st.builds(m.Unpack, numbers, digests, st.integers(0, 1 << 34), st.integers(0, 1 << 20)),
    st.builds(m.RemoveCode, digests),
    st.builds(m.WarmImage, digests),
)
answers = st.one_of(
    st.just(m.Ready()),
    st.builds(m.Bound, numbers),
    st.builds(m.BindFailed, numbers, st.integers(0, 200), st.sampled_from(["cgroup", "last user namespace"])),
    st.builds(m.Exited, numbers, st.integers(-(2**31), 2**31 - 1), st.booleans()),
    st.builds(m.Destroyed, numbers),
    st.builds(m.Unpacked, numbers, st.sampled_from(m.UnpackStatus), st.integers(0, 2**40)),
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
