from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.config import Config
from sandboxd.images import maker, store
from sandboxd.images.namespace import UIDS, StepFailedInNamespace, build_namespace
from sandboxd.images.recipe import ImageError, load_recipe
from sandboxd.images.store import ImageEntry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="images are built by root")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return replace(Config(), data_dir=tmp_path / "data", run_dir=tmp_path / "run")


@pytest.fixture
def settings(config: Config, tmp_path: Path) -> Path:
    file = tmp_path / "sandboxd.toml"
    file.write_text(f'data_dir = "{config.data_dir}"\nrun_dir = "{config.run_dir}"\n')
    return file


@pytest.fixture
def silent_mirror() -> Iterator[socket.socket]:
    """A mirror that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}/debian"


def processes_of_builds() -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}").st_uid in UIDS:
                found.append(int(entry))
    return found


def space(tmp_path: Path) -> Path:
    """A directory that the namespace's root may enter."""
    directory = tmp_path / "space"
    directory.mkdir(mode=0o755)
    return directory


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def building(settings: Path, silent_mirror: socket.socket) -> Iterator[subprocess.Popen[str]]:
    """`sandboxd image build` in the middle of a build, waiting for its mirror."""
    command = [sys.executable, "-m", "sandboxd", "image", "build", "python3.13", "--config", str(settings)]
    process = subprocess.Popen([*command, "--mirror", address(silent_mirror)], stderr=subprocess.PIPE, text=True)
    with process:
        connection, _ = silent_mirror.accept()
        with connection:
            yield process
        process.kill()


def test_a_killed_build_leaves_no_process_and_the_next_removes_its_files(
    building: subprocess.Popen[str], config: Config
) -> None:
    assert processes_of_builds()
    building.send_signal(signal.SIGKILL)
    building.wait()
    until(lambda: not processes_of_builds())
    assert [name[:10] for name in os.listdir(config.images_dir)] == [".building-"]
    assert len(store.remove_stale(config)) == 1
    assert os.listdir(config.images_dir) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_terminated_build_cleans_up_at_once(
    building: subprocess.Popen[str], config: Config, number: signal.Signals, status: int
) -> None:
    building.send_signal(number)
    _, errors = building.communicate(timeout=20)
    assert building.returncode == status
    assert "Traceback" not in errors
    assert processes_of_builds() == []
    assert os.listdir(config.images_dir) == []


def test_an_unreachable_mirror_is_named(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = address(server)
    with pytest.raises(ImageError, match=rf"mirror cannot be reached: .*{closed[7:-7]}"):
        maker.build(config, "python3.13", mirror=closed)
    assert os.listdir(config.images_dir) == []


def test_a_full_disk_is_named_and_nothing_stays(config: Config) -> None:
    config.images_dir.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", config.images_dir], check=True)
    try:
        with pytest.raises(ImageError, match=f"the disk is full: .* below {config.images_dir}"):
            maker.build(config, "python3.13")
        assert os.listdir(config.images_dir) == []
    finally:
        subprocess.run(["umount", config.images_dir], check=True)


def test_a_client_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ImageError, match=r"client cannot be downloaded \(awslambdaric>=4,<5\): .*No matching"):
        maker.fetch_client(load_recipe("python3.13"), tmp_path)


def test_only_root_builds(config: Config) -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setuid(65_534)
            try:
                maker.build(config, "python3.13")
            except ImageError as error:
                os._exit(42 if "images are built by root" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_missing_programs_are_named_with_their_package(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ImageError, match="mmdebstrap is missing; install it with: apt-get install mmdebstrap debian-"):
        maker.build(config, "python3.13")


def test_an_image_is_current_while_its_recipe_and_tree_are(config: Config) -> None:
    recipe = load_recipe("python3.13")
    entry = ImageEntry("python3.13", "a" * 64, 1, "2026-01-02T03:04:05+00:00", recipe.digest)
    (config.images_dir / entry.digest).mkdir(parents=True)
    store.write_entry(config, entry)
    assert maker.current(config, recipe) == entry
    assert maker.build(config, "python3.13") == entry
    assert maker.current(config, replace(recipe, digest="0" * 64)) is None
    (config.images_dir / entry.digest).rmdir()
    assert maker.current(config, recipe) is None


def test_the_namespaces_root_is_nobody_on_the_host(tmp_path: Path) -> None:
    place = space(tmp_path)
    (place / "secret").write_text("host")
    (place / "secret").chmod(0o600)
    lines: list[str] = []
    with build_namespace(place) as namespace:
        namespace.run(
            ["sh", "-c", "id -u; cat /proc/self/uid_map; touch /tmp/rootfs/made; cat < /dev/null"], lines.append
        )
        with pytest.raises(StepFailedInNamespace, match="Permission denied"):
            namespace.run(["cat", "/tmp/secret"], lines.append)
        with pytest.raises(StepFailedInNamespace, match="Permission denied"):
            namespace.run(["mv", "/tmp/secret", "/tmp/moved"], lines.append)
        with pytest.raises(StepFailedInNamespace, match="Permission denied"):
            namespace.run(["sh", "-c", "echo 1 > /proc/sys/vm/drop_caches"], lines.append)
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(UIDS.start), str(len(UIDS))]
    assert (place / "rootfs/made").stat().st_uid == UIDS.start
    assert processes_of_builds() == []


def sandboxd(settings: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandboxd", "image", *arguments, "--config", str(settings)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_commands_say_what_is_wrong(settings: Path) -> None:
    built = sandboxd(settings, "build", "python2.7")
    assert built.returncode == 1
    known = "nodejs22.x, provided.al2023, python3.11, python3.13"
    assert built.stderr == f"sandboxd: unknown runtime 'python2.7'; known: {known}\n"
    removed = sandboxd(settings, "rm", "python3.13")
    assert removed.returncode == 1
    assert removed.stderr == "sandboxd: there is no image of 'python3.13'; there are: none\n"


def test_commands_show_and_remove(settings: Path, config: Config) -> None:
    recipe = load_recipe("python3.13")
    entry = ImageEntry("python3.13", "a" * 64, 78 << 20, "2026-01-02T03:04:05+00:00", recipe.digest)
    (config.images_dir / entry.digest / "usr").mkdir(parents=True)
    store.write_entry(config, entry)
    assert sandboxd(settings, "list").stdout.splitlines()[1].split() == [
        "python3.13", "a" * 12, "78", "MB", "2026-01-02T03:04:05+00:00",
    ]  # fmt: skip
    assert json.loads(sandboxd(settings, "list", "--output", "json").stdout)["Images"][0]["digest"] == entry.digest
    unchanged = sandboxd(settings, "build", "python3.13")
    assert (unchanged.returncode, unchanged.stderr) == (0, "")
    assert unchanged.stdout.startswith("python3.13 is unchanged: aaaaaaaaaaaa, built 2026-01-02")
    assert json.loads(sandboxd(settings, "build", "python3.13", "--output", "json").stdout)["recipe"] == recipe.digest
    assert sandboxd(settings, "rm", "python3.13").returncode == 0
    assert os.listdir(config.images_dir) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("seq 100; exit 3", "sh failed with status 3\n96\n97\n98\n99\n100"),
        ("echo I: fine; echo 'E: broken pin'; echo more; exit 25", "sh failed with status 25\nE: broken pin"),
    ],
)
def test_a_failed_program_is_told_in_its_own_words(tmp_path: Path, script: str, message: str) -> None:
    with build_namespace(space(tmp_path)) as namespace, pytest.raises(StepFailedInNamespace) as raised:
        namespace.run(["sh", "-c", script], lambda line: None)
    assert str(raised.value) == message
