"""`sandboxd uninstall` where systemd runs the units: every trace goes, the data when asked, and an install works again.

The machine has no network: scripts/vm-test tells pip where the packages lie.
"""

from __future__ import annotations

import json
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY
from tests.systemd.installed import UNIT, UNITS, assert_no_kernel_objects, only_in_a_machine_of_its_own, run, shown

pytestmark = only_in_a_machine_of_its_own

DATA = Path("/var/lib/sandboxd")
INSTALL = REPOSITORY / "scripts" / "install"
MANUAL = Path("/usr/local/share/man/man1")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
NOT_ITS_OWN = ("/srv", "/tmp", "/var/cache/sandboxd-tests")  # the checkout, what tests write, the images of the tests


@pytest.fixture(autouse=True)
def installation() -> Iterator[None]:
    """Everything behind this test finds an installation, its user, and the images of the tests."""
    kept = DATA.with_name("images-kept")
    run("cp", "-al", DATA / "images", kept)
    yield
    run(INSTALL)
    run("cp", "-al", f"{kept}/.", DATA / "images")
    shutil.rmtree(kept)


def _traces() -> list[str]:
    """Files and directories with its name, whatever is inside them, and its account."""
    pruned = [word for path in NOT_ITS_OWN for word in ("-path", path, "-prune", "-o")]
    found = run("find", "/", "/run", "/dev/shm", "-xdev", *pruned, "-name", "*sandboxd*", "-print", "-prune").split()
    return sorted(found) + [account.pw_name for account in pwd.getpwall() if account.pw_name == "sandboxd"]


def _assert_gone(*but: str) -> None:
    assert _traces() == sorted(but, key=lambda name: (name[0] != "/", name))
    assert_no_kernel_objects()
    assert "sandboxd" not in run("iptables-save").lower() and "sbx-" not in run("iptables-save")
    for unit in UNITS:
        assert run("systemctl", "show", "--property", "LoadState", "--value", unit) == "not-found"


def _uninstall(*options: str) -> list[dict[str, object]]:
    return list(json.loads(run("sandboxd", "uninstall", "--yes", "--output", "json", *options)))


def test_every_trace_goes_and_the_data_only_when_asked(tmp_path: Path) -> None:
    run(INSTALL)
    forwarding = FORWARDING.read_text()
    (tmp_path / "app.py").write_text("def handler(event, context):\n    return event\n")
    run(
        "sandboxd", "function", "create", "kept", "--runtime", "python3.13", "--handler", "app.handler",
        "--dir", str(tmp_path), "--timeout", "300", "--allow-egress", "192.0.2.0/24:443",
    )  # fmt: skip
    assert run("sandboxd", "invoke", "kept", "--payload", "1") == "1"
    assert "SANDBOXD-main" in run("iptables-save") and (UNIT / "sandboxd-main").exists()

    planned = {str(row["name"]) for row in _uninstall("--dry-run")}
    assert {"/opt/sandboxd", "/usr/local/bin/sandboxd", f"{MANUAL}/sandboxd*.1", "/run/sandboxd"} <= planned
    assert str(DATA) not in planned
    assert shown("ActiveState") == "active"
    assert ".SH NAME" in (MANUAL / "sandboxd-invoke.1").read_text()

    assert all(row["removed"] for row in _uninstall())
    _assert_gone("/etc/sandboxd", str(DATA), "sandboxd")
    assert FORWARDING.read_text() == forwarding

    run(INSTALL)
    assert run("sandboxd", "invoke", "kept", "--payload", "2") == "2"

    assert all(row["removed"] for row in _uninstall("--data"))
    _assert_gone()

    run(INSTALL)
    assert json.loads(run("sandboxd", "function", "list", "--output", "json"))["Functions"] == []
