"""`sandboxd uninstall` removes every trace, asks first, leaves others' things alone, and can be run twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.cli import uninstall
from sandboxd.cli.uninstall import Installation
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.inventory import Inventory, assert_nothing_left

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon"),
    pytest.mark.usefixtures("alone"),
]


def test_every_trace_goes(fresh_daemon: Callable[..., Daemon]) -> None:
    before = Inventory.take()
    daemon = fresh_daemon()
    daemon.start()
    name = daemon.deploy(packages.load("evaluate"), "with-egress")
    assert daemon.admin("PUT", f"/functions/{name}/policy", {"AllowEgress": ["192.0.2.0/24:443"]}).status == 200
    daemon.wait_settled(name)
    assert daemon.call(name, {"code": "result = 1"}) == 1
    refused = daemon.cli("uninstall", "--yes", "--data")
    assert refused.returncode == 1 and "runs; stop it first" in refused.stderr, "it lives, and was not installed"
    assert daemon.call(name, {"code": "result = 2"}) == 2
    daemon.kill("keeper")
    planned = json.loads(daemon.cli("uninstall", "--dry-run", "--data", "--output", "json").stdout)
    assert {"cgroup", "files"} <= {row["kind"] for row in planned}
    assert not any(row["removed"] for row in planned) and daemon.data_dir.exists()
    assert daemon.cli("uninstall", "--data", payload=b"n\n").returncode == 1 and daemon.data_dir.exists()
    foreign = daemon.data_dir / "holiday.jpg"
    foreign.write_bytes(b"")
    refused = daemon.cli("uninstall", "--yes", "--data")
    assert refused.returncode == 1 and "holiday.jpg is not sandboxd's" in refused.stderr and daemon.run_dir.exists()
    foreign.unlink()
    kept = daemon.cli("uninstall", "--yes")
    assert kept.returncode == 0 and (daemon.data_dir / "service").exists() and not daemon.run_dir.exists(), kept
    done = daemon.cli("uninstall", "--yes", "--data")
    assert done.returncode == 0 and not daemon.data_dir.exists(), done
    assert_nothing_left(before)
    again = daemon.cli("uninstall", "--yes", "--data")
    assert (again.returncode, again.stdout) == (0, "nothing is there\n")


def test_an_installation_goes_with_its_command(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    manual = installation.pages.parent
    for directory in (installation.prefix / "releases/1/bin", installation.link.parent, tmp_path / "run", manual):
        directory.mkdir(parents=True)
    (manual / "sandboxd-invoke.1").symlink_to(installation.prefix / "current/share/man/man1/sandboxd-invoke.1")
    (manual / "sandboxd-other.1").symlink_to("/elsewhere")
    (manual / "sandboxd-theirs.1").touch()
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in ("sandboxd.service", "sandboxd.socket", "other.service"):
        (units / unit).touch()
    installation.link.symlink_to(installation.prefix / "current/bin/sandboxd")
    assert installation.obstacles() == []
    assert [page.name for page in installation.manual()] == ["sandboxd-invoke.1"]
    installation.remove_manual()
    for path in installation.paths():
        uninstall._remove(path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())
    theirs = [f"usr/local/share/man/man1/sandboxd-{name}.1" for name in ("other", "theirs")]
    assert left == ["etc/systemd/system/other.service", *theirs] and not installation.prefix.exists()
    assert installation.paths() == []


def test_what_others_put_there_is_in_the_way(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.link.parent.mkdir(parents=True)
    installation.prefix.mkdir(parents=True)
    installation.link.write_text("#!/bin/sh\n")
    assert installation.obstacles() == [
        f"{installation.link} is not the link of {installation.prefix}", f"{installation.prefix} has no releases"
    ]  # fmt: skip
    assert not installation.is_ours()
