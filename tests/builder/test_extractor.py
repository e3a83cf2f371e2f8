"""What a stranger may write into a zip: it becomes plain files below the tree, or is refused and leaves nothing."""

import io
import os
import signal
import stat
import struct
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sandboxd.builder import code, seccomp
from sandboxd.privsep.messages import UnpackStatus
from tests.builder.test_code import MAX_BYTES, MAX_ENTRIES, NAME, PROGRAM, UID, packages, packed, special, unpack

__all__ = ["packages"]  # a fixture
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
CORRUPT = UnpackStatus.CORRUPT


def changed(package: bytes, signature: bytes, at: int, value: int, size: int = 2) -> bytes:
    """A package with a number of its first record of a kind changed."""
    data = bytearray(package)
    place = data.index(signature) + at
    data[place : place + size] = value.to_bytes(size, "little")
    return bytes(data)


def renamed(package: bytes, old: bytes, new: bytes) -> bytes:
    """A package whose names zipfile would not have written."""
    assert len(old) == len(new) and package.count(old) >= 2
    return package.replace(old, new)


def streamed(*entries: tuple[str, bytes]) -> bytes:
    """A package from a writer that could not go back: sizes stand behind the data (data descriptors)."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:  # type: ignore[no-untyped-def]
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return bytes(pipe.data)


def zip64(name: str, data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open(name, "w", force_zip64=True) as entry:
        entry.write(data)
    return target.getvalue()


def with_zip64_size(size: int) -> bytes:
    """An entry whose size stands in a zip64 field, as large as is said."""
    data, name = b"x", b"a"
    extra = struct.pack("<HHQQ", 1, 16, size, len(data))
    local = struct.pack("<4s5H3I2H", LOCAL, 45, 0, 0, 0, 0, zlib.crc32(data), 2**32 - 1, 2**32 - 1, 1, len(extra))
    central = struct.pack("<4s6H3I5H2I", CENTRAL, 45, 45, 0, 0, 0, 0, zlib.crc32(data), 2**32 - 1, 2**32 - 1, 1,
                          len(extra), 0, 0, 0, 0, 0)  # fmt: skip
    before = local + name + extra + data
    directory = central + name + extra
    return before + directory + struct.pack("<4s4H2IH", END, 0, 0, 1, 1, len(directory), len(before), 0)


def sharing(count: int) -> bytes:
    """Many entries, one body: the directory of a better zip bomb (https://www.bamsoftware.com/hacks/zipbomb/)."""
    package = packed(("0000", b"x" * 100_000))
    begin, end = package.index(CENTRAL), package.index(END)
    rows = b"".join(package[begin:end].replace(b"0000", b"%04d" % number) for number in range(count))
    return package[:begin] + rows + struct.pack("<4s4H2IH", END, 0, 0, count, count, len(rows), begin, 0)


def quoting() -> bytes:
    """Entries in each other: a stored one holds the whole of the next, local header and all."""
    inner = packed(("b", b"x" * 1000))
    body = inner[: inner.index(CENTRAL)]
    head = struct.pack("<4s5H3I2H", LOCAL, 20, 0, 0, 0, 0, zlib.crc32(body), len(body), len(body), 1, 0) + b"a"
    row = struct.pack("<4s6H3I5H2I", CENTRAL, 20, 20, 0, 0, 0, 0, zlib.crc32(body), len(body), len(body), 1, 0, 0, 0, 0,
                      0, 0) + b"a"  # fmt: skip
    second = bytearray(inner[inner.index(CENTRAL) : inner.index(END)])
    second[42:46] = len(head).to_bytes(4, "little")
    rows = row + bytes(second)
    return head + body + rows + struct.pack("<4s4H2IH", END, 0, 0, 2, 2, len(rows), len(head + body), 0)


def compressed(kind: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", kind) as archive:
        archive.writestr("a", b"x" * 1000)
    return target.getvalue()


ONE = packed(("name", b"hello" * 100))
REFUSED: dict[str, tuple[Callable[[], bytes], UnpackStatus]] = {
    "no entry": (packed, UnpackStatus.EMPTY),
    "a file, then a directory of its name": (lambda: packed(("a", b"x"), ("a/", b"")), UnpackStatus.DUPLICATE_NAME),
    "a directory, then a file of its name": (lambda: packed(("a/b", b"x"), ("a", b"y")), UnpackStatus.DUPLICATE_NAME),
    "one file by two names": (lambda: packed(("a/./b", b"x"), ("a//b", b"y")), UnpackStatus.DUPLICATE_NAME),
    "parents, in Windows' words": (lambda: packed(("a\\..\\..\\b", b"x")), UnpackStatus.PARENT_NAME),
    "a share of Windows": (lambda: packed(("\\\\server\\share", b"x")), UnpackStatus.ABSOLUTE_NAME),
    "a name with an end inside": (lambda: renamed(ONE, b"name", b"n\0me"), UnpackStatus.BAD_NAME),
    "no name": (lambda: packed(("./", b""), (".", b"x")), UnpackStatus.BAD_NAME),
    "a directory that is a link": (lambda: packed((special("d/", stat.S_IFLNK), b"")), UnpackStatus.LINK),
    "a link, then a file through it": (
        lambda: packed((special("d", stat.S_IFLNK), b"/tmp"), ("d/x", b"x")), UnpackStatus.LINK
    ),
    "a hard link's place": (lambda: packed((special("s", stat.S_IFSOCK), b"")), UnpackStatus.SPECIAL_FILE),
    "a block device": (lambda: packed((special("b", stat.S_IFBLK), b"")), UnpackStatus.SPECIAL_FILE),
    "256 bytes of name in 128 letters": (lambda: packed(("é" * 128, b"x")), UnpackStatus.BAD_NAME),
    "a name that is not UTF-8 but says so": (
        lambda: packed(("ü.py", b"x")).replace("ü".encode(), b"\xff\xfe"), CORRUPT
    ),
    "encrypted": (lambda: changed(ONE, CENTRAL, 8, 1), CORRUPT),
    "strongly encrypted": (lambda: changed(ONE, CENTRAL, 8, 0x40), CORRUPT),
    "a patch": (lambda: changed(ONE, CENTRAL, 8, 0x20), CORRUPT),
    "bzip2": (lambda: compressed(zipfile.ZIP_BZIP2), CORRUPT),
    "lzma": (lambda: compressed(zipfile.ZIP_LZMA), CORRUPT),
    "deflate64": (lambda: changed(changed(ONE, CENTRAL, 10, 9), LOCAL, 8, 9), CORRUPT),
    "a compression of which there is none": (lambda: changed(changed(ONE, CENTRAL, 10, 93), LOCAL, 8, 93), CORRUPT),
    "two compressions": (lambda: changed(ONE, LOCAL, 8, 0), CORRUPT),
    "two names": (lambda: ONE.replace(b"name", b"eman", 1), CORRUPT),
    "a wrong checksum": (lambda: changed(ONE, CENTRAL, 16, 1, 4), CORRUPT),
    "smaller than it says": (lambda: changed(ONE, CENTRAL, 24, 501, 4), CORRUPT),
    "larger than it says": (lambda: changed(ONE, CENTRAL, 24, 499, 4), CORRUPT),
    "more packed bytes than there are": (lambda: changed(ONE, CENTRAL, 20, 1 << 20, 4), CORRUPT),
    "fewer packed bytes than there are": (lambda: changed(ONE, CENTRAL, 20, 3, 4), CORRUPT),
    "no local header": (lambda: changed(ONE, LOCAL, 0, 0), CORRUPT),
    "a local header behind the end": (lambda: changed(ONE, CENTRAL, 42, 1 << 30, 4), CORRUPT),
    "a local header's name behind the end": (lambda: changed(ONE, LOCAL, 26, 0xFFFF), CORRUPT),
    "entries that share one body": (lambda: sharing(9), CORRUPT),
    "entries in each other": (quoting, CORRUPT),
    "petabytes, by zip64": (lambda: with_zip64_size(1 << 60), UnpackStatus.TOO_LARGE),
    "fewer bytes by zip64 than there are": (lambda: with_zip64_size(0), CORRUPT),
    "a directory larger than the file": (lambda: changed(ONE, END, 12, 1 << 20, 4), CORRUPT),
    "a bomb of one stream": (lambda: packed(("a", bytes(MAX_BYTES + 1))), UnpackStatus.TOO_LARGE),
    "a bomb that lies": (lambda: changed(packed(("a", bytes(50_000_000))), CENTRAL, 24, 10, 4), CORRUPT),
}  # fmt: skip


@pytest.fixture(params=[1, 2], ids=["whole", "in halves"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the package's size."""
    monkeypatch.setattr(code, "_DIVIDED", -1 if request.param > 1 else MAX_BYTES * 100)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refused(packages: tuple[Path, int], what: str) -> None:
    path, directory = packages
    make, status = REFUSED[what]
    beside = sorted(os.listdir(path.parent))
    assert unpack(directory, make()) == (status, 0)
    assert os.listdir(path) == [] and sorted(os.listdir(path.parent)) == beside


TAKEN: dict[str, tuple[Callable[[], bytes], dict[str, bytes]]] = {
    "data descriptors": (lambda: streamed(("a", b"x" * 1000), ("b/c", b"")), {"a": b"x" * 1000, "b/c": b""}),
    "zip64": (lambda: zip64("a", b"zip64"), {"a": b"zip64"}),
    "a program before it": (lambda: b"#!/bin/sh\nexit 1\n" + packed(("a", b"x")), {"a": b"x"}),
    "a comment": (lambda: changed(packed(("a", b"x")), END, 20, 5) + b"hello", {"a": b"x"}),
    "a zip in a zip": (lambda: packed(("in.zip", ONE)), {"in.zip": ONE}),
    "a directory by the way": (lambda: packed(("a/b/c", b"x"), ("a/b/", b""), ("./", b"")), {"a/b/c": b"x"}),
    "Windows' separator in a name": (lambda: renamed(packed(("a_b", b"x")), b"a_b", b"a\\b"), {"a\\b": b"x"}),
    "names that only look alike": (
        lambda: packed(*((unicodedata.normalize(form, "é"), form.encode()) for form in ("NFC", "NFD")), ("É", b"big")),
        {"\u00e9": b"NFC", "e\u0301": b"NFD", "É": b"big"},
    ),
    "names of 255 bytes": (lambda: packed(("n" * 255, b"x"), ("é" * 127, b"y")), {"n" * 255: b"x", "é" * 127: b"y"}),
    "a name of dots": (lambda: packed(("...", b"x"), ("..a", b"y")), {"...": b"x", "..a": b"y"}),
    "a name of a terminal's commands": (lambda: packed(("\x1b[2J\r\n", b"x")), {"\x1b[2J\r\n": b"x"}),
    "DOS names": (lambda: renamed(packed(("a_b", b"x")), b"a_b", b"a\x81b"), {"aüb": b"x"}),
    "bits that nobody keeps": (lambda: packed((special("a", stat.S_IFREG | 0o7000), b"x")), {"a": b"x"}),
    "no bits at all": (lambda: packed((special("a", stat.S_IFREG), b"x")), {"a": b"x"}),
}


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("what", TAKEN)
def test_taken(packages: tuple[Path, int], what: str) -> None:
    path, directory = packages
    make, files = TAKEN[what]
    assert unpack(directory, make()) == (UnpackStatus.OK, sum(map(len, files.values())))
    tree = path / NAME
    assert {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()} == files
    for place in (tree, *tree.rglob("*")):
        about = place.lstat()
        assert (about.st_uid, about.st_gid, about.st_nlink if place.is_file() else 1) == (0, 0, 1)
        assert stat.S_IMODE(about.st_mode) in (0o444, 0o555)


@pytest.mark.usefixtures("parts")
def test_as_many_entries_as_may_be(packages: tuple[Path, int]) -> None:
    package = packed(*((f"d{number % 7}/f{number}", b"x") for number in range(MAX_ENTRIES)))
    assert unpack(packages[1], package) == (UnpackStatus.OK, MAX_ENTRIES)


BREACHES: dict[str, Callable[[], object]] = {
    "a process": os.fork,
    "a program": lambda: os.execv("/", ["x"]),
    "a socket": lambda: __import__("_socket").socket(1, 1),
    "a link": lambda: os.symlink("/", "link"),
    "a hard link": lambda: os.link("a", "b"),
    "a mode": lambda: os.chmod("/", 0o777),
    "a device": lambda: os.mknod("null", stat.S_IFCHR, os.makedev(1, 3)),
    "another root": lambda: os.chroot("/"),
    "a signal": lambda: os.kill(1, 0),
    "another name": lambda: os.rename("a", "b"),
    "a directory's end": lambda: os.rmdir("a"),
    "what stands there": lambda: os.listdir("/"),
}


@pytest.mark.parametrize("what", BREACHES)
def test_a_stranger_in_the_extractor_is_ended(
    packages: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def taken_over(*_: object) -> tuple[UnpackStatus, int]:
        BREACHES[what]()
        return UnpackStatus.OK, 1  # never said: the call before ends the process

    monkeypatch.setattr(code.extractor, "extract", taken_over)
    assert unpack(packages[1], ONE) == (CORRUPT, 0)
    assert os.listdir(packages[0]) == []


def test_a_stranger_in_the_extractor_has_nothing(packages: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says of an extractor that waits."""
    monkeypatch.setattr(code.extractor, "extract", lambda *_: [None for _ in iter(lambda: os.fstat(3).st_size, -1)])
    package = os.memfd_create("package")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code.run_unpacker(packages[1], NAME, package, UID, MAX_BYTES, MAX_ENTRIES, writer, PROGRAM)
    os.close(writer)
    os.close(package)
    deadline = time.monotonic() + 10
    status: dict[str, str] = {}
    while status.get("Seccomp") != "2":
        assert time.monotonic() < deadline
        for process in psutil.Process(child).children():
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    root, held = os.readlink(f"/proc/{process.pid}/root"), os.listdir(f"/proc/{process.pid}/fd")
    process.send_signal(signal.SIGKILL)
    assert code.RESULT.unpack(os.read(reader, 100)) == (UnpackStatus.FAILED, 0)
    os.close(reader)
    os.waitpid(child, 0)
    assert (status["NoNewPrivs"], status["Uid"].split(), status["Groups"].split()) == ("1", [str(UID)] * 4, [])
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert root.startswith(f"{packages[0]}/.new-{NAME}")
    assert sorted(held) == ["0", "1", "2", "3", "4", "5"]


def test_every_rule_says_who_needs_it() -> None:
    document = seccomp.profile(seccomp.EXTRACTOR_PROFILE)
    assert document["defaultAction"] == "SCMP_ACT_KILL_PROCESS"
    assert all(rule["action"] == "SCMP_ACT_ALLOW" and len(rule["comment"]) > 4 for rule in document["syscalls"])
