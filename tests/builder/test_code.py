"""Packages: a good one is unpacked and sealed; a bad one is refused by name and nothing of it stays."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from sandboxd.builder import code, seccomp
from sandboxd.privsep.messages import UnpackStatus

UID = 1_999_000_001
NAME = "d" * 64
PROGRAM = seccomp.compile_profile(seccomp.profile(seccomp.EXTRACTOR_PROFILE))
MAX_BYTES, MAX_ENTRIES = 1_000_000, 1000


@pytest.fixture
def packages(tmp_path: Path):
    tmp_path.chmod(0o755)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, directory
    os.close(directory)


def unpack(directory: int, package: bytes, max_bytes: int = MAX_BYTES) -> tuple[UnpackStatus, int]:
    file = os.memfd_create("package")
    os.write(file, package)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code.run_unpacker(directory, NAME, file, UID, max_bytes, MAX_ENTRIES, writer, PROGRAM)
    os.close(writer)
    result = os.read(reader, 100)
    os.close(reader)
    os.close(file)
    os.waitpid(child, 0)
    number, size = code.RESULT.unpack(result)
    return UnpackStatus(number), size


def packed(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def test_a_package_is_unpacked_and_sealed(packages) -> None:
    path, directory = packages
    script = special("bin/run", stat.S_IFREG)
    package = packed(("app.py", b"x = 1\n"), ("pkg/", b""), ("pkg/ü.txt", "ü".encode()), (script, b"#!/bin/sh\n"))
    assert unpack(directory, package) == (UnpackStatus.OK, 6 + 2 + 10)
    tree = path / NAME
    assert (tree / "app.py").read_bytes() == b"x = 1\n"
    assert (tree / "pkg/ü.txt").read_text() == "ü"
    for entry in (tree, *tree.rglob("*")):
        about = entry.lstat()
        assert (about.st_uid, about.st_gid) == (0, 0)
        executable = entry.is_dir() or entry.name == "run"
        assert stat.S_IMODE(about.st_mode) == (0o555 if executable else 0o444)
    assert code.exists(directory, NAME)


def _many() -> bytes:
    return packed(*((f"f{i}", b"") for i in range(MAX_ENTRIES + 1)))


def _lying_about_its_size() -> bytes:
    package = bytearray(packed(("big", bytes(MAX_BYTES * 2))))
    # The central directory says ten bytes; what is inflated decides.
    at = package.rindex(b"PK\x01\x02")
    package[at + 24 : at + 28] = (10).to_bytes(4, "little")
    return bytes(package)


def _offset_lies() -> bytes:
    package = bytearray(packed(("a", b"x")))
    at = package.rindex(b"PK\x05\x06")
    package[at + 16 : at + 20] = (0x7FFF_FFFF).to_bytes(4, "little")
    return bytes(package)


@pytest.mark.parametrize(
    ("package", "status"),
    [
        (b"not a zip at all", UnpackStatus.NOT_A_ZIP),
        (b"", UnpackStatus.NOT_A_ZIP),
        (packed(("../out", b"x")), UnpackStatus.PARENT_NAME),
        (packed(("a/../../out", b"x")), UnpackStatus.PARENT_NAME),
        (packed(("/etc/out", b"x")), UnpackStatus.ABSOLUTE_NAME),
        (packed(("C:\\out", b"x")), UnpackStatus.ABSOLUTE_NAME),
        (packed((special("link", stat.S_IFLNK), b"/etc/passwd")), UnpackStatus.LINK),
        (packed((special("null", stat.S_IFCHR), b"")), UnpackStatus.SPECIAL_FILE),
        (packed((special("pipe", stat.S_IFIFO), b"")), UnpackStatus.SPECIAL_FILE),
        (packed(("a", b"x"), ("a/b", b"x")), UnpackStatus.DUPLICATE_NAME),
        (packed(("n" * 300, b"x")), UnpackStatus.BAD_NAME),
        (packed(("d/" * 101 + "f", b"x")), UnpackStatus.BAD_NAME),
        (packed(("d/" * 30_000 + "f", b"x")), UnpackStatus.BAD_NAME),
        (packed((("d" * 200 + "/") * 20 + "f", b"x")), UnpackStatus.BAD_NAME),
        (_offset_lies(), UnpackStatus.CORRUPT),
        (packed(("big", bytes(MAX_BYTES + 1))), UnpackStatus.TOO_LARGE),
        (_many(), UnpackStatus.TOO_MANY_ENTRIES),
        (packed(("a", b"hello" * 100))[:-30], UnpackStatus.NOT_A_ZIP),
    ],
)
def test_a_bad_package_is_refused_and_leaves_nothing(packages, package: bytes, status: UnpackStatus) -> None:
    path, directory = packages
    assert unpack(directory, package) == (status, 0)
    assert os.listdir(path) == []


def test_the_same_name_twice_is_refused(packages) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        package = packed(("a", b"x"), ("a", b"y"))
    assert unpack(packages[1], package) == (UnpackStatus.DUPLICATE_NAME, 0)
    assert os.listdir(packages[0]) == []


def test_sizes_count_as_inflated_not_as_claimed(packages) -> None:
    status, _ = unpack(packages[1], _lying_about_its_size())
    assert status in (UnpackStatus.TOO_LARGE, UnpackStatus.CORRUPT)
    assert os.listdir(packages[0]) == []


def test_a_bomb_ends_at_the_limit(packages) -> None:
    bomb = packed(*((f"{i}", bytes(MAX_BYTES // 2)) for i in range(50)))
    assert len(bomb) < MAX_BYTES // 10
    assert unpack(packages[1], bomb) == (UnpackStatus.TOO_LARGE, 0)
    assert os.listdir(packages[0]) == []


def test_a_package_unpacked_twice_is_there_once(packages) -> None:
    package = packed(("app.py", b"x = 1\n"))
    assert unpack(packages[1], package)[0] is UnpackStatus.OK
    assert unpack(packages[1], package)[0] is UnpackStatus.OK
    assert os.listdir(packages[0]) == [NAME]


def test_removal_follows_no_link(packages, tmp_path_factory) -> None:
    path, directory = packages
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("x")
    (path / "tree").mkdir()
    (path / "tree" / "link").symlink_to(outside)
    code.remove_tree(directory, "tree")
    assert os.listdir(path) == []
    assert (outside / "kept").exists()


def test_a_tree_deeper_than_the_stack_is_removed(packages) -> None:
    path, directory = packages
    tree = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=tree)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=tree)
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=below))
        os.close(tree)
        tree = below
    os.close(tree)
    code.remove_tree(directory, "d")
    assert os.listdir(path) == []


def test_a_package_as_deep_as_may_be_is_unpacked(packages) -> None:
    assert unpack(packages[1], packed(("d/" * 99 + "f", b"x"))) == (UnpackStatus.OK, 1)
    assert os.listdir(packages[0]) == [NAME]
