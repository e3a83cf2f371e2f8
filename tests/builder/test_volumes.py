"""/tmp volumes: of the size asked for, owned by their user, and gone with their mount."""

import contextlib
import glob
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from sandboxd.builder.volumes import _MAX_TEMPLATES, MIB, TEMPLATE_MB, Volumes
from sandboxd.errors import StepFailed
from tests.support.places import TIME_FACTOR

OWNER = 1_999_000_003


def _our_loops(directory: Path) -> list[str]:
    found = []
    for name in glob.glob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # one of somebody else's has just ended
            found += [name] if Path(name).read_text().startswith(str(directory)) else []
    return found


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("volumes")
    volumes = Volumes(str(directory), 1)
    yield volumes, directory
    volumes.close()


@pytest.mark.parametrize("size", [TEMPLATE_MB, 1500, 10_240])
def test_a_volume_has_its_size_and_owner_and_leaves_nothing(volumes, size: int) -> None:
    maker, directory = volumes
    mount = maker.make(size, OWNER)
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
    about = os.fstatvfs(root)
    total = about.f_blocks * about.f_frsize
    assert size * MIB * 0.9 < total <= size * MIB
    assert about.f_bavail * about.f_frsize > size * MIB * 0.9
    assert (os.fstat(root).st_uid, os.fstat(root).st_mode & 0o777) == (OWNER, 0o700)
    assert os.listdir(root) == []
    assert len(_our_loops(directory)) == 1
    os.close(root)
    os.close(mount)
    deadline = time.monotonic() + 5 * TIME_FACTOR
    while _our_loops(directory):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert os.listdir(directory) == []


def test_no_volume_is_made_below_the_floor(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    maker = Volumes(str(tmp_path), disk.f_blocks * disk.f_frsize // MIB + 1)
    with pytest.raises(StepFailed, match="disk_floor"):
        maker.make(TEMPLATE_MB, OWNER)
    maker.close()


def test_two_volumes_are_two(volumes) -> None:
    first, second = (volumes[0].make(TEMPLATE_MB, OWNER) for _ in range(2))
    roots = [os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount) for mount in (first, second)]
    with open(os.open("mine", os.O_CREAT | os.O_WRONLY, dir_fd=roots[0]), "w") as file:
        file.write("x")
    assert os.listdir(roots[1]) == []
    for descriptor in (first, second, *roots):
        os.close(descriptor)


def test_few_templates_are_kept(volumes) -> None:
    maker, _ = volumes
    for size in range(600, 601 + _MAX_TEMPLATES):
        maker._template(size)
    assert len(maker._templates) == _MAX_TEMPLATES and TEMPLATE_MB in maker._templates
    assert sum(len(data) for extents in maker._templates.values() for _, data in extents) < 16 * MIB


def test_the_kernel_has_no_inode_tables_to_write_behind_a_mount(volumes, tmp_path: Path) -> None:
    maker, _ = volumes
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(TEMPLATE_MB * MIB)
        for offset, data in maker._template(TEMPLATE_MB):
            os.pwrite(file.fileno(), data, offset)
    groups = subprocess.run(["dumpe2fs", image], check=True, capture_output=True, text=True).stdout
    assert groups.count("ITABLE_ZEROED") == len(re.findall(r"^Group \d+:", groups, re.MULTILINE)) > 1
