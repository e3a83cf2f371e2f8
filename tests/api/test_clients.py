"""AWS's own clients: every waiter and every paginator that botocore has for Lambda, and its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import WaiterError

from tests.api.conftest import ROLE, Endpoint, package
from tests.api.test_lifecycle import create, error_of

_LOADER = botocore.session.get_session().get_component("data_loader")
PAGINATORS: dict[str, Any] = _LOADER.load_service_model("lambda", "paginators-1")["pagination"]
WAITERS: dict[str, Any] = _LOADER.load_service_model("lambda", "waiters-2")["waiters"]
MODEL = _LOADER.load_service_model("lambda", "service-2")
F = {"FunctionName": "f"}
PROFILE = "arn:aws:signer:us-east-1:111111111111:/signing-profiles/profile/version"
STREAM = "arn:aws:kinesis:us-east-1:111111111111:stream/"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One endpoint for this module's tests, with several of everything that can be listed."""
    endpoint = Endpoint(tmp_path_factory.mktemp("clients"))
    endpoint.start()
    client = endpoint.boto3()
    signing = {"AllowedPublishers": {"SigningProfileVersionArns": [PROFILE]}}
    configs = [client.create_code_signing_config(**signing)["CodeSigningConfig"] for _ in range(3)]
    arn = PAGED["ListFunctionsByCodeSigningConfig"]["CodeSigningConfigArn"] = configs[0]["CodeSigningConfigArn"]
    for name in ("f", "g", "h"):
        endpoint.create(name, CodeSigningConfigArn=arn)
    for number in ("1", "2", "3"):
        client.update_function_code(FunctionName="f", ZipFile=package(number), Publish=True)
        endpoint.settled("f")
        client.create_alias(**F, Name=f"a{number}", FunctionVersion=number)
        client.create_function_url_config(**F, Qualifier=f"a{number}", AuthType="NONE")
        client.put_function_event_invoke_config(**F, Qualifier=number, MaximumRetryAttempts=1)
        client.put_provisioned_concurrency_config(**F, Qualifier=number, ProvisionedConcurrentExecutions=1)
        client.publish_layer_version(LayerName="l", Content={"ZipFile": package()})
        client.publish_layer_version(LayerName=f"l{number}", Content={"ZipFile": package()})
        client.create_event_source_mapping(
            **F, EventSourceArn=STREAM + number, StartingPosition="LATEST", Enabled=False
        )
    client.close()
    yield endpoint
    endpoint.stop()


# What there are three of, at least.
PAGED: dict[str, dict[str, Any]] = {
    "ListAliases": F,
    "ListCodeSigningConfigs": {},
    "ListEventSourceMappings": F,
    "ListFunctionEventInvokeConfigs": F,
    "ListFunctionUrlConfigs": F,
    "ListFunctions": {},
    "ListFunctionsByCodeSigningConfig": {},
    "ListLayerVersions": {"LayerName": "l"},
    "ListLayers": {},
    "ListProvisionedConcurrencyConfigs": F,
    "ListVersionsByFunction": F,
}


def test_paginators_are_tried(shared: Endpoint) -> None:
    assert PAGED.keys() == PAGINATORS.keys() & shared.api.offered


@pytest.mark.parametrize("operation", PAGED)
def test_paginator(shared: Endpoint, operation: str) -> None:
    client, members, key = shared.boto3(), PAGED[operation], PAGINATORS[operation]["result_key"]
    whole = getattr(client, xform_name(operation))(**members)
    assert "NextMarker" not in whole and len(whole[key]) >= 3
    paginator = client.get_paginator(xform_name(operation))
    for size in (1, 2, 50):
        pages = [page[key] for page in paginator.paginate(**members, PaginationConfig={"PageSize": size})]
        assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1) and pages[-1]
        assert [row for page in pages for row in page] == whole[key]
    begun = paginator.paginate(**members, PaginationConfig={"MaxItems": 2, "PageSize": 1}).build_full_result()
    resumed = paginator.paginate(**members, PaginationConfig={"StartingToken": begun["NextToken"]})
    assert begun[key] + resumed.build_full_result()[key] == whole[key]
    client.close()


def _required(operation: str) -> dict[str, Any]:
    about = MODEL["shapes"][MODEL["operations"][operation]["input"]["shape"]]
    return dict.fromkeys(about.get("required", ()), "x")


@pytest.mark.parametrize("operation", sorted(PAGINATORS.keys() - PAGED.keys()))
def test_paginator_of_what_is_not_offered(shared: Endpoint, operation: str) -> None:
    client = shared.boto3()
    paginator = client.get_paginator(xform_name(operation))
    error = error_of(lambda **members: list(paginator.paginate(**members)), **_required(operation))
    assert error == ("NotImplementedException", 501, f"sandboxd does not offer the operation {operation} yet")
    client.close()


class Held:
    """An endpoint on which no change comes to its end before it is let go."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._over = endpoint, endpoint.run(_event())
        settle = endpoint.store.functions.settle

        async def later(*versions: Any) -> None:
            await self._over.wait()
            await settle(*versions)

        endpoint.store.functions.settle = later  # type: ignore[method-assign]

    def release(self) -> None:
        """Every change ends."""
        self._endpoint._loop.call_soon_threadsafe(self._over.set)


async def _event() -> Any:
    import asyncio

    return asyncio.Event()


def at_second_call(client: Any, operation: str, happens: Callable[[], Any]) -> list[int]:
    """Have something happen when a waiter asks again; a list with an item for each of its questions."""
    asked: list[int] = []

    def count(**_: Any) -> None:
        asked.append(1)
        if len(asked) == 2:
            happens()

    client.meta.events.register(f"before-call.lambda.{operation}", count)
    return asked


SITUATIONS: dict[str, Callable[[Any], Any]] = {
    "FunctionActive": create,
    "FunctionActiveV2": create,
    "FunctionUpdated": lambda client: client.update_function_configuration(FunctionName="hello", Timeout=9),
    "FunctionUpdatedV2": lambda client: client.update_function_code(FunctionName="hello", ZipFile=package("2")),
    "PublishedVersionActive": lambda client: create(client, Publish=True),
}


def wait(client: Any, waiter: str, **members: Any) -> None:
    tries = {"Delay": 0, "MaxAttempts": 10_000}
    client.get_waiter(xform_name(waiter)).wait(FunctionName="hello", WaiterConfig=tries, **members)


def test_waiters_are_tried() -> None:
    assert SITUATIONS.keys() | {"FunctionExists"} == WAITERS.keys()


@pytest.mark.parametrize("waiter", SITUATIONS)
def test_waiter(endpoint: Endpoint, client: Any, waiter: str) -> None:
    """It waits for as long as there is something to wait for, and no longer; a failed function ends it."""
    operation = WAITERS[waiter]["operation"]
    if "Updated" in waiter:
        endpoint.create()
    held = Held(endpoint)
    SITUATIONS[waiter](client)
    asked = at_second_call(client, operation, held.release)
    members = {"Qualifier": "1"} if waiter.startswith("Published") else {}
    wait(client, waiter, **members)
    assert len(asked) >= 2
    before = len(asked)
    wait(client, waiter, **members)
    assert len(asked) == before + 1
    if "Updated" not in waiter:  # no update of ours ends as Failed
        broken = [replace(version, state="Failed") for version in endpoint.store.functions.versions("hello")]
        endpoint.run(endpoint.store.functions.serve(*broken))
        with pytest.raises(WaiterError, match="terminal failure state"):
            wait(client, waiter, **members)
    client.delete_function(FunctionName="hello")
    with pytest.raises(WaiterError, match="ResourceNotFoundException"):
        wait(client, waiter, **members)


def test_waiter_for_what_is_not_there_yet(endpoint: Endpoint, client: Any) -> None:
    asked = at_second_call(client, "GetFunction", lambda: endpoint.create("hello"))
    wait(client, "FunctionExists")
    assert len(asked) == 2
    with pytest.raises(WaiterError, match="Max attempts exceeded"):
        client.get_waiter("function_exists").wait(FunctionName="no", WaiterConfig={"Delay": 0, "MaxAttempts": 3})


# the command line: many commands in one process, which is most of the time that they take

_COMMANDS = """
import contextlib, io, json, sys
from awscli.clidriver import create_clidriver

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = create_clidriver().main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
ZIP = "fileb://{directory}/package.zip"
OF_C = ("--function-name", "c")
SIGNING_CONFIG = json.dumps({"SigningProfileVersionArns": [PROFILE]})
ARN = "arn:aws:lambda:us-east-1:111111111111:"
# A command for each resource, and what its answer has to hold (None: no answer).
VERBS: list[tuple[tuple[str, ...], dict[str, Any] | None]] = [
    (
        ("create-function", *OF_C, "--runtime", "python3.12", "--handler", "h.h", "--role", ROLE, "--zip-file", ZIP),
        {"FunctionName": "c", "State": "Pending"},
    ),
    *(
        (("wait", xform_name(waiter, "-"), *OF_C), None)
        for waiter in sorted(WAITERS)
        if waiter != "PublishedVersionActive"
    ),
    (("publish-version", *OF_C), {"Version": "1"}),
    (("wait", "published-version-active", *OF_C, "--qualifier", "1"), None),
    (("update-function-code", *OF_C, "--zip-file", "fileb://{directory}/other.zip", "--publish"), {"Version": "2"}),
    (("wait", "function-updated-v2", *OF_C), None),
    (
        (
            "create-alias", *OF_C, "--name", "live", "--function-version", "1",
            "--routing-config", "AdditionalVersionWeights={2=0.25}",
        ),
        {"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}}},
    ),
    (("list-aliases", *OF_C, "--page-size", "1", "--query", "{n: length(Aliases)}"), {"n": 1}),
    (("publish-layer-version", "--layer-name", "tools", "--zip-file", ZIP), {"Version": 1}),
    (
        (
            "add-layer-version-permission", "--layer-name", "tools", "--version-number", "1", "--statement-id", "s",
            "--action", "lambda:GetLayerVersion", "--principal", "*",
        ),
        {},
    ),
    (
        (
            "add-permission", *OF_C, "--statement-id", "s", "--action", "lambda:InvokeFunction", "--principal", "*",
            "--qualifier", "live",
        ),
        {},
    ),
    (("put-function-concurrency", *OF_C, "--reserved-concurrent-executions", "5"), {"ReservedConcurrentExecutions": 5}),
    (
        (
            "put-provisioned-concurrency-config", *OF_C, "--qualifier", "2",
            "--provisioned-concurrent-executions", "2",
        ),
        {"RequestedProvisionedConcurrentExecutions": 2},
    ),
    (
        ("put-function-event-invoke-config", *OF_C, "--maximum-retry-attempts", "0"),
        {"MaximumRetryAttempts": 0, "FunctionArn": f"{ARN}function:c:$LATEST"},
    ),
    (("tag-resource", "--resource", f"{ARN}function:c", "--tags", "a=b"), None),
    (("create-function-url-config", *OF_C, "--auth-type", "NONE"), {"AuthType": "NONE"}),
    (
        (
            "create-event-source-mapping", *OF_C, "--event-source-arn", STREAM + "1", "--starting-position", "LATEST",
            "--no-enabled",
        ),
        {"FunctionArn": f"{ARN}function:c"},
    ),
    (("create-code-signing-config", "--allowed-publishers", SIGNING_CONFIG), {}),
    (("put-runtime-management-config", *OF_C, "--update-runtime-on", "Auto"), {"UpdateRuntimeOn": "Auto"}),
    (("put-function-recursion-config", *OF_C, "--recursive-loop", "Allow"), {"RecursiveLoop": "Allow"}),
    (
        ("get-function", *OF_C, "--query", "{t: Tags, c: Concurrency}"),
        {"t": {"a": "b"}, "c": {"ReservedConcurrentExecutions": 5}},
    ),
    (("get-account-settings", "--query", "AccountUsage"), {"FunctionCount": 4}),
    (("invoke", *OF_C, "--qualifier", "2", "--payload", "{}", "{directory}/out"), {"ExecutedVersion": "2"}),
]  # fmt: skip


def test_the_aws_command_line(shared: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "package.zip").write_bytes(package())
    (tmp_path / "other.zip").write_bytes(package("other"))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
        "AWS_ACCESS_KEY_ID": shared.key.id, "AWS_SECRET_ACCESS_KEY": shared.key.secret,
    }  # fmt: skip
    options = ["--output", "json", "--endpoint-url", shared.url]
    lines = []
    for words, _ in VERBS:
        lines.append(json.dumps(["lambda", *(word.replace("{directory}", str(tmp_path)) for word in words), *options]))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _COMMANDS], input="\n".join(lines), capture_output=True, text=True,
        env=environment, timeout=300, check=True,
    )  # fmt: skip
    for (words, wanted), line in zip(VERBS, done.stdout.splitlines(), strict=True):
        code, out, err = json.loads(line)
        assert code == 0, (words, out, err)
        answer = json.loads(out) if out else None
        assert (answer is None) == (wanted is None), (words, out)
        assert answer is None or wanted.items() <= answer.items(), (words, answer)
