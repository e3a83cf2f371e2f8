"""The machine's own daemon, as scripts/install laid it: where it is, and commands that must succeed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil
import pytest

CGROUPS = Path("/sys/fs/cgroup")
UNIT = CGROUPS / "system.slice" / "sandboxd.service"
UNITS = ("sandboxd.socket", "sandboxd.service")

only_in_a_machine_of_its_own = pytest.mark.skipif(
    os.environ.get("TEST_UNIT") != "1", reason="ends the machine's own daemon: scripts/vm-test runs it"
)


def run(*command: str | Path) -> str:
    """What a command prints; it must end with 0."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done
    return done.stdout.strip()


def systemctl(verb: str, *units: str) -> None:
    """Have systemd do something with the service, or with other units."""
    run("systemctl", verb, *(units or ("sandboxd.service",)))


def shown(name: str) -> str:
    """A property of the service, in systemd's words."""
    return run("systemctl", "show", "--property", name, "--value", "sandboxd.service")


def assert_no_kernel_objects() -> None:
    """No process, mount, loop device, link or control group of the daemon is there."""
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if line.startswith("sandboxd: ") or "/var/runtime/bootstrap" in line]
    assert "sandboxd" not in Path("/proc/self/mountinfo").read_text()
    assert not list(Path("/sys/block").glob("loop*/loop/backing_file"))
    assert not list(Path("/sys/class/net").glob("sbx-*"))
    assert not list(CGROUPS.rglob("*sandboxd-main*")) and not UNIT.exists()
