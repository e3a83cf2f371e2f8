"""Settings that change what functions meet: limits one by one, and the profile of today's AWS."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from tests.support import packages
from tests.support.daemon import Answer, Daemon
from tests.support.places import TIME_FACTOR

NewDaemon = Callable[..., Daemon]


def report(answer: Answer) -> dict[str, str]:
    line = next(line for line in answer.log.splitlines() if line.startswith("REPORT "))
    return dict(part.split(": ", 1) for part in line.split("\t") if ": " in part)


def number(text: str) -> float:
    return float(re.match(r"[0-9.]+", text)[0])


def test_the_profile_of_today(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon(limits__profile="current")
    daemon.start()
    name = daemon.deploy(packages.load("sleeps"), MemorySize=1769)
    answer = daemon.invoke(name, {"seconds": 0.23})
    fields = report(answer)
    total = number(fields["Duration"]) + number(fields["Init Duration"])
    assert total <= number(fields["Billed Duration"]) < total + 2, "by the millisecond, the init phase too"
    assert daemon.create(packages.load("hello"), "large", MemorySize=10_240).status == 201
    assert daemon.create(packages.load("hello"), "larger", MemorySize=10_241).status == 400


def test_the_init_phase_has_a_limit_of_its_own(fresh_daemon: NewDaemon) -> None:
    limit = math.ceil(TIME_FACTOR)
    daemon = fresh_daemon(limits__init_seconds=limit)
    daemon.start()
    function = packages.load("slow_import")
    quick = daemon.deploy(function, "quick", Environment={"Variables": {"SECONDS": "0.2"}})
    assert number(report(daemon.invoke(quick))["Init Duration"]) >= 200
    late = daemon.deploy(function, "late", Environment={"Variables": {"SECONDS": str(1.5 * limit)}}, Timeout=5 * limit)
    answer = daemon.invoke(late)
    assert "x-amz-function-error" not in answer.headers, answer
    assert number(report(answer)["Duration"]) >= 1500 * limit, "run again as part of the invocation, within its time"
    assert f"INIT_REPORT Init Duration: {limit}0" in daemon.cli("logs", late).stdout
    never = daemon.deploy(function, "never", Environment={"Variables": {"SECONDS": "900"}}, Timeout=2 * limit)
    answer = daemon.invoke(never)
    assert answer.json["errorType"] == "Sandbox.Timedout"
    assert answer.json["errorMessage"].endswith(f"Error: Task timed out after {2 * limit}.00 seconds")


def test_one_limit_by_itself(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon(limits__sync_payload_bytes=1000, limits__timeout_seconds=5, limits__zip_bytes=1000)
    daemon.start()
    echo = packages.load("echo")
    name = daemon.deploy(echo, Timeout=5)
    assert daemon.invoke(name, "x" * 998).status == 200
    assert daemon.invoke(name, "x" * 999).status == 413
    assert daemon.create(echo, "longer", Timeout=6).status == 400
    answer = daemon.create(packages.load("markdown"), "too-large", Timeout=5)
    assert (answer.status, answer.message) == (413, "Zipped size must be smaller than 1000 bytes")
