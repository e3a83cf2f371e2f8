from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.images.namespace import UID_BASE, UIDS
from sandboxd.images.recipe import ImageError
from sandboxd.images.seal import Sealed, seal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sealing changes owners, which only root can")

Make = Callable[[Path], None]


def give_to_build(tree: Path) -> None:
    """Make everything look as if processes of a build had written it."""
    for path, directories, files in os.walk(tree):
        for name in (".", *directories, *files):
            os.lchown(os.path.join(path, name), UID_BASE + 7, UID_BASE + 8)


def sealed(tree: Path, **modes: int) -> Sealed:
    give_to_build(tree)
    return seal(tree, UIDS, modes)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"tool")
    (root / "usr/bin/tool").chmod(0o755)
    (root / "etc").mkdir(mode=0o700)
    (root / "etc/secret").write_bytes(b"x" * 5000)
    (root / "etc/secret").chmod(0o600)
    (root / "bin").symlink_to("usr/bin")
    return root


def test_everything_becomes_roots_and_readable(tree: Path) -> None:
    result = sealed(tree)
    for path in (tree, *tree.rglob("*")):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
    assert stat.S_IMODE((tree / "etc").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "etc/secret").stat().st_mode) == 0o644
    assert stat.S_IMODE((tree / "usr/bin/tool").stat().st_mode) == 0o755
    assert result.bytes == 5000 + len(b"tool") + len("usr/bin")


def test_no_privilege_survives(tree: Path) -> None:
    tool = tree / "usr/bin/tool"
    give_to_build(tree)
    tool.chmod(0o6755)
    (tree / "etc").chmod(0o3777)
    os.setxattr(tool, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0))
    os.setxattr(tool, "user.note", b"x")
    seal(tree, UIDS, {})
    assert stat.S_IMODE(tool.stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "etc").stat().st_mode) == 0o755
    assert os.listxattr(tool) == []


def test_modes_of_the_recipe_win(tree: Path) -> None:
    give_to_build(tree)
    seal(tree, UIDS, {"usr/bin/tool": 0o711, "etc": 0o1777})
    assert stat.S_IMODE((tree / "usr/bin/tool").stat().st_mode) == 0o711
    assert stat.S_IMODE((tree / "etc").stat().st_mode) == 0o1777


def test_links_out_of_the_tree_are_not_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "file").write_bytes(b"host")
    (outside / "file").chmod(0o600)
    os.chown(outside / "file", UID_BASE, UID_BASE)
    (tree / "escape").symlink_to(outside)
    (tree / "escape-file").symlink_to(outside / "file")
    sealed(tree)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o600
    assert (outside / "file").stat().st_uid == UID_BASE
    assert (tree / "escape").is_symlink() and (tree / "escape").lstat().st_uid == 0


def test_a_hard_link_to_a_file_of_the_host_is_refused(tree: Path, tmp_path: Path) -> None:
    host = tmp_path / "shadow"
    host.write_bytes(b"host")
    host.chmod(0o600)
    give_to_build(tree)
    os.link(host, tree / "etc/shadow")
    with pytest.raises(ImageError, match="a file that the build did not make: etc/shadow"):
        seal(tree, UIDS, {})
    assert stat.S_IMODE(host.stat().st_mode) == 0o600


def test_names_of_one_file_are_sealed_once(tree: Path) -> None:
    os.link(tree / "usr/bin/tool", tree / "usr/bin/second")
    sealed(tree)
    assert (tree / "usr/bin/second").stat().st_uid == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda path: os.mkfifo(path),
        lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        lambda path: os.mknod(path, stat.S_IFSOCK | 0o666),
    ],
    ids=["fifo", "device", "socket"],
)
def test_special_files_are_refused(tree: Path, make: Make) -> None:
    make(tree / "etc/special")
    with pytest.raises(ImageError, match="of a kind that it may not have: etc/special"):
        sealed(tree)


def test_a_tree_that_is_a_link_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(OSError):
        seal(tmp_path / "link", UIDS, {})


def test_the_digest_knows_content_only(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in sorted([tree, *tree.rglob("*")], reverse=True):  # another order of creation
        target = copy / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
        elif path.is_file():
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode)
            os.utime(target, (1, 1))
    assert sealed(copy).digest == sealed(tree).digest


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "etc/secret").write_bytes(b"y" * 5000),
        lambda tree: (tree / "etc/secret").chmod(0o755),
        lambda tree: (tree / "etc/secret").rename(tree / "etc/renamed"),
        lambda tree: (tree / "etc/empty").mkdir(),
        lambda tree: ((tree / "bin").unlink(), (tree / "bin").symlink_to("usr")),
        lambda tree: ((tree / "bin").unlink(), (tree / "bin").write_bytes(b"usr/bin")),
    ],
    ids=["content", "mode", "name", "directory", "target", "kind"],
)
def test_the_digest_knows_every_change(tree: Path, change: Make) -> None:
    before = sealed(tree).digest
    give_to_build(tree)
    change(tree)
    assert sealed(tree).digest != before


def test_sealing_twice_gives_the_same_digest(tree: Path) -> None:
    before = sealed(tree)
    assert seal(tree, {0}, {}) == before
