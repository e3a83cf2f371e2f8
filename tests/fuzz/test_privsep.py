"""The door between the rooms: no bytes raise anything but ProtocolViolation, and no service harms the builder."""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import psutil
import pytest
from hypothesis import strategies as st

from sandboxd.errors import ProtocolViolation
from sandboxd.model.egress import EgressRule
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.privsep import messages as m
from tests.fuzz.conftest import Fuzz
from tests.fuzz.hostile_service import Desk
from tests.support.daemon import Daemon
from tests.support.packages import zip_of
from tests.support.patched import launcher

SPEC = EnvironmentSpec(7, bytes(32), bytes(32), 128, 512, 64, 1024)
EXAMPLES: dict[int, m.Message] = {
    message.KIND: message
    for message in (
        m.Bind(
            replace(
                SPEC, egress=(EgressRule(IPv4Network("8.0.0.0/8"), 1, 9),), host_ports=(443, 80), layers=(bytes(32),),
                denied=(EgressRule(IPv4Network("8.8.0.0/16"), 1, 65_535),),
            )
        ),
        m.InitEnded(7), m.Destroy(7), m.Unpack(1, bytes(32), 1 << 20, 100), m.RemoveCode(bytes(32)),
        m.WarmImage(bytes(32), 128), m.OpenAddresses(1, 7, 60, (IPv4Address("8.8.8.8"),), (443,)), m.Ready(),
        m.Bound(7),
        m.BindFailed(7, 1, "cgroup"), m.Exited(7, 9, True), m.Destroyed(7), m.Unpacked(1, m.UnpackStatus.OK, 5),
        m.AddressesOpened(1, 0),
    )
}  # fmt: skip
NUMBERS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def example(table: dict[int, type[m.Message]], kind: int) -> bytes:
    """A message of a kind, valid where one is known here."""
    return m.encode(EXAMPLES[kind]) if kind in EXAMPLES else bytes((kind,)) + bytes(table[kind].FIXED.size)


@st.composite
def mutated(draw: st.DrawFn, table: dict[int, type[m.Message]]) -> bytes:
    """A valid message with some of its bytes, numbers or its length changed."""
    datagram = bytearray(example(table, draw(st.sampled_from(sorted(table)))))
    for at, change in draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 511)), min_size=1, max_size=4)):
        place = at % (len(datagram) + 1)
        if change < 256:
            datagram[place : place + 1] = bytes((change,))
        elif change < 400:
            datagram[place : place + 4] = NUMBERS[change % len(NUMBERS)].to_bytes(4, "big")
        elif change < 460:
            del datagram[place:]
        else:
            datagram += bytes(change - 459)
    return bytes(datagram)


@pytest.mark.parametrize("table", [m.REQUESTS, m.ANSWERS], ids=["requests", "answers"])
def test_mutated_messages(fuzz: Fuzz, table: dict[int, type[m.Message]]) -> None:
    def body(datagram: bytes, count: int) -> None:
        try:
            message = m.decode(table, datagram, count)
        except ProtocolViolation:
            return
        assert type(message) is table[datagram[0]]
        assert m.decode(table, m.encode(message), count) == message

    fuzz(body, mutated(table) | st.binary(max_size=m.MAX_MESSAGE), st.integers(0, m.MAX_DESCRIPTORS))


class Door:
    """The hostile service's end, and what the test knows of the builder behind it."""

    def __init__(self, daemon: Daemon, desk: Desk) -> None:
        self.daemon, self._desk = daemon, desk
        self.numbers = iter(range(1000, 1 << 30))
        self.renew()

    def renew(self) -> None:
        """Take the door of the generation that begins now."""
        self.channel = self._desk.door()
        assert self.receive() == m.Ready()
        self.builder = self.daemon.room("builder")

    def send(self, message: m.Message | bytes, *descriptors: int) -> None:
        datagram = message if isinstance(message, bytes) else m.encode(message)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.channel.sendmsg([datagram], rights)

    def receive(self) -> m.Answer | None:
        """One answer, its descriptors closed; None where the builder is gone."""
        try:
            datagram, descriptors, _, _ = socket.recv_fds(self.channel, m.MAX_MESSAGE, m.MAX_DESCRIPTORS)
        except ConnectionResetError:
            return None
        for descriptor in descriptors:
            os.close(descriptor)
        return m.decode(m.ANSWERS, datagram, len(descriptors)) if datagram else None

    def answered(self, wanted: Counter[tuple[str, int]]) -> list[m.Answer]:
        """Every answer that is wanted, by its kind and number; Exited comes when it likes."""
        got: list[m.Answer] = []
        while wanted:
            answer = self.receive()
            assert answer is not None, self.daemon.log()
            got.append(answer)
            kind = "Bound" if isinstance(answer, m.BindFailed) else type(answer).__name__
            number = getattr(answer, "environment_id", getattr(answer, "request_id", 0))
            wanted -= Counter([(kind, number)])
        return got

    def held(self) -> int:
        """How many descriptors the builder has open, once nothing is under way."""
        counts: list[int] = []
        while len(counts) < 4 or len(set(counts[-4:])) > 1:
            time.sleep(0.1)
            counts.append(self.builder.num_fds())
        return counts[-1]


@pytest.fixture(scope="module")
def door(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    directory = tmp_path_factory.mktemp("desk")
    desk, daemon = Desk(directory), Daemon()
    daemon.launcher = launcher("tests.fuzz.hostile_service:patch", str(desk.place))
    try:
        daemon.spawn()
        made = Door(daemon, desk)
        yield made
        made.channel.close()
    finally:
        daemon.close()
        desk.close()


@contextlib.contextmanager
def file_of(content: bytes, *, seal: bool = False) -> Iterator[int]:
    descriptor = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, content)
        if seal:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0xF)
        yield descriptor
    finally:
        os.close(descriptor)


PACKAGE = zip_of({"app.py": "def handler(event, context):\n    return 1\n"})
DIGEST = hashlib.sha256(PACKAGE).digest()
FILES = (b"", b"junk", b"PK\x05\x06" + bytes(18), PACKAGE, PACKAGE[:-9], PACKAGE[9:], PACKAGE + PACKAGE, bytes(1 << 20))
ENVIRONS = (b"", b"A=1\0", b"no end", b"\0" * 70_000, b"=\0=\0", b"LD_PRELOAD=/x\0" * 3000, os.urandom(5000))
ids = st.sampled_from([1, 2, 3, 2**31, 2**32 - 1])
digests = st.sampled_from([bytes(32), DIGEST, b"\xff" * 32])
CALLS = st.one_of(
    st.tuples(st.just("destroy"), ids),
    st.tuples(st.just("init ended"), ids | st.just(0)),
    st.tuples(st.just("remove code"), digests),
    st.tuples(st.just("open"), ids),
    st.tuples(st.just("warm"), digests, st.sampled_from(ENVIRONS)),
    st.tuples(st.just("unpack"), digests, st.sampled_from(FILES), st.sampled_from([0, 1, 100, 1 << 24])),
)


def play(door: Door, call: tuple[object, ...], wanted: Counter[tuple[str, int]]) -> None:
    """Send one well-formed message that makes no sense, and note the answer that it has to get."""
    match call:
        case ("destroy", int(number)):
            door.send(m.Destroy(number))
            wanted["Destroyed", number] += 1
        case ("init ended", int(number)):
            door.send(m.InitEnded(number))
        case ("remove code", bytes(digest)):
            door.send(m.RemoveCode(digest))
        case ("open", int(number)):
            door.send(m.OpenAddresses(number, number, 60, (IPv4Address("8.8.8.8"),), (443,)))
            wanted["AddressesOpened", number] += 1
        case ("warm", bytes(digest), bytes(environ)):
            with file_of(environ, seal=True) as descriptor:
                door.send(m.WarmImage(digest, len(environ) & ~15), descriptor)
        case ("unpack", bytes(digest), bytes(content), int(entries)):
            number = next(door.numbers)
            with file_of(content) as descriptor:
                door.send(m.Unpack(number, digest, 1 << 24, min(entries, 1000)), descriptor)
            wanted["Unpacked", number] += 1


def test_a_hostile_service_with_manners(fuzz: Fuzz, door: Door) -> None:
    """Ids that do not exist, digests of nothing, zips that are none: each is answered, and nothing is kept."""
    before = door.held()

    def body(calls: list[tuple[object, ...]]) -> None:
        wanted: Counter[tuple[str, int]] = Counter()
        for call in calls:
            play(door, call, wanted)
        door.answered(wanted)

    fuzz(body, st.lists(CALLS, min_size=1, max_size=2), shrink=False)
    door.send(m.Destroy(1))
    door.answered(Counter({("Destroyed", 1): 1}))
    assert door.builder.is_running()
    assert door.held() <= before + 3, "environs of three images, which are kept to boot them"
    assert not [name for name in os.listdir(door.daemon.data_dir / "code") if name.startswith(".")]
    assert "Traceback" not in door.daemon.log(), door.daemon.log()


def test_mutated_messages_that_are_well_formed(fuzz: Fuzz, door: Door) -> None:
    """Whatever bytes come to, if they come to a message, it is answered."""
    played: Counter[str] = Counter()

    def body(datagram: bytes) -> None:
        try:
            kind = m.REQUESTS[datagram[0]] if datagram[:1] else m.Bind
            message = m.decode(m.REQUESTS, datagram, kind.DESCRIPTORS.start)
        except (ProtocolViolation, KeyError):
            return
        played[kind.__name__] += 1
        match message:
            case m.Bind(spec):
                number = next(door.numbers)
                with file_of(b"A=1\0", seal=True) as environ:
                    door.send(m.Bind(replace(spec, environment_id=number)), environ)
                door.answered(Counter({("Bound", number): 1}))
                door.send(m.Destroy(number))
                door.answered(Counter({("Destroyed", number): 1}))
            case m.Unpack(number, _, size, entries):
                if size <= 1 << 24 and entries <= 1000:  # else it is beyond the limits, which ends the generation
                    with file_of(PACKAGE) as package:
                        door.send(datagram, package)
                    door.answered(Counter({("Unpacked", number): 1}))
            case m.OpenAddresses(number):
                door.send(datagram)
                door.answered(Counter({("AddressesOpened", number): 1}))
            case m.Destroy(number):
                door.send(datagram)
                door.answered(Counter({("Destroyed", number): 1}))
            case m.WarmImage():
                with file_of(b"", seal=True) as environ:
                    door.send(datagram, environ)
            case _:
                door.send(datagram)

    fuzz(body, mutated(m.REQUESTS), share=0.3, shrink=False)
    assert len(played) == len(m.REQUESTS), played
    assert door.builder.is_running() and "Traceback" not in door.daemon.log(), door.daemon.log()


def image(daemon: Daemon) -> bytes:
    return bytes.fromhex(json.loads((daemon.data_dir / "images" / "python3.13.json").read_text())["digest"])


def test_environments_that_cannot_be(fuzz: Fuzz, door: Door) -> None:
    """Bind at and beyond every bound, with images, code and variables that are not there."""
    with file_of(PACKAGE) as package:
        door.send(m.Unpack(1, DIGEST, 1 << 20, 10), package)
        door.answered(Counter({("Unpacked", 1): 1}))
    before = door.held()
    good = image(door.daemon)

    def body(
        images: bytes, code: bytes, layers: tuple[bytes, ...], sizes: tuple[int, int, int, int], environ: bytes,
        stop: bool,
    ) -> None:  # fmt: skip
        number = next(door.numbers)
        memory, tmp, pids, files = sizes
        with file_of(environ, seal=True) as descriptor:
            spec = EnvironmentSpec(number, images, code, memory, tmp, pids, files, layers=layers)
            door.send(m.Bind(spec), descriptor)
        if not stop:  # else the end is asked for while it is being made
            door.answered(Counter({("Bound", number): 1}))
            door.send(m.InitEnded(number))
        door.send(m.Destroy(number))
        door.answered(Counter({("Destroyed", number): 1}))

    sizes = st.tuples(
        st.sampled_from([16, 128, 3008, 3009, 1 << 20]), st.sampled_from([1, 512, 10_240]),
        st.sampled_from([16, 1024, 32_768]), st.sampled_from([64, 1024, 65_536]),
    )  # fmt: skip
    images = st.sampled_from([good, good, bytes(32)])
    code = st.sampled_from([DIGEST, DIGEST, bytes(32)])
    layers = st.sampled_from([(), (DIGEST,), (DIGEST, bytes(32)), tuple(bytes([n]) * 32 for n in range(5))])
    fuzz(body, images, code, layers, sizes, st.sampled_from(ENVIRONS), st.booleans(), share=0.05, shrink=False)
    assert door.held() <= before + 2 * 8, "no more than two spares' worth"
    assert door.builder.is_running()


def pipe_end() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


KINDS: dict[str, Callable[[], int]] = {
    "directory": lambda: os.open("/", os.O_RDONLY),
    "pipe": pipe_end,
    "socket": lambda: socket.socket().detach(),
    "device": lambda: os.open("/dev/zero", os.O_RDONLY),
    "unsealed memfd": lambda: os.memfd_create("x"),
    "path": lambda: os.open("/etc/passwd", os.O_PATH),
}


@pytest.fixture
def descriptors() -> Iterator[Callable[[str], int]]:
    made: list[int] = []

    def make(kind: str) -> int:
        made.append(KINDS[kind]())
        return made[-1]

    yield make
    for descriptor in made:
        os.close(descriptor)


BIND, UNPACK, WARM = (
    m.encode(m.Bind(SPEC)),
    m.encode(m.Unpack(1, DIGEST, 1 << 20, 10)),
    m.encode(m.WarmImage(bytes(32), 0)),
)
ILL_FORMED: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "unknown kind": (b"\xff", ()),
    "an answer": (m.encode(m.Ready()), ()),
    "garbage": (os.urandom(300), ()),
    "too long": (bytes((m.Destroy.KIND,)) + bytes(m.MAX_MESSAGE), ()),
    "no descriptor": (BIND, ()),
    "one too many": (UNPACK, ("unsealed memfd", "unsealed memfd")),
    "more than there may be": (UNPACK, ("unsealed memfd",) * 30),
    "a descriptor where none belongs": (m.encode(m.Destroy(1)), ("unsealed memfd",)),
    "variables unsealed": (BIND, ("unsealed memfd",)),
    "variables from a pipe": (WARM, ("pipe",)),
    "a package of another kind: directory": (UNPACK, ("directory",)),
    "a package of another kind: pipe": (UNPACK, ("pipe",)),
    "a package of another kind: socket": (UNPACK, ("socket",)),
    "a package of another kind: device": (UNPACK, ("device",)),
    "a package beyond the limits": (m.encode(m.Unpack(1, DIGEST, 1 << 34, 10)), ("unsealed memfd",)),
    "an id of zero": (m.encode(m.Bind(replace(SPEC, environment_id=0))), ("unsealed memfd",)),
}  # fmt: skip


@pytest.mark.parametrize("what", ILL_FORMED)
def test_an_ill_formed_message_ends_the_generation(door: Door, descriptors: Callable[[str], int], what: str) -> None:
    datagram, kinds = ILL_FORMED[what]
    keeper = door.daemon.room("keeper")
    held = keeper.num_fds()
    door.send(datagram, *map(descriptors, kinds))
    ends(door)
    assert keeper.num_fds() == held


def test_an_environments_number_is_free_when_the_router_has_let_go(door: Door) -> None:
    """Bind, destroy and bind again what has a link: in time, or as the end of the generation."""
    linked = replace(SPEC, image_digest=image(door.daemon), egress=(EgressRule(IPv4Network("192.0.2.0/24"), 1, 9),))
    for _ in range(20):
        with file_of(b"A=1\0", seal=True) as environ:
            door.send(m.Bind(linked), environ)
        door.send(m.Destroy(SPEC.environment_id))
        while (answer := door.receive()) != m.Destroyed(SPEC.environment_id):
            if answer is None:
                door.channel.close()
                door.renew()
                break
    assert "Traceback" not in door.daemon.log(), door.daemon.log()


def test_the_same_environment_twice_ends_the_generation(door: Door) -> None:
    for _ in range(2):
        with file_of(b"A=1\0", seal=True) as environ:
            door.send(m.Bind(replace(SPEC, image_digest=image(door.daemon))), environ)
    ends(door)


def ends(door: Door) -> None:
    """The builder has ended, said why, and the next generation is there."""
    old = door.builder
    while door.receive() is not None:
        pass
    door.channel.close()
    door.renew()
    assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
    said = [line for line in door.daemon.log().splitlines() if "broke the protocol" in line]
    assert said and "Traceback" not in door.daemon.log(), door.daemon.log()
