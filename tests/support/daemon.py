"""The real daemon for tests: started as a person would, spoken to through its own doors, ended by signals."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import boto3
import psutil
from botocore.client import BaseClient
from botocore.config import Config as BotoConfig

from tests.support import images, inventory
from tests.support.packages import Function
from tests.support.places import REPOSITORY, RUNS, TIME_FACTOR, make_places

SCRIPTS = Path(sys.executable).parent
FUNCTIONS = "/2015-03-31/functions"
ADMIN = "/sandboxd/v1"
_START_SECONDS = 30 * TIME_FACTOR
_STOP_SECONDS = 60 * TIME_FACTOR
_ANSWER_SECONDS = 60 * TIME_FACTOR
_COMMAND_SECONDS = 120 * TIME_FACTOR


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's unix socket."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Answer:
    """One answer of the daemon; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """AWS's error code, or nothing."""
        return self.headers.get("x-amzn-errortype", "").partition(":")[0]

    @property
    def message(self) -> str:
        """AWS's error message."""
        return str(self.json.get("Message") or self.json.get("message"))

    @property
    def log(self) -> str:
        """The log's tail that came with an invocation."""
        return base64.b64decode(self.headers.get("x-amz-log-result", "")).decode()


class Daemon:
    """One instance of its own name, port and directories. Settings are configuration keys with dots."""

    open: ClassVar[list[Daemon]] = []

    def __init__(self, **settings: Any) -> None:
        make_places()
        self.instance = "t" + secrets.token_hex(3)[:5]
        self.base = RUNS / str(os.getpid()) / self.instance
        self.base.mkdir(parents=True, mode=0o755)
        self.data_dir, self.run_dir = self.base / "data", self.base / "run"
        self.port = free_port()
        self.config_file = self.base / "sandboxd.toml"
        self.log_file = self.base / "daemon.log"
        self.settings = {
            "instance": self.instance,
            "data_dir": str(self.data_dir),
            "run_dir": str(self.run_dir),
            "api.listen": f"127.0.0.1:{self.port}",
            "network.pool": f"10.{200 + secrets.randbelow(50)}.0.0/16",
            "drain": 10,
        } | {key.replace("__", "."): value for key, value in settings.items()}
        inventory.STARTED.add(self.instance)
        Daemon.open.append(self)
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[BaseClient] = []
        self._killed = False
        self.launcher = ["-m", "sandboxd"]  # or what tests.support.patched puts in its place
        self.under: list[str] = []  # a command that the daemon is started by
        self.passed: list[int] = []  # descriptors that this command gets

    # life

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def socket(self) -> Path:
        return self.run_dir / "api.sock"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write_config(self) -> None:
        """Write the settings as the file that daemon and command line get."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.settings.items()]
        self.config_file.write_text("\n".join(lines) + "\n")

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and wait for nothing."""
        images.lay_into(self.data_dir / "images")
        self.write_config()
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*self.under, sys.executable, "-I", *self.launcher, "daemon", "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), cwd=REPOSITORY,
                pass_fds=self.passed,
            )  # fmt: skip
        return self.process

    def start(self) -> None:
        """Start and wait until the daemon serves."""
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the daemon answers; fails with its log where it ends instead."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log()}")
            try:
                if self.admin("GET", "/status").status == 200:
                    return
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the daemon does not answer: {error}\n{self.log()}") from error
            time.sleep(0.02)

    def stop(self) -> int:
        """End by SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_SECONDS)

    def kill(self, room: str) -> None:
        """kill -9 of "keeper", "builder" or "service"."""
        assert self.process is not None
        rooms = psutil.Process(self.process.pid).children()
        os.kill(self.room(room).pid, signal.SIGKILL)
        if room == "keeper":
            self._killed = True
            self.process.wait(_STOP_SECONDS)
            deadline = time.monotonic() + _STOP_SECONDS
            while set(rooms) & set(inventory.descendants()):  # they may still serve for a moment
                assert time.monotonic() < deadline, rooms
                time.sleep(0.01)

    def restart(self) -> None:
        """Stop and start again on the same directories."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the daemon and remove its directories."""
        Daemon.open.remove(self)
        for client in self._clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill("keeper")
                raise
        inventory.reap_orphans()
        if self._killed:
            assert self.cli("gc").returncode == 0
        shutil.rmtree(self.base)

    def log(self) -> str:
        """What the daemon has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def room(self, name: str) -> psutil.Process:
        """The process of a room, by its title."""
        assert self.process is not None
        keeper = psutil.Process(self.process.pid)
        if name == "keeper":
            return keeper
        for child in keeper.children():
            if f"sandboxd: {name}" in " ".join(child.cmdline()):
                return child
        raise AssertionError(f"no process of room {name}: {[c.cmdline() for c in keeper.children()]}")

    # doors

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = _ANSWER_SECONDS,
    ) -> Answer:
        """One request over the unix socket; a body that is not bytes is sent as JSON."""
        payload = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = UnixConnection(self.socket, timeout)
        try:
            with contextlib.suppress(BrokenPipeError):  # refused for its size before it was read: the answer is there
                connection.request(method, path, payload, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def admin(self, method: str, path: str, body: Any = None, timeout: float = _ANSWER_SECONDS) -> Answer:
        """One request of the daemon's own API."""
        return self.request(method, ADMIN + path, body, timeout=timeout)

    def environments(self, function: str | None = None) -> list[dict[str, Any]]:
        """The living environments, of one function or of all."""
        rows = self.admin("GET", "/environments").json["Environments"]
        return [row for row in rows if function in (None, row["Function"])]

    @cached_property
    def key(self) -> dict[str, str]:
        """An access key of this daemon."""
        answer = self.admin("POST", "/keys", {"Description": "tests"})
        assert answer.status in (200, 201), answer
        return dict(answer.json)

    def boto3(
        self, *, key: str | None = None, secret: str | None = None, token: str | None = None, **options: Any
    ) -> BaseClient:
        """A Lambda client of boto3 for the endpoint, without retries."""
        client = boto3.client(
            "lambda", region_name="us-east-1", endpoint_url=self.endpoint,
            aws_access_key_id=key or self.key["AccessKeyId"],
            aws_secret_access_key=secret or self.key["SecretAccessKey"], aws_session_token=token,
            config=BotoConfig(retries={"total_max_attempts": 1}, read_timeout=_COMMAND_SECONDS, **options),
        )  # fmt: skip
        self._clients.append(client)
        return client

    @cached_property
    def lambda_client(self) -> BaseClient:
        """The one client that most tests use."""
        return self.boto3(parameter_validation=False)

    def aws(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The aws command line with this daemon's endpoint and key."""
        environment = clean_environment() | {
            "AWS_ACCESS_KEY_ID": self.key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": self.key["SecretAccessKey"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }
        command = [str(SCRIPTS / "aws"), "lambda", *arguments, "--endpoint-url", self.endpoint]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_COMMAND_SECONDS, check=False
        )

    def cli(self, *arguments: str, payload: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """The sandboxd command with this daemon's configuration."""
        command = [str(SCRIPTS / "sandboxd"), *arguments]
        environment = clean_environment() | {"SANDBOXD_CONFIG": str(self.config_file)}
        done = subprocess.run(
            command, input=payload, capture_output=True, env=environment, timeout=_COMMAND_SECONDS, check=False
        )
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    # functions

    def create(self, function: Function, name: str | None = None, **members: Any) -> Answer:
        """Ask for a function; `members` are CreateFunction's and go over the function's own."""
        request = {
            "FunctionName": name or function.name,
            "Runtime": function.runtime,
            "Handler": function.handler,
            "Role": "arn:aws:iam::000000000000:role/test",
            "MemorySize": function.memory,
            "Timeout": function.timeout,
            "Environment": {"Variables": function.environment},
            "Code": {"ZipFile": base64.b64encode(function.package.read_bytes()).decode()},
        }
        return self.request("POST", FUNCTIONS, request | members)

    def deploy(self, function: Function, name: str | None = None, **members: Any) -> str:
        """Make a function and wait until it is active; its name."""
        answer = self.create(function, name, **members)
        assert answer.status == 201, answer
        name = str(answer.json["FunctionName"])
        self.wait_settled(name)
        if function.policy:
            answer = self.admin("PUT", f"/functions/{name}/policy", {"AllowEgress": []} | function.policy)
            assert answer.status == 200, answer
            self.wait_settled(name)
        return name

    def wait_settled(self, name: str) -> dict[str, Any]:
        """Wait until a function is neither Pending nor being updated; its configuration."""
        deadline = time.monotonic() + 30 * TIME_FACTOR
        while True:
            configuration = self.request("GET", f"{FUNCTIONS}/{name}/configuration").json
            if configuration["State"] != "Pending" and configuration["LastUpdateStatus"] != "InProgress":
                return dict(configuration)
            assert time.monotonic() < deadline, configuration
            time.sleep(0.01)

    def invoke(self, name: str, payload: Any = None, *, raw: bytes | None = None, **headers: str) -> Answer:
        """Invoke over the unix socket, with the log's tail; `raw` is a payload that is sent as it is."""
        body = raw if raw is not None else json.dumps(payload).encode()
        sent = {"X-Amz-Log-Type": "Tail"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.request("POST", f"{FUNCTIONS}/{name}/invocations", body, sent, timeout=_COMMAND_SECONDS)

    def call(self, name: str, payload: Any = None) -> Any:
        """What a function returns for a payload; it must not fail."""
        answer = self.invoke(name, payload)
        assert answer.status == 200 and "x-amz-function-error" not in answer.headers, (answer, answer.log)
        return answer.json

    def delete(self, name: str) -> None:
        """Remove a function."""
        answer = self.request("DELETE", f"{FUNCTIONS}/{name}")
        assert answer.status == 204, answer


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of sandboxd and credentials of AWS."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SANDBOXD_", "AWS_"))} | {
        "AWS_EC2_METADATA_DISABLED": "true"
    }


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
