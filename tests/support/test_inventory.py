"""The inventory sees what it is there to see: an inventory that is blind would let every leak pass."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import inventory
from tests.support.daemon import Daemon
from tests.support.inventory import Inventory
from tests.support.places import RUNS

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts and links"),
    pytest.mark.usefixtures("alone"),
]


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def test_it_sees_what_is_left_and_that_it_is_gone(tmp_path: Path) -> None:
    before = Inventory.take()
    image = RUNS / str(os.getpid()) / "loop.img"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(bytes(1 << 20))
    group = next(path for path in Path("/sys/fs/cgroup").iterdir() if (path / "cgroup.procs").exists()) / "sandboxd-zzz"
    inventory.STARTED.add("zzz")
    with contextlib.ExitStack() as undo:
        run("mount", "-t", "tmpfs", "inventory-test", tmp_path)
        undo.callback(run, "umount", tmp_path)
        run("ip", "link", "add", "sbxinv0", "type", "veth", "peer", "name", "sbxinv1")
        undo.callback(run, "ip", "link", "del", "sbxinv0")
        run("ipset", "create", "sbxinv", "hash:ip")
        undo.callback(run, "ipset", "destroy", "sbxinv")
        run("iptables-legacy", "-N", "SBXINV")
        undo.callback(run, "iptables-legacy", "-X", "SBXINV")
        loop = subprocess.check_output(["losetup", "-f", "--show", image], text=True).strip()
        undo.callback(run, "losetup", "-d", loop)
        group.mkdir()
        undo.callback(group.rmdir)
        process = subprocess.Popen(["unshare", "-n", "sleep", "60"])
        undo.callback(process.wait)
        undo.callback(process.kill)
        while not Path(f"/proc/{process.pid}/cmdline").read_text().startswith("sleep"):
            time.sleep(0.01)
        found = Inventory.take().more_than(before)
        assert set(found) == {"mounts", "links", "sets", "rules", "loops", "cgroups", "processes", "namespaces"}
        assert [name.split("@")[0] for name in found["links"]] == ["sbxinv0", "sbxinv1"]
        assert found["sets"] == ["sbxinv"] and found["cgroups"] == [str(group)]
        assert len(found["namespaces"]) == 1 and len(found["processes"]) == 1 and len(found["mounts"]) == 1
        with pytest.raises(AssertionError, match="sbxinv"):
            inventory.assert_nothing_left(before, seconds=0)
    inventory.assert_nothing_left(before)


def test_orphans_are_seen_and_collected() -> None:
    before = Inventory.take()
    done = subprocess.run(
        ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    pid = int(done.stdout)
    assert any(line.startswith(f"{pid} ") for line in Inventory.take().more_than(before)["processes"])
    os.kill(pid, 9)
    inventory.assert_nothing_left(before)
    assert not os.path.exists(f"/proc/{pid}")


def test_rows_of_an_instance_that_is_not_ours_do_not_count() -> None:
    inventory.STARTED.add("x1y2z")
    ours = {"-A FORWARD -i sbx-x1y2z -j X", "-A FORWARD -i other -j X", "-A SANDBOXD-x1y2z -i sbx-x1y2 -j X"}
    theirs = {"-A FORWARD -i sbx-x1y2 -j X", "/sys/fs/cgroup/memory/sandboxd-x1y2/e", "-N SANDBOXD-x1y2"}
    assert inventory._ours(ours | theirs) == ours


def test_instances_of_tests_have_names_of_their_own() -> None:
    daemons = [Daemon() for _ in range(3)]
    assert len({daemon.instance for daemon in daemons}) == 3
    for daemon in daemons:
        daemon.close()
