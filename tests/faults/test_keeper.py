"""A keeper that is killed before its rooms are what they are to be takes them along all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.support import inventory
from tests.support.daemon import Daemon
from tests.support.places import TIME_FACTOR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon")


@pytest.mark.parametrize("milliseconds", [0, 30, 100])
def test_rooms_that_were_just_started_do_not_outlive_it(fresh_daemon: Callable[..., Daemon], milliseconds: int) -> None:
    daemon = fresh_daemon()
    others = set(inventory.descendants())
    keeper = psutil.Process(daemon.spawn().pid)
    while len(keeper.children()) < 2:
        time.sleep(0.001)
    time.sleep(milliseconds / 1000)
    rooms = keeper.children()
    os.kill(keeper.pid, signal.SIGKILL)
    assert daemon.process is not None
    daemon.process.wait()
    deadline = time.monotonic() + 10 * TIME_FACTOR
    while left := (set(inventory.descendants()) - others) & set(rooms):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    daemon.start()
    assert daemon.stop() == 0
