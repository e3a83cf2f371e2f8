"""Every system call that the profile allows is one that somebody needs: without it, some everyday work is not done."""

from __future__ import annotations

import pyseccomp
import pytest

from sandboxd.builder import seccomp
from tests.conftest import Deployed
from tests.escape.calls import KEPT, NEEDED, PID_1
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.patched import launcher
from tests.support.places import TIME_FACTOR

Run = tuple[str, list[int]]


def run(work: str, calls: str = "") -> Run:
    """A piece of work and the numbers of the calls that it has to do without."""
    return work, [pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, call) for call in calls.split("|") if call]


def done(daemon: Daemon, function: str, runs: list[Run]) -> list[bool]:
    """Which work is done."""
    answers: list[bool] = daemon.call(function, {"runs": runs, "seconds": 1.5 * TIME_FACTOR})
    return answers


def test_every_allowed_call_says_who_needs_it() -> None:
    rules = seccomp.profile()["syscalls"]
    allowed = {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    needed = " ".join(NEEDED.values()).replace("|", " ").split()
    named = [PID_1, *needed, *" ".join(KEPT.values()).split()]
    assert sorted(named) == sorted(allowed)


def test_work_is_done_with_every_call(daemon: Daemon, deployed: Deployed) -> None:
    assert all(done(daemon, deployed("workloads"), [run(work) for work in NEEDED]))


@pytest.mark.parametrize("work", NEEDED)
def test_work_is_not_done_without_any_call_that_it_needs(daemon: Daemon, deployed: Deployed, work: str) -> None:
    needed = NEEDED[work].split()
    answers = done(daemon, deployed("workloads"), [run(work, calls) for calls in needed])
    assert [calls for calls, answer in zip(needed, answers, strict=True) if answer] == []


def test_pid_1_needs_its_call(machine: None) -> None:
    daemon = Daemon()
    daemon.launcher = launcher("tests.escape.left_out:leave_out", f"call: {PID_1}")
    with daemon:
        name = daemon.deploy(packages.load("hello"))
        answer = daemon.invoke(name, {})
        assert answer.status >= 500 or "x-amz-function-error" in answer.headers
