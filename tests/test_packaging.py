"""Locks, scripts, unit file, wheel: what a new machine is laid from."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sandboxd

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted(
    path
    for directory in ("scripts", ".ci")
    for path in (REPOSITORY / directory).iterdir()
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
)
ENTRY = re.compile(
    r"(?P<name>[a-z0-9._-]+)==(?P<version>\S+) \\\n(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)


def locked(file: str) -> dict[str, str]:
    """Names and versions; whatever in the file is neither a whole entry nor a comment is an error."""
    text = (REPOSITORY / file).read_text()
    assert re.sub(r"(?m)^ *#.*\n", "", ENTRY.sub("", text)) == ""
    return {match["name"]: match["version"] for match in ENTRY.finditer(text)}


@pytest.mark.parametrize(
    ("file", "requirements"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-test.lock", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]),
    ],
)
def test_lock_pins_every_requirement_within_its_range(file: str, requirements: list[str]) -> None:
    versions = locked(file)
    for requirement in map(Requirement, requirements):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked to {version}"


def test_the_tests_lock_is_the_daemons_and_more() -> None:
    daemon, tests = locked("requirements.lock"), locked("requirements-test.lock")
    assert daemon.items() < tests.items()


def test_locks_name_no_index() -> None:
    for file in ("requirements.lock", "requirements-test.lock"):
        text = (REPOSITORY / file).read_text()
        assert "://" not in text
        assert "--index" not in text
        assert "--find-links" not in text


def test_version_is_said_once() -> None:
    assert PROJECT["version"] == sandboxd.__version__


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_programs(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_all_scripts_are_there() -> None:
    assert {"provision", "install", "quickstart", "check", "test", "vm-test", "lock", "run"} <= {
        script.name for script in SCRIPTS
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("script", ["provision", "install", "quickstart", "test", "vm-test"])
def test_scripts_that_need_root_say_so(script: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # the checkout may be closed to other users
        os.chmod(directory, 0o755)
        shutil.copytree(REPOSITORY / "scripts", Path(directory, "scripts"))
        done = subprocess.run(
            [Path(directory, "scripts", script)],
            capture_output=True, text=True, check=False, timeout=60, preexec_fn=_become_nobody,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: has to be run as root: sudo ")


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


@pytest.mark.parametrize("script", ["provision", "install"])
def test_an_unknown_option_is_refused(script: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts" / script, "--nonsense"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""


def read_unit(name: str) -> dict[str, dict[str, str]]:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    text = (REPOSITORY / "scripts" / name).read_text()
    unit.read_string(text.replace("ListenStream=@UNIX@", "ListenUnix=@UNIX@"))  # the parser takes no key twice
    return {section: dict(unit[section]) for section in unit.sections()}


def test_the_service_leaves_proc_and_dev_whole() -> None:
    service = read_unit("sandboxd.service")["Service"]
    expected = {
        "Type": "notify",
        "NotifyAccess": "main",
        "Delegate": "yes",
        "KillMode": "mixed",
        "Restart": "on-failure",
        "ExecStart": "/opt/sandboxd/current/bin/sandboxd daemon",
    }
    assert expected.items() <= service.items()
    assert [key for key in service if key.startswith(("Protect", "Private", "Proc", "ReadOnly", "Inaccessible"))] == []


def test_the_sockets_are_systemds_and_not_everybodys() -> None:
    socket = read_unit("sandboxd.socket")["Socket"]
    assert socket["SocketMode"] == "0660"
    assert socket["SocketGroup"] == "@GROUP@"
    assert "sandboxd.socket" in read_unit("sandboxd.service")["Unit"]["Requires"].split()


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")
def test_vagrant_takes_the_vagrantfile(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "Vagrantfile", tmp_path)
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=tmp_path, env=os.environ | {"VAGRANT_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "validated successfully" in done.stdout


def test_wheel_carries_recipes_and_profiles(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
    [wheel] = tmp_path.glob("sandboxd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = archive.read(f"sandboxd-{sandboxd.__version__}.dist-info/entry_points.txt").decode()
    assert "sandboxd = sandboxd.__main__:main" in points
    for directory, inside in (("sandboxd", "sandboxd"), ("rootfs", "sandboxd/_rootfs")):
        for path in (REPOSITORY / directory).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{inside}/{path.relative_to(REPOSITORY / directory)}" in names
    assert not [name for name in names if name.startswith(("tests/", "scripts/"))]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []
