"""Layers, concurrency, events, signing and the other resources, by their verbs against the real daemon."""

from __future__ import annotations

import ast
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sandboxd.cli import cli
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.places import REPOSITORY, TIME_FACTOR

PUBLISHER = "arn:aws:signer:us-east-1:123456789012:/signing-profiles/ours/abcdef1234"

Sandboxd = Callable[..., Result]


@pytest.fixture(scope="module")
def server(_daemon: Daemon) -> Daemon:
    if os.geteuid() != 0:
        pytest.skip("starts the daemon")
    return _daemon


@pytest.fixture(scope="module")
def sandboxd(server: Daemon) -> Sandboxd:
    """Runs one command against the daemon."""

    def run(*arguments: str, code: int = 0, **options: Any) -> Result:
        environment = {"SANDBOXD_CONFIG": str(server.config_file)}
        result = CliRunner(env=environment).invoke(cli, arguments, prog_name="sandboxd", **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, (arguments, result.output)
        return result

    return run


@pytest.fixture(scope="module")
def name(server: Daemon, sandboxd: Sandboxd) -> Iterator[str]:
    """A function with a version 1 and the alias live."""
    name = server.deploy(packages.load("evaluate"), "from-the-command-line")
    assert sandboxd("version", "publish", name).stdout == "1\n"
    sandboxd("alias", "create", name, "live", "--version", "1")
    server.wait_settled(name)
    yield name
    sandboxd("function", "delete", name)


def rows(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def pairs(result: Result) -> dict[str, str]:
    """What `show_pairs` printed; names have single blanks."""
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in result.stdout.splitlines() if "  " in line)


def test_every_operation_that_there_is_has_a_verb() -> None:
    page = (REPOSITORY / "docs/api.md").read_text()
    there = set(re.findall(r"^\| (\w+) \| (?:yes|in part) \|", page, re.MULTILINE))
    said = {
        node.value
        for file in (REPOSITORY / "sandboxd/cli").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(there) > 50
    assert there - said == set()


def test_a_layer_from_its_publication_to_its_end(server: Daemon, sandboxd: Sandboxd, name: str, tmp_path: Path) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "shared.py").write_text("value = 'of the layer'\n")
    options = ("--dir", str(tmp_path), "--description", "d", "--license", "MIT", "--runtime", "python3.13")
    arn = sandboxd("layer", "publish", "cli-tools", *options).stdout.strip()
    assert arn.endswith(":layer:cli-tools:1")
    second = json.loads(sandboxd("layer", "publish", "cli-tools", "--dir", str(tmp_path), "-o", "json").stdout)
    assert second["LayerVersionArn"] == arn[:-1] + "2"
    assert [row[:2] for row in rows(sandboxd("layer", "list"))] == [["NAME", "VERSION"], ["cli-tools", "2"]]
    assert [row[:2] for row in rows(sandboxd("layer", "list", "--runtime", "python3.13"))][1:] == [["cli-tools", "1"]]
    assert [row[1] for row in rows(sandboxd("layer", "versions", "cli-tools"))] == ["VERSION", "2", "1"]
    shown = pairs(sandboxd("layer", "get", "cli-tools:1"))
    assert (shown["Description"], shown["LicenseInfo"], shown["LayerVersionArn"]) == ("d", "MIT", arn)
    assert sandboxd("layer", "get", arn, "-o", "json").stdout.count(arn) == 1

    statement = json.loads(sandboxd("layer", "permission", "add", arn, "all", "--principal", "*").stdout)
    assert (statement["Sid"], statement["Resource"]) == ("all", arn)
    assert rows(sandboxd("layer", "permission", "list", "cli-tools:1"))[1][:3] == ["all", "lambda:GetLayerVersion", "*"]
    sandboxd("layer", "permission", "remove", "cli-tools:1", "all")
    refused = sandboxd("layer", "permission", "list", "cli-tools:1", code=1)
    assert "(ResourceNotFoundException) when calling the GetLayerVersionPolicy" in refused.stderr

    updated = sandboxd("function", "update", name, "--layer", "cli-tools:1")
    assert pairs(updated)["Layers"] == arn
    assert server.call(name, {"code": "import shared; result = shared.value"}) == "of the layer"
    two = sandboxd("function", "update", name, "--layer", "cli-tools:1", "--layer", arn[:-1] + "2", code=1)
    assert "Two different versions of the same layer" in two.stderr
    assert json.loads(sandboxd("layer", "delete", "cli-tools:1", "-o", "json").stdout) == {"Deleted": "cli-tools:1"}
    assert server.call(name, {"code": "import shared; result = shared.value"}) == "of the layer"
    assert "Layers" not in pairs(sandboxd("function", "update", name, "--no-layers"))
    sandboxd("layer", "delete", arn[:-1] + "2")
    assert rows(sandboxd("layer", "list"))[1:] == []
    assert "does not exist" in sandboxd("layer", "get", "cli-tools:1", code=1).stderr


def test_concurrency_that_is_reserved(sandboxd: Sandboxd, name: str) -> None:
    assert sandboxd("concurrency", "get", name).stdout == "-\n"
    before = int({row[0]: row[-1] for row in rows(sandboxd("limits"))}["UnreservedConcurrentExecutions"])
    sandboxd("concurrency", "put", name, "7")
    assert sandboxd("concurrency", "get", name).stdout == "7\n"
    assert rows(sandboxd("concurrency", "list")) == [["NAME", "RESERVED"], [name, "7"]]
    limits = json.loads(sandboxd("limits", "-o", "json").stdout)
    assert limits["AccountLimit"]["UnreservedConcurrentExecutions"] == before - 7
    assert limits["AccountUsage"]["FunctionCount"] >= 1
    refused = sandboxd("concurrency", "put", name, "100000", code=1).stderr
    assert "UnreservedConcurrentExecution below its minimum value of [100]" in refused
    assert "(InvalidParameterValueException)" in sandboxd("concurrency", "put", f"{name}:live", "1", code=1).stderr
    sandboxd("concurrency", "delete", name)
    assert rows(sandboxd("concurrency", "list"))[1:] == []


def test_environments_ahead_of_invocations(server: Daemon, sandboxd: Sandboxd, name: str) -> None:
    assert pairs(sandboxd("provisioned", "put", f"{name}:live", "1")) == {
        "REQUESTED": "1", "ALLOCATED": "1", "AVAILABLE": "1", "STATUS": "READY",
    }  # fmt: skip
    assert rows(sandboxd("provisioned", "list", name))[1] == ["live", "1", "1", "1", "READY", "-"]
    arn = json.loads(sandboxd("function", "get", f"{name}:live", "-o", "json").stdout)["Configuration"]["FunctionArn"]
    assert json.loads(sandboxd("provisioned", "get", arn, "-o", "json").stdout)["Status"] == "READY"
    sandboxd("provisioned", "delete", arn)
    assert "No Provisioned Concurrency Config" in sandboxd("provisioned", "get", f"{name}:live", code=1).stderr
    assert "is not NAME:QUALIFIER" in sandboxd("provisioned", "put", name, "1", code=2).stderr
    latest = sandboxd("provisioned", "put", f"{name}:$LATEST", "1", code=1)
    assert "cannot be applied to unpublished function versions" in latest.stderr


def test_how_events_are_tried(server: Daemon, sandboxd: Sandboxd, name: str) -> None:
    target = server.deploy(packages.load("hello"), "told-of-events")
    arn = json.loads(sandboxd("function", "get", target, "-o", "json").stdout)["Configuration"]["FunctionArn"]
    try:
        put = pairs(sandboxd("events", "put", name, "--retries", "0", "--on-failure", arn))
        assert (put["RETRIES"], put["ON FAILURE"], put["ON SUCCESS"]) == ("0", arn, "-")
        sandboxd("events", "update", name, "--on-success", arn, "--max-age", "60")
        assert rows(sandboxd("events", "list", name))[1] == ["$LATEST", "0", "60", arn, arn]
        assert pairs(sandboxd("events", "update", name, "--on-failure", ""))["ON FAILURE"] == "-"
        assert json.loads(sandboxd("events", "get", name, "-o", "json").stdout)["MaximumRetryAttempts"] == 0
        refused = sandboxd("events", "update", name, "--retries", "3", code=1).stderr
        assert "maximumRetryAttempts" in refused and "less than or equal to 2" in refused
    finally:
        server.delete(target)
    sandboxd("events", "delete", name)
    assert "doesn't have an EventInvokeConfig" in sandboxd("events", "get", name, code=1).stderr


def test_an_event_is_queued_and_not_waited_for(server: Daemon, sandboxd: Sandboxd, name: str) -> None:
    payload = json.dumps({"code": "print('came to' + ' run'); result = 1"})
    result = sandboxd("invoke", name, "--event", "--payload", payload)
    assert (result.stdout, result.stderr) == ("", "")
    deadline = time.monotonic() + 30 * TIME_FACTOR
    while "came to run" not in sandboxd("logs", name).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_result_as_the_function_makes_it(server: Daemon, sandboxd: Sandboxd) -> None:
    name = server.deploy(packages.load("streaming"), "streamed", Timeout=3)
    try:
        done = sandboxd("invoke", name, "--stream", "--payload", '"slowly"', "--log")
        assert done.stdout == "one two three \n" and "REPORT RequestId" in done.stderr
        failed = sandboxd("invoke", name, "--stream", "--payload", '"failing"', code=1)
        assert failed.stdout == "begun\n"
        assert json.loads(failed.stderr) == {"errorType": "Late.Error", "errorMessage": "in the middle"}
        large = sandboxd("invoke", name, "--stream", "--payload", '"large"')
        assert len(large.stdout_bytes) == 80 * 65_536 + 1
        missing = sandboxd("invoke", f"{name}:7", "--stream", code=1)
        assert "when calling the InvokeWithResponseStream operation: Function not found" in missing.stderr
    finally:
        server.delete(name)


def test_the_context_of_a_client(sandboxd: Sandboxd, name: str) -> None:
    payload = json.dumps({"code": "result = context.client_context.custom"})
    context = json.dumps({"custom": {"who": "\u00fc"}})
    result = sandboxd("invoke", name, "--payload", payload, "--client-context", context)
    assert json.loads(result.stdout) == {"who": "\u00fc"}


def test_signing(sandboxd: Sandboxd, name: str) -> None:
    arn = sandboxd("signing", "create", "--publisher", PUBLISHER, "--description", "ours").stdout.strip()
    assert rows(sandboxd("signing", "list"))[1][:2] == [arn, "Warn"]
    assert sandboxd("signing", "attached", name).stdout == "-\n"
    sandboxd("signing", "attach", name, arn)
    assert sandboxd("signing", "attached", name).stdout == f"{arn}\n"
    assert rows(sandboxd("signing", "functions", arn))[1][0].endswith(f":function:{name}")
    assert pairs(sandboxd("signing", "update", arn, "--policy", "enforce"))["POLICY"] == "Enforce"
    assert "it is in use" in sandboxd("signing", "delete", arn, code=1).stderr
    sandboxd("signing", "detach", name)
    assert pairs(sandboxd("signing", "get", arn)) | {"MODIFIED": ""} == {
        "ARN": arn, "POLICY": "Enforce", "MODIFIED": "", "DESCRIPTION": "ours", "PUBLISHERS": PUBLISHER,
    }  # fmt: skip
    sandboxd("signing", "delete", arn)
    assert rows(sandboxd("signing", "list"))[1:] == []


def test_permissions_with_conditions(sandboxd: Sandboxd, name: str) -> None:
    action = ("--principal", "*", "--action", "lambda:InvokeFunctionUrl", "--url-auth", "NONE")
    added = json.loads(sandboxd("permission", "add", name, "url", *action, "--organization", "o-1234567890").stdout)
    assert added["Condition"] == {
        "StringEquals": {"lambda:FunctionUrlAuthType": "NONE", "aws:PrincipalOrgID": "o-1234567890"}
    }
    added = json.loads(sandboxd("permission", "add", name, "via", "--principal", "*", "--via-url").stdout)
    assert added["Condition"] == {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
    assert [row[0] for row in rows(sandboxd("permission", "list", name))] == ["Sid", "url", "via"]
    sandboxd("permission", "remove", name, "url")
    sandboxd("permission", "remove", name, "via")


def test_tags_by_name_and_by_arn(sandboxd: Sandboxd, name: str) -> None:
    arn = json.loads(sandboxd("function", "get", name, "-o", "json").stdout)["Configuration"]["FunctionArn"]
    sandboxd("tag", "put", arn, "team=a", "stage=live")
    assert rows(sandboxd("tag", "list", name)) == [["KEY", "VALUE"], ["stage", "live"], ["team", "a"]]
    sandboxd("tag", "remove", name, "team", "stage")
    assert rows(sandboxd("tag", "list", arn))[1:] == []
    assert "arn:aws:s3:::b" in sandboxd("tag", "list", "arn:aws:s3:::b", code=1).stderr


def test_runtimes_and_loops(sandboxd: Sandboxd, name: str) -> None:
    assert sandboxd("runtime", "get", f"{name}:live").stdout == "Auto\n"
    assert sandboxd("runtime", "put", name, "Auto").stdout == ""
    assert "UpdateRuntimeOn Manual" in sandboxd("runtime", "put", name, "Manual", code=1).stderr
    assert sandboxd("recursion", "get", name).stdout == "Terminate\n"
    sandboxd("recursion", "put", name, "Allow")
    assert json.loads(sandboxd("recursion", "get", name, "-o", "json").stdout) == {"RecursiveLoop": "Allow"}


def test_a_function_with_every_setting(server: Daemon, sandboxd: Sandboxd) -> None:
    package = str(packages.load("hello").package)
    made = sandboxd(
        "function", "create", "whole", "--runtime", "python3.13", "--handler", "app.handler", "--zip", package,
        "--tag", "team=a", "--log-format", "json", "--log-level", "debug", "--system-log-level", "warn", "--log-group",
        "/group", "--tracing", "active", "--snap-start", "publishedversions", "--architecture", os.uname().machine,
        "-o", "json",
    )  # fmt: skip
    try:
        shown = json.loads(made.stdout)
        assert shown["LoggingConfig"] == {
            "LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "SystemLogLevel": "WARN", "LogGroup": "/group",
        }  # fmt: skip
        assert (shown["TracingConfig"]["Mode"], shown["SnapStart"]["ApplyOn"]) == ("Active", "PublishedVersions")
        assert rows(sandboxd("tag", "list", "whole"))[1] == ["team", "a"]
        refused = sandboxd("function", "update", "whole", "--dead-letter", "arn:aws:sqs:us-east-1:1:q", code=1)
        assert "(InvalidParameterValueException)" in refused.stderr and "arn:aws:sqs:us-east-1:1:q" in refused.stderr
        changed = sandboxd("function", "update", "whole", "--log-format", "text", "-o", "json")
        assert json.loads(changed.stdout)["LoggingConfig"]["LogFormat"] == "Text"
        assert sandboxd("function", "update", "whole", "--dead-letter", "").exit_code == 0
    finally:
        sandboxd("function", "delete", "whole")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("layer publish l", "one of --zip, --dir and --s3 is needed"),
        ("layer get tools", "'tools' is not LAYER:VERSION, such as tools:1"),
        ("layer delete tools:one", "'tools:one' is not LAYER:VERSION"),
        ("layer permission list :1", "':1' is not LAYER:VERSION"),
        ("concurrency put f many", "'many' is not a valid integer range"),
        ("concurrency put f -- -1", "-1 is not in the range x>=0"),
        ("events put f", "nothing to put: name at least one option"),
        ("events update f", "nothing to update: name at least one option"),
        ("signing create", "--publisher is needed"),
        ("signing update arn", "nothing to update"),
        ("runtime put f Sometimes", "'Sometimes' is not one of"),
        ("recursion put f Stop", "'Stop' is not one of"),
        ("invoke f --event --log", "--event excludes --log"),
        ("invoke f --stream --dry-run", "--stream excludes --dry-run"),
        ("invoke f --client-context [1]", "'[1]' is not a JSON object"),
        ("function update f --layer tools", "'tools' is not LAYER:VERSION"),
        ("function update f --layer a:1 --no-layers", "--no-layers --layer"),
        ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_what_is_written_wrong_asks_nothing(arguments: str, words: str, tmp_path: Path) -> None:
    environment = {"SANDBOXD_RUN_DIR": str(tmp_path)}  # where no daemon is: asking would be exit code 125
    result = CliRunner(env=environment).invoke(cli, arguments.split(), prog_name="sandboxd")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
