"""Fixtures of the whole suite: running daemons, deployed functions, and the machine's inventory around everything."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.support import inventory, packages
from tests.support.daemon import Daemon
from tests.support.moto import Moto
from tests.support.places import RUNS, TIME_FACTOR

Deployed = Callable[..., str]

# What a shell starts in its background ignores it, and so would everything that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long to fuzz: the soak asks for more. Where AWS's recorded answers are: without them none are played."""
    parser.addoption("--fuzz-cases", type=int, metavar="N", help="cases of each fuzz test (2,000)")
    parser.addoption("--aws-snapshots", metavar="DIR", help="recorded answers of AWS, for tests/aws")


@pytest.fixture(scope="session", autouse=True)
def machine() -> Iterator[None]:
    """After the whole suite the machine holds as many kernel objects as before."""
    if os.geteuid() != 0:
        yield
        return
    inventory.adopt_orphans()
    before = inventory.Inventory.take()
    yield
    inventory.assert_nothing_left(before)
    shutil.rmtree(RUNS / str(os.getpid()), ignore_errors=True)


@pytest.fixture(scope="session")
def _daemon(machine: None) -> Iterator[Daemon]:
    with Daemon() as running:
        yield running


@pytest.fixture
def daemon(_daemon: Daemon) -> Iterator[Daemon]:
    """The daemon that most tests share; every test leaves it as healthy as it was."""
    yield _daemon
    assert_healthy(_daemon)


@pytest.fixture(scope="module")
def alone(_daemon: Daemon) -> Iterator[None]:
    """No other daemon of this test run lives meanwhile, so that an inventory shows the test's own."""
    _daemon.stop()
    yield
    _daemon.start()


@pytest.fixture
def fresh_daemon(machine: None) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons of a test's own, with settings of its own (`limits__concurrency=2`); not yet started."""
    made: list[Daemon] = []

    def make(**settings: Any) -> Daemon:
        made.append(Daemon(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def deployed(daemon: Daemon) -> Iterator[Deployed]:
    """Deploys real functions for one test and removes them after it: `deployed("hello", Timeout=1)` is a name."""
    names: list[str] = []

    def deploy(function: str, name: str | None = None, *, runtime: str | None = None, **members: Any) -> str:
        about = packages.load(function, runtime)
        names.append(daemon.deploy(about, name or f"{about.name}-{len(names)}", **members))
        return names[-1]

    yield deploy
    for name in names:
        daemon.delete(name)


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """S3, SQS and SNS on loopback; whoever uses them has buckets and queues of its own names."""
    with Moto() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test shows what the daemons wrote."""
    report = yield
    if report.failed:
        for daemon in Daemon.open:
            report.sections.append((f"log of the daemon {daemon.instance} (its end)", daemon.log()[-4000:]))
    return report


def assert_healthy(daemon: Daemon) -> None:
    """The daemon answers, its rooms live, and every environment comes to rest."""
    status = daemon.admin("GET", "/status")
    assert status.status == 200, status
    for room in ("keeper", "builder", "service"):
        assert daemon.room(room).is_running()
    deadline = time.monotonic() + 10 * TIME_FACTOR
    while rows := [row for row in daemon.environments() if row["State"] not in ("Idle", "Frozen")]:
        assert time.monotonic() < deadline, rows
        time.sleep(0.02)
    assert "Traceback" not in daemon.log(), daemon.log()
