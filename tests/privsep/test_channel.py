"""The channel: datagrams arrive whole, with their descriptors, or not at all."""

import os
import socket

import pytest

from sandboxd.errors import ProtocolViolation
from sandboxd.privsep import channel as door
from sandboxd.privsep.messages import MAX_DESCRIPTORS, MAX_MESSAGE


@pytest.fixture
def ends():
    pair = door.pair()
    yield pair
    for end in pair:
        end.close()


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_travel_with_their_datagram(ends) -> None:
    reader, writer = os.pipe()
    door.send(ends[0], b"x", [writer])
    os.close(writer)
    datagram, (received,) = door.receive(ends[1])
    os.write(received, b"by another name")
    assert datagram == b"x"
    assert os.read(reader, 100) == b"by another name"
    assert not os.get_inheritable(received)
    os.close(received)
    os.close(reader)


def test_a_datagram_too_long_is_a_violation_and_leaks_nothing(ends) -> None:
    before = _open_descriptors()
    door.send(ends[0], bytes(MAX_MESSAGE + 1), [0, 1])
    with pytest.raises(ProtocolViolation):
        door.receive(ends[1])
    assert _open_descriptors() == before


def test_too_many_descriptors_are_a_violation_and_leak_nothing(ends) -> None:
    before = _open_descriptors()
    door.send(ends[0], b"x", [0] * (MAX_DESCRIPTORS + 20))
    with pytest.raises(ProtocolViolation):
        door.receive(ends[1])
    assert _open_descriptors() == before


def test_a_closed_end_reads_as_an_empty_datagram(ends) -> None:
    ends[0].shutdown(socket.SHUT_RDWR)
    assert door.receive(ends[1]) == (b"", [])
