"""`sandboxd doctor`: really run; what it tries leaves nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandboxd.cli import checks, probes
from sandboxd.config import Config

STATUSES = {"ok", "warn", "fail"}


def configuration(directory: Path, port: int = 0, **settings: Any) -> Config:
    return Config(data_dir=directory, run_dir=directory, api_listen=("127.0.0.1", port), **settings)


def by_name(config: Config) -> dict[str, checks.Check]:
    return {check.name: check for check in checks.run_all(config)}


def test_every_check_says_what_to_do(tmp_path: Path) -> None:
    found = by_name(configuration(tmp_path))
    assert {
        "root", "python", "kernel", "capabilities", "CAP_SYS_RESOURCE", "namespaces", "proc mount", "mount calls",
        "openat2", "seccomp", "overlay", "ext4", "loop devices", "cgroups", "unified hierarchy", "network tools",
        "user", "images", "image tools", "memory", "disk", "daemon", "api port", "open files",
    } <= set(found)  # fmt: skip
    for check in found.values():
        assert check.status in STATUSES
        assert check.found
        assert bool(check.advice) == (check.status != "ok"), check


def test_table_and_json_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandboxd", "doctor"]
    environment = os.environ | {"SANDBOXD_DATA_DIR": str(tmp_path), "SANDBOXD_API_LISTEN": "127.0.0.1:0"}
    runs = [
        subprocess.run([*command, *options], capture_output=True, text=True, env=environment, timeout=60, check=False)
        for options in ((), ("--output", "json"))
    ]
    result, document = runs[0], json.loads(runs[1].stdout)
    assert runs[1].returncode == result.returncode
    failed = [check for check in document["Checks"] if check["Status"] == "fail"]
    assert document["Failed"] == len(failed)
    assert result.returncode == (1 if failed else 0)
    assert result.stdout.count("FAIL  ") == len(failed)
    for check in document["Checks"]:
        assert set(check) == {"Name", "Status", "Found", "Advice"}


@pytest.mark.skipif(os.geteuid() != 0, reason="tries what needs root")
def test_this_machine_runs_the_daemon(tmp_path: Path) -> None:
    failed = [check for check in checks.run_all(configuration(tmp_path)) if check.status == "fail"]
    assert failed == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_without_root(tmp_path: Path) -> None:
    def as_nobody() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        found = by_name(configuration(tmp_path))
        for name in ("root", "capabilities", "packet filter"):
            assert found[name].status == "fail", found[name]
        assert "CAP_SYS_ADMIN" in found["capabilities"].found

    assert probes.in_child(as_nobody) is None


def test_port_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        check = by_name(configuration(tmp_path, other.getsockname()[1]))["api port"]
    assert check.status == "fail"
    assert "Address already in use" in check.found
    assert "api.listen" in check.advice


def test_images(tmp_path: Path) -> None:
    assert by_name(configuration(tmp_path))["images"].status == "warn"
    (tmp_path / "images").mkdir()
    record = {"runtime": "python3.13", "digest": "0" * 64, "bytes": 75 << 20, "built": "", "recipe": ""}
    (tmp_path / "images" / "python3.13.json").write_text(json.dumps(record))
    assert by_name(configuration(tmp_path))["images"].found == "python3.13 (75 MB)"
    assert "runtimes" not in by_name(configuration(tmp_path))
    served = by_name(configuration(tmp_path, runtimes={"python3.12": "python3.13"}))["runtimes"]
    assert (served.status, served.found) == ("ok", "python3.12 is served by the image of python3.13")
    missing = by_name(configuration(tmp_path, runtimes={"python3.12": "python3.14"}))["runtimes"]
    assert (missing.status, missing.advice) == ("warn", "sandboxd image build python3.14")


def test_a_broken_check_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "python3.13.json").write_text("{")
    found = by_name(configuration(tmp_path))
    assert found["images"].status == "fail"
    assert "open files" in found


def test_missing_user(tmp_path: Path) -> None:
    check = by_name(Config(data_dir=tmp_path, run_dir=tmp_path, user="nosuchuser"))["user"]
    assert (check.status, check.found) == ("fail", "no user and group nosuchuser")
    assert "useradd --system" in check.advice


def test_probe_reports_what_failed() -> None:
    def refuse() -> None:
        raise probes.ProbeFailed("mount proc: Operation not permitted")

    assert probes.in_child(refuse) == "mount proc: Operation not permitted"
    assert probes.in_child(lambda: os._exit(3)) == f"ended with status {3 << 8}"
    assert probes.in_child(lambda: None) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="tries what needs root")
def test_probes_leave_nothing() -> None:
    def machine() -> tuple[list[str], list[str]]:
        return Path("/proc/self/mountinfo").read_text().splitlines(), sorted(os.listdir("/sys/class/net"))

    before = machine()
    for probe in (probes.namespaces, probes.proc_mount, probes.mount_calls, probes.openat2):
        assert probes.in_child(probe) is None
    assert machine() == before
