"""kill -9 of the builder's helpers: a new generation has them again, and nothing is lost or left.

The router works for a permission, so the daemon runs in a World of its own: its host's rules are not this machine's.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future

import psutil
import pytest

from tests.faults.harness import ANSWER_SECONDS, HITS, Call, Faults, eventually, held_at
from tests.support import inventory
from tests.support.daemon import FUNCTIONS
from tests.support.network import NetworkedDaemon, World, reaches

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts the daemon")

HELPERS = {"router": "sandboxd: router", "templates": "sandboxd: templates"}
REACHED = "8.8.8.8/32:80"


class Helped(Faults):
    """Faults of a daemon with functions that need the helpers."""

    daemon: NetworkedDaemon
    _size = 700

    def find(self, process: str) -> psutil.Process:
        """As of every process; a helper may have a child of its own that is not yet another program."""
        return self._named(HELPERS[process])[0] if process in HELPERS else super().find(process)

    def end(self, process: str, asked: str) -> float:
        """kill -9 of a helper, the builder's end with it; when."""
        HITS[f"helper: {asked}", process] += 1
        builder, now = self.find("builder"), time.monotonic()
        os.kill(self.find(process).pid, signal.SIGKILL)
        self.release()
        eventually(lambda: builder not in inventory.descendants())
        return now

    def ask_for_new_size(self) -> Future[Call]:
        """Invoke a function whose size of /tmp is one that no template is there for."""
        self._size += 1
        configuration = f"{FUNCTIONS}/roomy/configuration"
        assert self.daemon.request("PUT", configuration, {"EphemeralStorage": {"Size": self._size}}).status == 200
        self.daemon.wait_settled("roomy")
        return self.ask(lambda: self.invoke("roomy"))

    def is_as_able_as_before(self, process: str, killed: float) -> None:
        """It serves again, what needs the helpers too, and the rest is as before."""
        self.serves_again(process, killed)
        self.can_do_everything()
        self.is_whole()

    def can_do_everything(self) -> None:
        """What needs the helpers: a new size of /tmp, and a permission."""
        self.ask_for_new_size().result(ANSWER_SECONDS).check(200)
        self.daemon.permit("prober", REACHED)
        assert reaches(self.daemon, "prober")


@pytest.fixture(scope="module")
def helped(alone: None) -> Iterator[Helped]:
    world = World()
    before = world.server.rules(), world.server.links()
    daemon = NetworkedDaemon(world, keep_alive=600)
    faults = Helped(daemon)
    try:
        faults.begin()
        faults.deploy("counter", "roomy")
        faults.deploy("prober", "prober")
        daemon.permit("prober", REACHED)
        assert reaches(daemon, "prober")
        faults.note()  # with a router that is awake
        yield faults
    finally:
        faults.release()
        Faults.end(faults)
        daemon.close()
        after = world.server.rules(), world.server.links()
        world.close()
    assert after == before


@pytest.mark.parametrize("helper", HELPERS)
def test_killed_at_rest(helped: Helped, helper: str) -> None:
    """Twice: the second time, nothing has needed the helper yet, and the router is asleep."""
    helped.can_do_everything()
    assert helped.daemon.world.server.rules()
    helped.serves_again(helper, helped.end(helper, "at rest"))
    assert not helped.daemon.world.server.rules()
    helped.is_as_able_as_before(helper, helped.end(helper, "asleep"))


def test_router_killed_while_it_is_asked(helped: Helped) -> None:
    helped.daemon.permit("prober", REACHED)
    helped.find("router").suspend()
    call = helped.ask(lambda: helped.invoke("prober"))
    eventually(lambda: helped.daemon.environments("prober"))
    killed = helped.end("router", "asked")
    call.result(ANSWER_SECONDS).check()
    helped.is_as_able_as_before("router", killed)


def test_templates_killed_while_they_are_made(helped: Helped) -> None:
    with held_at(helped, "templates: mke2fs"):
        call = helped.ask_for_new_size()
        helped.wait_held()
        killed = helped.end("templates", "asked")
    call.result(ANSWER_SECONDS).check()
    helped.is_as_able_as_before("templates", killed)


def test_mke2fs_killed(helped: Helped) -> None:
    builder = helped.find("builder")
    with held_at(helped, "templates: mke2fs"):
        call = helped.ask_for_new_size()
        helped.wait_held()
        killed = time.monotonic()
        helped.kill("templates: mke2fs", "held")
    call.result(ANSWER_SECONDS).check(500)
    assert builder == helped.find("builder"), "it goes on with the helper that it has"
    helped.is_as_able_as_before("mke2fs", killed)
