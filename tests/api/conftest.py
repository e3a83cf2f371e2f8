"""A real Api on a real Store behind the real transport, on a loopback port and a unix socket, in a thread's loop.

What is below the API is not here: an object that unpacks in this process stands for the builder, one that answers with
its payload for the scheduler, one that keeps text in memory for the logs. The end-to-end tests have the real ones.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import http.client
import io
import json
import os
import socket
import threading
import zipfile
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import uvloop
from botocore.config import Config as ClientConfig

from sandboxd import http as transport
from sandboxd.api.server import Api
from sandboxd.config import Config
from sandboxd.errors import ApiError
from sandboxd.events.mode import EventMode
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult, Outcome
from sandboxd.scheduler.provisioned import Standing
from sandboxd.services import Neighbours
from sandboxd.store.keys import AccessKey
from sandboxd.store.store import Stores
from tests.store.unpacker import InProcessUnpacker

ROLE = "arn:aws:iam::111111111111:role/lambda"
DIGEST = "8eeff65f6809a3ce81507fe733fe09b835899b99481ba22fd75b5a7338290ec1"


def package(text: str = "def handler(event, context):\n    return event\n") -> bytes:
    """A zip with one file."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("handler.py"), text, zipfile.ZIP_DEFLATED)
    return target.getvalue()


class EchoScheduler:
    """Answers every invocation with its payload; `raises` and `function_error` change that."""

    def __init__(self) -> None:
        self.invocations: list[Invocation] = []
        self.retired: list[str] = []  # name and version
        self.warmed: list[str] = []  # runtimes
        self.reserved: dict[str, int] = {}
        self.provisioned: dict[str, dict[str, int]] = {}  # by function and number of the version
        self.standings: dict[str, Standing] = {}  # by number of the version
        self.rows: list[dict[str, Any]] = []
        self.raises: ApiError | None = None
        self.function_error: str | None = None

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        self.invocations.append(invocation)
        await asyncio.sleep(0)
        if self.raises is not None:
            raise self.raises
        tail = b"START\nEND\n" if invocation.tail else b""
        return InvocationResult(Outcome.OK, invocation.payload, function_error=self.function_error, log_tail=tail)

    def warm(self, functions: Iterable[FunctionVersion]) -> None:
        self.warmed += [function.runtime for function in functions]

    def retire(self, key: str) -> None:
        self.retired.append(":".join(key.split(":")[-3:-1]))

    def allot(self, arn: str, reserved: int | None, provisioned: Mapping[FunctionVersion, int]) -> None:
        function_name = arn.rpartition(":")[2]
        self.reserved.pop(function_name, None)
        if reserved is not None:
            self.reserved[function_name] = reserved
        self.provisioned.pop(function_name, None)
        if provisioned:
            self.provisioned[function_name] = {version.version: count for version, count in provisioned.items()}

    def standing(self, key: str) -> Standing:
        return self.standings.get(key.split(":")[-2], Standing())

    def environments(self) -> list[dict[str, Any]]:
        return self.rows


class MemoryLogs:
    """One text for each account, function and version."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str, str], bytes] = {}

    def read(self, account: str, function_name: str, version: str, offset: int, limit: int) -> tuple[int, bytes]:
        text = self.texts.get((account, function_name, version), b"")
        begin = max(0, len(text) + offset) if offset < 0 else min(offset, len(text))
        data = text[begin : begin + limit]
        return begin + len(data), data

    async def wait(self, account: str, function_name: str, version: str, offset: int, timeout: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < deadline:
            if len(self.texts.get((account, function_name, version), b"")) > offset:
                return
            await asyncio.sleep(0.01)

    def forget(self, account: str, function_name: str) -> None:
        self.texts = {key: text for key, text in self.texts.items() if key[:2] != (account, function_name)}

    def forget_account(self, account: str) -> None:
        self.texts = {key: text for key, text in self.texts.items() if key[0] != account}


class Endpoint:
    """The API as a client meets it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.config = dataclasses.replace(
            Config(
                data_dir=directory,
                run_dir=directory,
                account_id="111111111111",
                api_listen=("127.0.0.1", port),
                user="nobody-of-this-name",
            ),
            **settings,
        )
        for path in (self.config.images_dir, self.config.code_dir, self.config.service_dir):
            path.mkdir(exist_ok=True)
        for runtime in ("python3.11", "python3.12", "python3.13"):
            index = {"runtime": runtime, "digest": DIGEST, "bytes": 1, "built": "2026-01-01T00:00:00+00:00"}
            (self.config.images_dir / f"{runtime}.json").write_text(json.dumps(index))
        self.scheduler, self.logs = EchoScheduler(), MemoryLogs()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.key: AccessKey

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run on the API's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def start(self) -> None:
        """Open the store and the doors."""
        self._thread.start()
        self.run(self._start())

    def stop(self) -> None:
        """Close the doors and the store."""
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self.unpacker = InProcessUnpacker(self.config.code_dir)
        self.stores = await Stores.open(self.config, self.unpacker)
        self.store = self.stores.own
        neighbours = Neighbours(self.config)
        self.events = EventMode(self.config, self.stores, neighbours)
        self.api = Api(self.config, self.stores, self.scheduler, self.events, self.logs, neighbours)
        await self.events.start(self.api.run, self.api.may_send)
        self.key = await self.store.keys.create("test")
        limits = transport.HttpLimits(self.api.body_limit, discard=2 * self.api.body_limit)
        budget = transport.Budget(1 << 29)
        tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(self.config.api_listen)
        unix = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.config.api_socket)
        unix.bind(str(self.config.api_socket))
        doors = ((tcp, self.api.handle_tcp), (unix, self.api.handle_unix))
        self._servers = [
            await transport.serve(sock, handler, limits, budget, self.api.refuse, oversized=self.api.oversized)
            for sock, handler in doors
        ]

    async def _stop(self) -> None:
        for server in self._servers:
            server.abort()
        while any(server.connections for server in self._servers):
            await asyncio.sleep(0)
        await self.api.close()
        await self.events.close()
        self.stores.close()

    @property
    def url(self) -> str:
        """Where the TCP door is."""
        return f"http://127.0.0.1:{self.config.api_listen[1]}"

    def boto3(self, key: str = "", secret: str = "", region: str = "us-east-1", **config: Any) -> Any:
        """A client of boto3; without key and secret with those that the API knows."""
        return boto3.client(
            "lambda",
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=key or self.key.id,
            aws_secret_access_key=secret or self.key.secret,
            config=ClientConfig(**{"retries": {"max_attempts": 0}, "parameter_validation": False} | config),
        )

    def unix(self, method: str, target: str, body: Any = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request over the unix socket: status, headers (in lower case) and body."""
        connection = http.client.HTTPConnection("sandboxd", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.config.api_socket))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, target, data, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def create(self, name: str = "hello", **members: Any) -> dict[str, Any]:
        """CreateFunction over the unix socket, and wait until the function is active; its configuration."""
        request = {"FunctionName": name, "Runtime": "python3.12", "Handler": "handler.handler", "Role": ROLE}
        request |= {"Code": {"ZipFile": base64.b64encode(package()).decode()}}
        status, _, body = self.unix("POST", "/2015-03-31/functions", request | members)
        assert status == 201, body
        self.settled(name)
        return dict(json.loads(body))

    def settled(self, name: str) -> dict[str, Any]:
        """Wait until a function is neither Pending nor being updated; its configuration."""
        while True:
            status, _, body = self.unix("GET", f"/2015-03-31/functions/{name}/configuration")
            assert status == 200, body
            configuration = json.loads(body)
            if configuration["State"] != "Pending" and configuration["LastUpdateStatus"] != "InProgress":
                return dict(configuration)


@pytest.fixture
def make_endpoint(tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    """Starts endpoints over one directory; started again, one finds what the one before left."""
    running: list[Endpoint] = []

    def make(**settings: Any) -> Endpoint:
        for endpoint in running:
            endpoint.stop()
        running[:] = [Endpoint(tmp_path, **settings)]
        running[0].start()
        return running[0]

    yield make
    for endpoint in running:
        endpoint.stop()


@pytest.fixture
def endpoint(make_endpoint: Callable[..., Endpoint]) -> Endpoint:
    """One endpoint with default settings."""
    return make_endpoint()


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[Any]:
    """A client of boto3 for the endpoint."""
    made = endpoint.boto3()
    yield made
    made.close()
