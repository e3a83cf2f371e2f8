"""The process environment, as the builder gets it."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

import pytest

from sandboxd.environment import guest_environ
from sandboxd.model.function import Policy
from tests.environment.loopback import make_function


def test_the_variables_are_aws_s(tmp_path: Path) -> None:
    environ = guest_environ.variables(make_function(tmp_path), "eu-central-1", "stream")
    assert environ == {
        "_HANDLER": "app.handler",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_REGION": "eu-central-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": "hello",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/hello",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "TZ": ":UTC",
        "LANG": "en_US.UTF-8",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": (
            "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
        ),
    }


def test_initialised_ahead(tmp_path: Path) -> None:
    environ = guest_environ.variables(make_function(tmp_path), "eu-central-1", "stream", ahead=True)
    assert environ["AWS_LAMBDA_INITIALIZATION_TYPE"] == "provisioned-concurrency"


def test_own_variables_override_nothing_reserved(tmp_path: Path) -> None:
    own = [("PATH", "/mine"), ("MINE", "1")] + [(name, "stolen") for name in guest_environ.RESERVED]
    function = make_function(tmp_path, variables=tuple(own))
    environ = guest_environ.variables(function, "us-east-1", "stream")
    assert (environ["PATH"], environ["MINE"]) == ("/mine", "1")
    assert "stolen" not in environ.values()


def test_credentials_only_with_the_door(tmp_path: Path) -> None:
    closed = guest_environ.variables(make_function(tmp_path), "us-east-1", "stream")
    assert not [name for name in closed if "KEY" in name or "TOKEN" in name or "ENDPOINT" in name]
    function = make_function(tmp_path, policy=Policy(invoke=True), variables=(("AWS_ACCESS_KEY_ID", "mine"),))
    opened = guest_environ.variables(function, "us-east-1", "stream")
    assert opened["AWS_ENDPOINT_URL_LAMBDA"] == "http://127.0.0.1:9002"
    assert len(opened["AWS_ACCESS_KEY_ID"]) == 20
    assert opened["AWS_SECRET_ACCESS_KEY"]
    assert opened["AWS_SESSION_TOKEN"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("LD_PRELOAD", True), ("PYTHONPATH", True), ("MALLOC_ARENA_MAX", True), ("AWS_LAMBDA_EXEC_WRAPPER", True),
        ("NODE_OPTIONS", True), ("UV_THREADPOOL_SIZE", True), ("GREETING", False), ("AWS_XRAY_CONTEXT_MISSING", False),
    ],
)  # fmt: skip
def test_what_is_read_at_exec_cannot_come_later(tmp_path: Path, name: str, read: bool) -> None:
    assert guest_environ.read_at_exec(make_function(tmp_path, variables=(("A", "1"), (name, "x")))) is read
    assert not guest_environ.read_at_exec(make_function(tmp_path))


def test_a_stem_knows_nothing_of_a_function(tmp_path: Path) -> None:
    whole = guest_environ.variables(make_function(tmp_path), "us-east-1", "stream")
    stem = guest_environ.of_stem(0)
    assert stem.items() <= whole.items()
    assert not [name for name in stem if "FUNCTION" in name or "HANDLER" in name or "KEY" in name]


def test_a_stem_whose_heap_has_a_size_knows_that_of_its_function(tmp_path: Path) -> None:
    node = make_function(tmp_path, runtime="nodejs22.x", memory_size=512)
    whole = guest_environ.variables(node, "us-east-1", "stream")
    assert guest_environ.of_stem(512).items() - guest_environ.of_stem(0).items() <= whole.items()
    assert (guest_environ.told_at_boot(node), guest_environ.told_at_boot(make_function(tmp_path))) == (512, 0)


def test_the_memfd_cannot_be_changed() -> None:
    descriptor = guest_environ.sealed({"A": "grüße", "B": ""})
    try:
        assert os.pread(descriptor, 100, 0) == "A=grüße\0B=\0".encode()
        assert not os.get_inheritable(descriptor)
        for change in (
            lambda: os.pwrite(descriptor, b"X", 0),
            lambda: os.ftruncate(descriptor, 1),
            lambda: os.ftruncate(descriptor, 100),
            lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        ):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("environ", [{"A": "x\0B=y"}, {"A=B": "x"}, {"": "x"}, {"A\0": "x"}])
def test_what_no_process_can_be_given(environ: dict[str, str]) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError, match="cannot be given"):
        guest_environ.sealed(environ)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_log_stream_names_differ() -> None:
    names = {guest_environ.log_stream_name("2026/01/31", "7") for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"2026/01/31/\[7\][0-9a-f]{32}", name) for name in names)


def test_where_services_are(tmp_path: Path) -> None:
    elsewhere = "http://10.0.0.1:4566"
    function = make_function(tmp_path, policy=Policy(invoke=True))
    environ = guest_environ.variables(function, "us-east-1", "stream", services=elsewhere)
    assert (environ["AWS_ENDPOINT_URL"], environ["AWS_ENDPOINT_URL_LAMBDA"]) == (elsewhere, "http://127.0.0.1:9002")
    own = make_function(tmp_path, variables=(("AWS_ENDPOINT_URL", "http://mine"),))
    assert guest_environ.variables(own, "us-east-1", "stream", services=elsewhere)["AWS_ENDPOINT_URL"] == "http://mine"
