"""Environments: reused by their own function version only, limited in number, frozen when idle, ended after a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Deployed
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.daemon import Answer, Daemon

UNIFIED = next(
    Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line
)


def test_one_environment_serves_one_after_another(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("counter")
    seen = [daemon.call(name) for _ in range(5)]
    assert [row["count"] for row in seen] == [1, 2, 3, 4, 5]
    assert len({row["identity"] for row in seen}) == 1


def test_never_two_requests_at_once_in_one_environment(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("sleeps")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: daemon.call(name, {"seconds": 0.5}), range(4)))
    assert len({answer["identity"] for answer in answers}) == 4
    assert len(daemon.environments(name)) == 4


def test_functions_never_share(daemon: Daemon, deployed: Deployed) -> None:
    names = [deployed("counter", f"twin-{n}") for n in range(3)]
    seen = [daemon.call(name) for _ in range(2) for name in names]
    assert len({row["identity"] for row in seen}) == 3
    assert [row["count"] for row in seen] == [1, 1, 1, 2, 2, 2]


def frozen(daemon: Daemon) -> int:
    """How many of the daemon's control groups are frozen, as the kernel tells it."""
    base = UNIFIED / f"sandboxd-{daemon.instance}"
    return sum("frozen 1" in (group / "cgroup.events").read_text() for group in base.iterdir() if group.is_dir())


def test_idle_environments_are_frozen(fresh_daemon: Callable[..., Daemon]) -> None:
    daemon = fresh_daemon()
    daemon.start()
    name = daemon.deploy(packages.load("ticker"))
    first = daemon.call(name, {"seconds": 0.2})
    eventually(lambda: frozen(daemon) == 1)
    time.sleep(1)
    second = daemon.call(name, {})
    assert second["monotonic"] - first["monotonic"] > 1
    assert second["ticks"] < 80, "a background thread gets no time between invocations"
    assert first["ticks"] <= second["ticks"]


def test_the_limit_of_concurrency(fresh_daemon: Callable[..., Daemon]) -> None:
    daemon = fresh_daemon(limits__concurrency=2)
    daemon.start()
    name = daemon.deploy(packages.load("sleeps"))
    hello = daemon.deploy(packages.load("hello"))

    def ask(_: int) -> Answer:
        return daemon.invoke(name, {"seconds": 1})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429]
    refused = next(answer for answer in answers if answer.status == 429)
    assert (refused.code, refused.message) == ("TooManyRequestsException", "Rate Exceeded.")
    assert refused.json["Reason"] == "ConcurrentInvocationLimitExceeded"
    assert daemon.invoke(hello).status == 200, "the limit counts what runs, not what idles"


def test_idle_environments_end_after_keep_alive(fresh_daemon: Callable[..., Daemon]) -> None:
    daemon = fresh_daemon(keep_alive=1)
    daemon.start()
    name = daemon.deploy(packages.load("counter"))
    first = daemon.call(name)
    time.sleep(0.6)
    assert daemon.call(name) == {**first, "count": 2}, "each use begins the time anew"
    time.sleep(0.6)
    assert len(daemon.environments(name)) == 1
    eventually(lambda: not daemon.environments(name), seconds=3)
    assert frozen(daemon) == 0
    assert daemon.call(name)["count"] == 1


def test_what_ps_and_status_tell(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("counter", MemorySize=192)
    for _ in range(3):
        daemon.invoke(name)
    row = daemon.environments(name)[0]
    assert (row["Version"], row["MemorySize"], row["Invocations"]) == ("$LATEST", 192, 3)
    assert 0 < row["MemoryUsedMB"] < 192 and row["AgeSeconds"] >= row["IdleSeconds"] >= 0
    status = daemon.admin("GET", "/status").json
    assert (status["Instance"], status["AccountId"], status["Auth"]) == (daemon.instance, "000000000000", "sigv4")
    assert status["Environments"] == len(daemon.environments())
    done = daemon.cli("ps")
    assert done.returncode == 0 and name in done.stdout
    done = daemon.cli("status")
    assert done.returncode == 0 and daemon.instance in done.stdout


@pytest.mark.parametrize("memory", [128, 1024])
def test_memory_in_the_report_is_without_page_cache(daemon: Daemon, deployed: Deployed, memory: int) -> None:
    name = deployed("tmp_writer", MemorySize=memory)
    answer = daemon.invoke(name, {"mb": 100, "keep": True})
    report = next(line for line in answer.log.splitlines() if line.startswith("REPORT "))
    fields = dict(part.split(": ", 1) for part in report.split("\t") if ": " in part)
    assert fields["Memory Size"] == f"{memory} MB"
    assert 2 < int(fields["Max Memory Used"].removesuffix(" MB")) < 80
    billed, duration = int(fields["Billed Duration"].removesuffix(" ms")), float(fields["Duration"].removesuffix(" ms"))
    assert billed % 100 == 0 and billed >= duration
