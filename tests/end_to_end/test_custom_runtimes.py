"""Runtimes that a function brings along: `bootstrap` in its package, a script or a program."""

from __future__ import annotations

import base64

from tests.conftest import Deployed
from tests.support import packages
from tests.support.daemon import Daemon

COMPILED = {"length": 7, "before": 0}


def test_a_shell_script_is_a_runtime(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("shell")
    first = daemon.invoke(name, {"a": 1})
    assert (first.status, first.json) == (200, {"echo": {"a": 1}}), first
    assert 'handling: {"a": 1}' in first.log and "Init Duration" in first.log
    second = daemon.invoke(name, "fail")
    assert second.headers["x-amz-function-error"] == "Unhandled"
    assert second.json == {"errorType": "Shell.Error", "errorMessage": "the handler failed"}
    assert daemon.invoke(name, "environment").json == "none /var/task /var/task"
    assert len(daemon.environments(name)) == 1


def test_a_program_is_a_runtime(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("compiled")
    assert [daemon.invoke(name, raw=b'"12345"').json for _ in range(2)] == [COMPILED, COMPILED | {"before": 1}]
    assert [row["Invocations"] for row in daemon.environments(name)] == [2]


def test_without_a_bootstrap_it_says_so(daemon: Daemon) -> None:
    for files in ({"other": "x"}, {"bootstrap": "#!/bin/sh\nexit 0\n"}):  # the second is not executable
        package = base64.b64encode(packages.zip_of(files)).decode()
        name = daemon.deploy(packages.load("shell"), "nothing", Code={"ZipFile": package})
        answer = daemon.invoke(name, {})
        assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
        assert answer.json["errorType"] == "Runtime.InvalidEntrypoint", answer
        assert "[/var/task/bootstrap /opt/bootstrap]" in answer.json["errorMessage"]
        daemon.delete(name)


def test_a_bootstrap_that_ends_is_awss_error(daemon: Daemon) -> None:
    import io
    import zipfile

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o100755 << 16
        archive.writestr(entry, "#!/bin/sh\nexit 7\n")
    package = base64.b64encode(target.getvalue()).decode()
    name = daemon.deploy(packages.load("shell"), "ends", Code={"ZipFile": package})
    answer = daemon.invoke(name, {})
    assert answer.json["errorType"] == "Runtime.ExitError" and "exit status 7" in answer.json["errorMessage"], answer
    daemon.delete(name)
