"""Reserved and provisioned concurrency with real environments: what is one's own is there, what is not is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.daemon import Answer, Daemon

OWN, COMMON = "ReservedFunctionConcurrentInvocationLimitExceeded", "ConcurrentInvocationLimitExceeded"
LOOK = "import os; result = [os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'], os.environ['AWS_LAMBDA_FUNCTION_VERSION']]"


@pytest.fixture(scope="module")
def small(machine: None) -> Iterator[Daemon]:
    """A daemon for four invocations at one time."""
    settings = {"limits__concurrency": 4, "limits__unreserved_concurrency": 1}
    with Daemon(**settings, keep_alive=1) as running:
        yield running


@pytest.fixture
def deploy(small: Daemon) -> Iterator[Callable[..., str]]:
    names: list[str] = []

    def deploy(function: str, **members: Any) -> str:
        name = f"{function.replace('_', '-')}-{len(names)}"
        names.append(small.deploy(packages.load(function), name, **members))
        return names[-1]

    yield deploy
    for name in names:
        small.delete(name)


def client(daemon: Daemon) -> Any:
    return daemon.lambda_client


def reserve(daemon: Daemon, name: str, number: int) -> None:
    client(daemon).put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=number)


def provision(daemon: Daemon, name: str, number: int) -> None:
    client(daemon).put_provisioned_concurrency_config(
        FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=number
    )


def provisioned(daemon: Daemon, name: str) -> tuple[str, int, int]:
    """Status, allocated and available."""
    answer = client(daemon).get_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    kinds = ("Allocated", "Available")
    allocated, available = (int(answer[f"{kind}ProvisionedConcurrentExecutions"]) for kind in kinds)
    return str(answer["Status"]), allocated, available


def at_once(daemon: Daemon, *names: str) -> list[Answer]:
    """Invoke these at one time, for a second each."""
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: daemon.invoke(name, {"seconds": 1}), names))


def outcomes(answers: list[Answer]) -> list[Any]:
    """200, or the reason of a 429."""
    for answer in answers:
        assert answer.status == 200 or (answer.status, answer.code, answer.message) == (
            429, "TooManyRequestsException", "Rate Exceeded.",
        )  # fmt: skip
    return [200 if answer.status == 200 else answer.json["Reason"] for answer in answers]


def test_what_is_reserved_is_a_guarantee_and_a_cap(small: Daemon, deploy: Callable[..., str]) -> None:
    first, second = deploy("sleeps"), deploy("sleeps")
    reserve(small, first, 2)
    assert sorted(outcomes(at_once(small, *[first] * 3)), key=str) == [200, 200, OWN]
    flood = outcomes(at_once(small, *[second] * 4, first, first))
    assert sorted(flood[:4], key=str) == [200, 200, COMMON, COMMON]
    assert flood[4:] == [200, 200]


def test_a_change_applies_at_once_and_loses_nothing_that_runs(small: Daemon, deploy: Callable[..., str]) -> None:
    name = deploy("sleeps")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(small.invoke, name, {"seconds": 1})
        eventually(lambda: [row["State"] for row in small.environments(name)] == ["Busy"])
        reserve(small, name, 0)
        assert outcomes([small.invoke(name, {"seconds": 0})]) == [OWN]
        assert client(small).get_function(FunctionName=name)["Concurrency"] == {"ReservedConcurrentExecutions": 0}
        assert outcomes([running.result()]) == [200]
    small.restart()
    assert outcomes([small.invoke(name, {"seconds": 0})]) == [OWN]
    client(small).delete_function_concurrency(FunctionName=name)
    assert outcomes([small.invoke(name, {"seconds": 0})]) == [200]


def publish_live(daemon: Daemon, name: str) -> None:
    version = client(daemon).publish_version(FunctionName=name)["Version"]
    client(daemon).create_alias(FunctionName=name, Name="live", FunctionVersion=version)


def test_environments_are_initialised_ahead_and_kept(small: Daemon, deploy: Callable[..., str]) -> None:
    name = deploy("evaluate")
    publish_live(small, name)
    provision(small, name, 2)
    eventually(lambda: provisioned(small, name) == ("READY", 2, 2), 20)
    ahead = {row["Id"] for row in small.environments(name)}
    assert [row["Invocations"] for row in small.environments(name)] == [0, 0]
    assert small.call(f"{name}:live", {"code": LOOK}) == ["provisioned-concurrency", "1"]
    assert small.call(name, {"code": LOOK}) == ["on-demand", "$LATEST"]
    wait = "import time; time.sleep(1.5)\n" + LOOK  # longer than keep_alive
    with ThreadPoolExecutor(3) as pool:
        seen = list(pool.map(lambda _: small.call(f"{name}:1", {"code": wait})[0], range(3)))
    assert sorted(seen) == ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]
    eventually(lambda: {row["Id"] for row in small.environments(name)} == ahead)  # the others grew old
    assert small.invoke(f"{name}:live", {"code": "import os; os._exit(1)"}).status == 200
    eventually(lambda: provisioned(small, name) == ("READY", 2, 2), 20)
    assert len(ahead & {row["Id"] for row in small.environments(name)}) == 1


def test_an_alias_that_moves_takes_them_along(small: Daemon, deploy: Callable[..., str]) -> None:
    name = deploy("evaluate")
    publish_live(small, name)
    provision(small, name, 2)
    eventually(lambda: provisioned(small, name) == ("READY", 2, 2), 20)
    client(small).update_function_configuration(FunctionName=name, Description="changed")
    small.wait_settled(name)
    client(small).publish_version(FunctionName=name)
    client(small).update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    eventually(lambda: [row["Version"] for row in small.environments(name)] == ["2", "2"], 20)
    assert small.call(f"{name}:live", {"code": LOOK}) == ["provisioned-concurrency", "2"]
    small.restart()
    eventually(lambda: provisioned(small, name) == ("READY", 2, 2), 20)
    assert small.call(f"{name}:live", {"code": LOOK}) == ["provisioned-concurrency", "2"]
    client(small).delete_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    eventually(lambda: not small.environments(name))


def test_what_cannot_be_initialised_is_told(small: Daemon, deploy: Callable[..., str]) -> None:
    name = deploy("raises_at_import")
    publish_live(small, name)
    provision(small, name, 1)
    eventually(lambda: provisioned(small, name)[0] == "FAILED", 20)
    assert small.invoke(f"{name}:live").headers["x-amz-function-error"] == "Unhandled"
