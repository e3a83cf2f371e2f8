"""What keeps the daemon from starting, and what the command line says where there is none."""

from __future__ import annotations

import json
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.daemon import FUNCTIONS, SCRIPTS, Daemon, clean_environment
from tests.support.inventory import Inventory, assert_nothing_left
from tests.support.places import REPOSITORY, TIME_FACTOR

NewDaemon = Callable[..., Daemon]
pytestmark = pytest.mark.usefixtures("alone")


def refusal(daemon: Daemon) -> str:
    """What a daemon that cannot start writes; it ends with an error and leaves nothing."""
    before = Inventory.take()
    process = daemon.spawn()
    assert process.wait(30 * TIME_FACTOR) not in (0, None)
    assert_nothing_left(before)
    text = daemon.log()
    assert "Traceback" not in text, text
    return text


def test_the_port_is_taken(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", daemon.port))
        taken.listen()
        text = refusal(daemon)
    assert f"127.0.0.1:{daemon.port}" in text and "Address already in use" in text and "api.listen" in text
    assert not daemon.socket.exists()
    daemon.log_file.unlink()
    daemon.start()


def test_the_same_instance_twice(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    daemon.start()
    name = daemon.deploy(packages.load("counter"))
    daemon.invoke(name)
    second = subprocess.run(
        [SCRIPTS / "sandboxd", "daemon", "--config", daemon.config_file],
        capture_output=True, text=True, timeout=30 * TIME_FACTOR, env=clean_environment(), check=False,
    )  # fmt: skip
    assert second.returncode not in (0, None)
    assert "another daemon" in second.stderr and "Traceback" not in second.stderr
    assert daemon.call(name)["count"] == 2


def test_not_root(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    daemon.write_config()
    nobody = pwd.getpwnam("nobody")
    # A copy of what to import may be closed to nobody: the interpreter starts as root and gives itself up.
    code = (
        "import os, sys; import sandboxd.cli, sandboxd.cli.daemon, sandboxd.cli.gc, sandboxd.config;"
        f"os.setgroups([]); os.setresgid({nobody.pw_gid}, {nobody.pw_gid}, {nobody.pw_gid});"
        f"os.setresuid({nobody.pw_uid}, {nobody.pw_uid}, {nobody.pw_uid});"
        "sandboxd.cli.cli(sys.argv[1:], prog_name='sandboxd')"
    )
    command = [sys.executable, "-c", code]
    for arguments in (["daemon"], ["gc"]):
        done = subprocess.run(
            [*command, *arguments, "--config", daemon.config_file],
            capture_output=True, text=True, timeout=30 * TIME_FACTOR, env=clean_environment(), cwd=REPOSITORY,
            check=False,
        )  # fmt: skip
        assert done.returncode == 2, done
        assert "root" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("instance", "Too-Long-Name", "1 to 6 of a-z and 0-9"),
        ("keep_alive", -1, "seconds from 0"),
        ("api.listen", "somewhere", "ADDRESS:PORT"),
        ("network.pool", "8.8.8.0/24", "a private IPv4 network"),
        ("limits.profile", "generous", '"classic" or "current"'),
        ("limits.timeout_seconds", 0, "a positive whole number"),
        ("no_such_key", 1, "one of the keys"),
        ("user", "no-such-user-here", "do not exist"),
    ],
)
def test_a_setting_that_is_not_allowed(fresh_daemon: NewDaemon, key: str, value: object, allowed: str) -> None:
    daemon = fresh_daemon()
    daemon.settings[key] = value
    text = refusal(daemon)
    assert key in text and allowed in text and str(value) in text
    if key != "user":
        assert str(daemon.config_file) in text


def test_no_signatures_on_other_than_loopback(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon(api__listen=f"0.0.0.0:{18470}", api__auth="none")
    assert "not loopback" in refusal(daemon)


def test_no_signatures_on_loopback_where_asked_for(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon(api__auth="none")
    daemon.start()
    name = daemon.deploy(packages.load("hello"))
    client = daemon.boto3(key="any", secret="any")
    assert json.load(client.invoke(FunctionName=name)["Payload"]) == {"hello": "world"}


def test_the_daemon_does_not_run(fresh_daemon: NewDaemon) -> None:
    daemon = fresh_daemon()
    daemon.write_config()
    for arguments in (["invoke", "hello"], ["status"], ["ps"], ["logs", "x"], ["function", "list"], ["key", "list"]):
        done = daemon.cli(*arguments)
        assert (done.returncode, done.stdout) == (125, ""), done
        assert str(daemon.socket) in done.stderr and "Traceback" not in done.stderr


def test_no_image(fresh_daemon: NewDaemon) -> None:
    """A daemon without images starts, says so, and refuses functions for want of a runtime."""
    daemon = fresh_daemon()
    (daemon.data_dir / "images").mkdir(parents=True)
    daemon.start()
    answer = daemon.create(packages.load("hello"))
    assert (answer.status, answer.code) == (400, "InvalidParameterValueException")
    assert "python3.13" in answer.message


@pytest.mark.parametrize("place", ["code", "service"])
def test_the_disk_is_full(fresh_daemon: NewDaemon, place: str) -> None:
    """While unpacking (code) and while storing what was uploaded (service), on a file system of 24 MB."""
    daemon = fresh_daemon()
    disk = daemon.data_dir / place
    disk.mkdir(parents=True)
    before = Inventory.take()
    run("mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "sandboxd-test", disk)
    try:
        daemon.start()
        hello = daemon.deploy(packages.load("hello"))
        there = stored(daemon)
        large = packages.load("heavy" if place == "code" else "caller")
        large = replace(large, package=daemon.base / "large.zip")
        padding = bytes(10 << 20 if place == "service" else 0)
        large.package.write_bytes(packages.load(large.name).package.read_bytes() + padding)
        answer = daemon.create(large)
        assert (answer.status, answer.code) == (400, "CodeStorageExceededException"), answer
        assert "full" in answer.message
        assert daemon.request("GET", f"{FUNCTIONS}/{large.name}").status == 404
        eventually(lambda: stored(daemon) == there)
        assert daemon.call(hello, {}) == {"hello": "world"}
        other = daemon.deploy(packages.load("counter"))
        assert daemon.call(other)["count"] == 1, "what was half-made is gone, so there is room again"
        assert "Traceback" not in daemon.log()
        daemon.stop()
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill("keeper")
        eventually(lambda: subprocess.run(["umount", disk], capture_output=True, check=False).returncode == 0)
    assert_nothing_left(before)


def stored(daemon: Daemon) -> list[list[str]]:
    return [sorted(p.name for p in (daemon.data_dir / d).iterdir()) for d in ("code", "service/zips")]


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)
