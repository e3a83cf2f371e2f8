"""The daemon as processes: what is left when it ends, however it ends; draining; side by side."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.end_to_end.test_life_of_a_function import busy, eventually
from tests.support import inventory, packages
from tests.support.daemon import Daemon
from tests.support.inventory import Inventory, assert_nothing_left
from tests.support.places import TIME_FACTOR

NewDaemon = Callable[..., Daemon]
pytestmark = pytest.mark.usefixtures("alone")


def working(daemon: Daemon) -> str:
    """Give a daemon environments in several states; the name of a counting function."""
    name = daemon.deploy(packages.load("counter"))
    sleeps = daemon.deploy(packages.load("sleeps"))
    caller = daemon.deploy(packages.load("evaluate"), "with-egress")
    rules = {"AllowEgress": ["192.0.2.0/24:443"], "AllowInvoke": True}
    assert daemon.admin("PUT", f"/functions/{caller}/policy", rules).status == 200
    daemon.wait_settled(caller)
    assert daemon.call(name)["count"] == 1
    assert daemon.call(caller, {"code": "result = 1"}) == 1
    with ThreadPoolExecutor(2) as pool:
        assert [a.status for a in pool.map(lambda _: daemon.invoke(sleeps, {"seconds": 0.2}), range(2))] == [200, 200]
    return name


def test_nothing_is_left_after_a_stop(fresh_daemon: NewDaemon) -> None:
    before = Inventory.take()
    daemon = fresh_daemon()
    daemon.start()
    working(daemon)
    during = Inventory.take()
    kinds = set(during.more_than(before))
    assert {"processes", "namespaces", "loops", "cgroups"} <= kinds, "the inventory sees what a daemon makes"
    assert "mounts" not in kinds, "no mount of a sandbox is ever in the host's table"
    assert daemon.stop() == 0
    assert_nothing_left(before)


@pytest.mark.parametrize("room", ["builder", "service"])
def test_a_killed_room_comes_back_and_leaves_nothing(fresh_daemon: NewDaemon, room: str) -> None:
    before = Inventory.take()
    daemon = fresh_daemon()
    daemon.start()
    name = working(daemon)
    pids = {daemon.room(which).pid for which in ("builder", "service")}
    daemon.kill(room)
    eventually(lambda: not any(psutil.pid_exists(pid) and alive(pid) for pid in pids))
    daemon.wait_ready()
    assert not daemon.environments()
    assert daemon.call(name)["count"] == 1
    assert daemon.stop() == 0
    assert_nothing_left(before)


def test_a_killed_keeper_takes_all_with_it(fresh_daemon: NewDaemon) -> None:
    before, others = Inventory.take(), set(inventory.descendants())
    daemon = fresh_daemon()
    daemon.start()
    name = working(daemon)
    daemon.kill("keeper")
    eventually(lambda: set(inventory.descendants()) <= others, seconds=10)
    left = json.loads(daemon.cli("gc", "--dry-run", "--output", "json").stdout)
    assert left and not any(row["removed"] for row in left)
    done = daemon.cli("gc")
    assert done.returncode == 0, done.stderr
    assert json.loads(daemon.cli("gc", "--dry-run", "--output", "json").stdout) == []
    assert_nothing_left(before)
    daemon.start()
    assert daemon.call(name)["count"] == 1
    assert daemon.stop() == 0
    assert_nothing_left(before)


def test_the_next_start_clears_what_a_killed_keeper_left(fresh_daemon: NewDaemon) -> None:
    before = Inventory.take()
    daemon = fresh_daemon()
    daemon.start()
    name = working(daemon)
    daemon.kill("keeper")
    daemon.start()
    groups = [row for row in daemon.environments() if row]
    assert not groups and daemon.call(name)["count"] == 1
    assert daemon.stop() == 0
    assert_nothing_left(before)


def test_killed_while_it_is_busy(fresh_daemon: NewDaemon) -> None:
    before = Inventory.take()
    daemon = fresh_daemon()
    daemon.start()
    sleeps = daemon.deploy(packages.load("sleeps"))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(daemon.invoke, sleeps, {"seconds": 20}) for _ in range(4)]
        eventually(lambda: len(daemon.environments(sleeps)) == 4)
        daemon.kill("builder")
        for one in asked:
            with pytest.raises(Exception):  # noqa: B017  # a reset connection or an incomplete answer, by moment
                assert one.result().status == 200
    daemon.wait_ready()
    assert daemon.invoke(sleeps, {"seconds": 0}).status == 200
    assert daemon.stop() == 0
    assert_nothing_left(before)


def test_gc_leaves_a_living_daemon_alone(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    daemon.start()
    name = working(daemon)
    done = daemon.cli("gc", "--output", "json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert daemon.call(name)["count"] == 2


def test_many_environments_come_and_go_and_leave_nothing(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon(keep_alive=1)
    daemon.start()
    name = daemon.deploy(packages.load("sleeps"))

    def crowds() -> None:
        for _ in range(3):
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: daemon.invoke(name, {"seconds": 0.1}), range(16)))
            assert {answer.status for answer in answers} == {200}
            eventually(lambda: not daemon.environments(), seconds=10)

    crowds()
    time.sleep(3)  # as many stems are made as such crowds take; after the next ones they are no more, or become fewer
    before = Inventory.take().counts()
    open_before = {room: len(inventory.open_files(daemon.room(room).pid)) for room in ("builder", "service")}
    crowds()
    # Spare environments come and go too, so it is the numbers that have to be as before.
    eventually(lambda: all(count <= before[kind] for kind, count in Inventory.take().counts().items()), seconds=90)
    for room, count in open_before.items():
        now = inventory.open_files(daemon.room(room).pid)
        assert len(now) <= count + 1, now
    for directory in ("volumes", "code"):
        assert not [p.name for p in (daemon.data_dir / directory).iterdir() if p.name.startswith(".")]


def test_sigterm_lets_requests_in_flight_end(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    daemon.start()
    name = daemon.deploy(packages.load("sleeps"))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(daemon.invoke, name, {"seconds": 1.5}) for _ in range(2)]
        eventually(lambda: len([r for r in daemon.environments(name) if r["State"].upper() == "BUSY"]) == 2)
        assert daemon.process is not None
        daemon.process.terminate()
        began = time.monotonic()
        answers = [one.result() for one in asked]
    assert [answer.json["slept"] for answer in answers] == [1.5, 1.5]
    assert daemon.process.wait(10 * TIME_FACTOR) == 0
    assert time.monotonic() - began < 6 * TIME_FACTOR


def test_a_drain_has_an_end(fresh_daemon: NewDaemon) -> None:
    before = Inventory.take()
    daemon = fresh_daemon(drain=1)
    daemon.start()
    name = daemon.deploy(packages.load("sleeps"))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(daemon.invoke, name, {"seconds": 25})
        eventually(lambda: busy(daemon, name))
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 8 * TIME_FACTOR
        assert (asked.result().status, asked.result().code) == (500, "ServiceException")
        assert asked.result().message == "The service stopped before the invocation ended."
    assert_nothing_left(before)


def test_two_daemons_side_by_side(fresh_daemon: NewDaemon) -> None:
    before = Inventory.take()
    one, other = fresh_daemon(), fresh_daemon()
    one.start()
    other.start()
    names = [daemon.deploy(packages.load("counter")) for daemon in (one, other)]
    assert names[0] == names[1]
    seen = [daemon.call(names[0]) for daemon in (one, other, one)]
    assert [row["count"] for row in seen] == [1, 1, 2]
    assert seen[0]["identity"] == seen[2]["identity"] != seen[1]["identity"]
    one.kill("keeper")
    assert one.cli("gc").returncode == 0
    assert other.call(names[1])["count"] == 2, "neither the death nor the gc of one touches the other"
    other.stop()
    assert_nothing_left(before)


def alive(pid: int) -> bool:
    try:
        return os.path.exists(f"/proc/{pid}") and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
