from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sandboxd.config import Config
from sandboxd.images import store
from sandboxd.images.recipe import ImageError
from sandboxd.images.store import ImageEntry

ENTRY = ImageEntry("python3.13", "a" * 64, 12, "2026-01-02T03:04:05+00:00", "b" * 64)

BUILDER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from sandboxd.config import Config
from sandboxd.images import store
with store.building_directory(replace(Config(), data_dir=Path(sys.argv[1])), "python3.13") as path:
    (path / "half").write_bytes(b"made")
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = replace(Config(), data_dir=tmp_path / "data")
    made.images_dir.mkdir(parents=True)
    return made


@pytest.fixture
def builder(config: Config) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of a build; its first line of output is where."""
    process = subprocess.Popen([sys.executable, "-c", BUILDER, config.data_dir], stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def path_of(builder: subprocess.Popen[str]) -> Path:
    assert builder.stdout is not None
    path = Path(builder.stdout.readline().strip())
    assert (path / "half").is_file()
    return path


def test_an_entry_is_read_as_written(config: Config) -> None:
    assert store.read_entry(config, "python3.13") is None
    store.write_entry(config, ENTRY)
    assert store.read_entry(config, "python3.13") == ENTRY
    newer = replace(ENTRY, digest="c" * 64)
    store.write_entry(config, newer)
    assert store.list_entries(config) == [newer]
    assert os.listdir(config.images_dir) == ["python3.13.json"]


def test_entries_come_sorted(config: Config) -> None:
    for runtime in ("python3.13", "python3.11"):
        store.write_entry(config, replace(ENTRY, runtime=runtime))
    assert [entry.runtime for entry in store.list_entries(config)] == ["python3.11", "python3.13"]


def test_no_directory_is_no_image() -> None:
    assert store.list_entries(replace(Config(), data_dir=Path("/nonexistent"))) == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"runtime": "x"}', str(asdict(ENTRY)), "\udcff".encode("utf-8", "surrogateescape")]
)
def test_a_damaged_entry_says_so(config: Config, text: str | bytes) -> None:
    path = config.images_dir / "python3.13.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ImageError, match=r"python3\.13\.json: .*; build the image again with --force"):
        store.read_entry(config, "python3.13")


@pytest.mark.parametrize("digest", ["", "..", "a" * 63, "../" + "a" * 61, "A" * 64])
def test_what_is_no_digest_is_not_believed(config: Config, digest: str) -> None:
    store.write_entry(config, replace(ENTRY, digest=digest))
    with pytest.raises(ImageError, match="is not a digest"):
        store.read_entry(config, "python3.13")


def test_removing_what_is_not_there_names_what_is(config: Config) -> None:
    store.write_entry(config, ENTRY)
    with pytest.raises(ImageError, match=r"no image of 'python3\.11'; there are: python3\.13"):
        store.remove_entry(config, "python3.11")
    store.remove_entry(config, "python3.13")
    with pytest.raises(ImageError, match="there are: none"):
        store.remove_entry(config, "python3.13")


def test_unused_trees_go_and_used_ones_stay(config: Config) -> None:
    for digit in "abc":
        (config.images_dir / (digit * 64) / "usr").mkdir(parents=True)
    store.write_entry(config, ENTRY)
    assert store.remove_unused(config) == ["b" * 64, "c" * 64]
    assert sorted(os.listdir(config.images_dir)) == ["a" * 64, "python3.13.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_mounted_tree_stays(config: Config) -> None:
    tree = config.images_dir / ("d" * 64)
    tree.mkdir()
    second = config.data_dir / "second"
    second.mkdir()
    mount = f"mount -t overlay -o lowerdir={tree}:{second} none /mnt && echo mounted && exec cat"
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "mounted\n"
        assert store.remove_unused(config) == []
        assert tree.is_dir()
    assert store.remove_unused(config) == ["d" * 64]


def test_a_build_leaves_no_directory(config: Config) -> None:
    with store.building_directory(config, "python3.13") as path:
        assert path.parent == config.images_dir and path.stat().st_mode & 0o777 == 0o700
        (path / "file").write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt), store.building_directory(config, "python3.13"):
        raise KeyboardInterrupt
    assert os.listdir(config.images_dir) == []


def test_a_living_builder_keeps_its_directory(config: Config, builder: subprocess.Popen[str]) -> None:
    path = path_of(builder)
    assert store.remove_stale(config) == []
    with store.building_directory(config, "python3.13"):
        pass
    assert (path / "half").is_file()


def test_a_killed_builders_directory_goes_with_the_next_build(config: Config, builder: subprocess.Popen[str]) -> None:
    path = path_of(builder)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert (path / "half").is_file()
    with store.building_directory(config, "python3.11") as mine:
        assert os.listdir(config.images_dir) == [mine.name]


def test_a_directory_taken_before_its_lock_is_made_again(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = fcntl.flock, []

    def lock_after_another_build(descriptor: int, operation: int) -> None:
        if not taken and operation == fcntl.LOCK_EX:
            taken.append(store.remove_stale(config))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_another_build)
    with store.building_directory(config, "python3.13") as path:
        assert [path.name] == os.listdir(config.images_dir)
        assert taken[0] and path.name not in taken[0]


def test_stale_removal_does_not_follow_links(config: Config, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (config.images_dir / ".building-x").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        store.remove_stale(config)
    assert (tmp_path / "precious").is_dir()
