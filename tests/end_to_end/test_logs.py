"""What functions write: the lines around it, the tail that comes back, and the log that can be followed."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess

from tests.conftest import Deployed
from tests.support.daemon import SCRIPTS, Daemon, clean_environment
from tests.support.places import TIME_FACTOR

REPORT = re.compile(
    r"REPORT RequestId: (\S+)\tDuration: (\d+\.\d\d) ms\tBilled Duration: (\d+) ms\tMemory Size: (\d+) MB"
    r"\tMax Memory Used: (\d+) MB(?:\tInit Duration: (\d+\.\d\d) ms)?\t?"
)


def test_the_lines_of_one_invocation(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("printer")
    answer = daemon.invoke(name, {"word": "wörd"})
    request_id = answer.headers["x-amzn-requestid"]
    lines = answer.log.splitlines()
    assert lines[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert lines[-2] == f"END RequestId: {request_id}"
    report = REPORT.fullmatch(lines[-1])
    assert report is not None and report[1] == request_id and report[6] is not None, lines[-1]
    assert {"stdout: grüße ✓ 漢字", "stderr: ошибка"} <= set(lines)
    logged = next(line for line in lines if "logging: wörd" in line)
    assert re.fullmatch(rf"\[INFO\]\t\d{{4}}-\d\d-\d\dT[\d:.]+Z\t{request_id}\tlogging: wörd", logged)


def test_the_tail_is_the_last_four_kilobytes(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("printer")
    answer = daemon.lambda_client.invoke(FunctionName=name, LogType="Tail", Payload=b'{"lines": 500, "width": 50}')
    tail = base64.b64decode(answer["LogResult"])
    assert len(tail) == 4096
    assert b"line 499 " in tail and tail.rstrip().splitlines()[-1].startswith(b"REPORT RequestId: ")


def test_no_tail_unless_asked_for(daemon: Daemon, deployed: Deployed) -> None:
    answer = daemon.lambda_client.invoke(FunctionName=deployed("printer"), Payload=b"{}")
    assert "LogResult" not in answer


def test_the_log_of_a_function(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("printer")
    for _ in range(2):
        daemon.invoke(name, {})
    done = daemon.cli("logs", name)
    assert done.returncode == 0
    assert done.stdout.count("stdout: grüße ✓ 漢字") == 2
    assert len(REPORT.findall(done.stdout)) == 2
    assert done.stdout.count("Init Duration") == 1
    assert daemon.cli("logs", name, "--tail", "1").stdout.startswith("REPORT RequestId: ")


def test_a_flood_is_cut_and_told(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("printer", Timeout=60, MemorySize=1792)
    for _ in range(3):
        daemon.invoke(name, {"lines": 60_000, "width": 100})
    text = daemon.cli("logs", name).stdout
    assert text.rstrip().splitlines()[-1].startswith("REPORT RequestId: ")
    dropped = re.findall(r"^\[sandboxd\] (\d+) bytes of output were dropped: the limit is ", text, re.MULTILINE)
    assert dropped and len(text) + sum(map(int, dropped)) > 3 * 60_000 * 110
    assert len(text) < 16 * 1024 * 1024


def test_following(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("printer")
    daemon.invoke(name, {"word": "before"})
    follower = subprocess.Popen(
        [SCRIPTS / "sandboxd", "logs", "-f", name], stdout=subprocess.PIPE, text=True,
        env=clean_environment() | {"SANDBOXD_CONFIG": str(daemon.config_file)},
    )  # fmt: skip
    try:
        assert follower.stdout is not None
        read: list[str] = []
        while not read or not read[-1].startswith("REPORT"):
            read.append(follower.stdout.readline())
        assert any("before" in line for line in read)
        daemon.invoke(name, {"word": "after"})
        read.clear()
        while not read or not read[-1].startswith("REPORT"):
            read.append(follower.stdout.readline())
        assert any("after" in line for line in read) and not any("before" in line for line in read)
        os.kill(follower.pid, signal.SIGINT)
        assert follower.wait(10 * TIME_FACTOR) == 130
    finally:
        follower.kill()
        follower.communicate()


def test_logs_of_one_function_hold_nothing_of_another(daemon: Daemon, deployed: Deployed) -> None:
    loud, quiet = deployed("printer"), deployed("hello")
    daemon.invoke(loud, {"word": "only-here"})
    daemon.invoke(quiet, {})
    assert "only-here" not in daemon.cli("logs", quiet).stdout


def test_the_log_of_a_function_that_is_not_there(daemon: Daemon) -> None:
    done = daemon.cli("logs", "nope")
    assert done.returncode == 1 and "ResourceNotFoundException" in done.stderr
