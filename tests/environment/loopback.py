"""Stands in for the privsep client: AWS's real runtime client as an ordinary process on a real loopback socket.

What it hands out are the same kinds of descriptors as the builder's: a listening socket, a pipe, files. Only the walls
are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from sandboxd.config import Config
from sandboxd.environment.environment import Environment
from sandboxd.environment.logs import Logs
from sandboxd.environment.sandbox import Ground
from sandboxd.http import Budget, Request, Response
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation
from sandboxd.privsep.messages import Exited

T = TypeVar("T")
RUNTIME = (sys.executable, "-m", "awslambdaric")
MEMORY_STAT = b"cache 999999999\nrss 1\ntotal_cache 999999999\ntotal_rss 36700160\ntotal_shmem 1048576\n"
IMAGE = bytes(32)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on the loop that the service runs on, and see that no descriptor of ours is left open."""

    async def watched() -> T:
        before = _open_sockets_and_pipes()
        result = await coroutine
        await asyncio.sleep(0.01)
        left = _open_sockets_and_pipes() - before
        assert not left, left
        return result

    return uvloop.run(watched())


def _open_sockets_and_pipes() -> set[str]:
    names = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {name for name in names if name.startswith(("socket:", "pipe:", "/tmp", "/memfd", "/dev/null"))}


class LoopbackBuilder:
    """Makes "environments" that are plain processes. `command` None: no process at all, the test is the runtime."""

    def __init__(self, directory: Path, command: tuple[str, ...] | None = RUNTIME) -> None:
        self.directory, self.command = directory, command
        self.on_exited: Callable[[Exited], None] = lambda exited: None
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.addresses: dict[int, tuple[str, int]] = {}
        self.environs: dict[int, dict[str, str]] = {}
        self.log_writers: dict[int, int] = {}
        self.inits_ended: list[int] = []
        self.warmed: list[tuple[bytes, int, bytes]] = []
        self.bound: list[int] = []
        self.destroyed: list[int] = []
        self.kill_as_out_of_memory = False
        self.failure: Exception | None = None
        self._gone: dict[int, asyncio.Future[None]] = {}

    def freeze_file(self, environment_id: int) -> Path:
        return self.directory / f"freeze-{environment_id}"

    async def bind(self, spec: EnvironmentSpec, process_environ: int) -> list[int]:
        if self.failure is not None:
            raise self.failure
        await asyncio.sleep(0)
        number = spec.environment_id
        self.bound.append(number)
        data = os.pread(process_environ, 1 << 20, 0)
        environ = dict(entry.split("=", 1) for entry in data.decode().split("\0")[:-1])
        self.environs[number] = environ
        listening = _listening()
        self.addresses[number] = listening.getsockname()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        if self.command is None:
            self.log_writers[number] = writer
        else:
            self._start(number, spec, environ, writer)
            os.close(writer)
        memory_stat = self.directory / "memory.stat"
        memory_stat.write_bytes(MEMORY_STAT)
        files = [self.freeze_file(number), self.directory / f"events-{number}", memory_stat]
        descriptors = [listening.detach(), reader]
        descriptors += [os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for file in files]
        if spec.invoke_door:
            door = _listening()
            self.addresses[-number] = door.getsockname()
            descriptors.append(door.detach())
        return descriptors

    def _start(self, number: int, spec: EnvironmentSpec, environ: dict[str, str], log: int) -> None:
        assert self.command is not None
        host, port = self.addresses[number]
        process = subprocess.Popen(
            [*self.command, environ["_HANDLER"]],
            cwd=self.directory / spec.code_digest.hex(),
            env=environ | {"AWS_LAMBDA_RUNTIME_API": f"{host}:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.processes[number] = process
        self._gone[number] = asyncio.get_running_loop().create_future()
        pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(pidfd, self._on_exit, number, pidfd)

    def _on_exit(self, number: int, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(self.processes[number].pid, 0)
        self.processes[number].returncode = os.waitstatus_to_exitcode(status)
        self._gone[number].set_result(None)
        self.on_exited(Exited(number, status, self.kill_as_out_of_memory and status == signal.SIGKILL))

    def warm_image(self, image_digest: bytes, memory_mb: int, environ: int) -> None:
        self.warmed.append((image_digest, memory_mb, os.pread(environ, 1 << 16, 0)))

    def init_ended(self, environment_id: int) -> None:
        self.inits_ended.append(environment_id)

    async def destroy(self, environment_id: int) -> None:
        self.destroyed.append(environment_id)
        writer = self.log_writers.pop(environment_id, None)
        if writer is not None:
            os.close(writer)
        process = self.processes.get(environment_id)
        if process is not None:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await self._gone[environment_id]


def _listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    return sock


def make_config(tmp_path: Path, **limits: Any) -> Config:
    config = Config(data_dir=tmp_path, run_dir=tmp_path)
    return replace(config, limits=replace(config.limits, **limits))


def make_function(directory: Path, code: str | None = None, **settings: Any) -> FunctionVersion:
    """A function version whose package, of one module, lies where LoopbackBuilder looks for it."""
    digest = hashlib.sha256((code or "").encode()).hexdigest()
    if code is not None:
        (directory / digest).mkdir(exist_ok=True)
        (directory / digest / "app.py").write_text(code)
    name = settings.pop("name", "hello")
    values: dict[str, Any] = {
        "version": "$LATEST", "arn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}",
        "runtime": "python3.13", "role": "arn:aws:iam::000000000000:role/x", "handler": "app.handler",
        "code_size": 1, "memory_size": 128, "timeout": 5, "revision_id": "r1", "last_modified": "",
    }  # fmt: skip
    return FunctionVersion(name=name, code_digest=digest, **(values | settings))


def make_invocation(function: FunctionVersion, payload: bytes = b"{}", **settings: Any) -> Invocation:
    number = hashlib.sha256(os.urandom(8)).hexdigest()
    request_id = f"{number[:8]}-{number[8:12]}-4{number[12:15]}-8{number[15:18]}-{number[18:30]}"
    return Invocation(request_id, function, function.arn, payload, **({"tail": True} | settings))


async def no_door(function: FunctionVersion, request: Request) -> Response:
    return Response(403)


class Stage:
    """A builder, logs and ground for environments, from `with` to end."""

    def __init__(self, tmp_path: Path, command: tuple[str, ...] | None = RUNTIME, **limits: Any) -> None:
        self.directory = tmp_path
        self.builder = LoopbackBuilder(tmp_path, command)
        self.config = make_config(tmp_path, **limits)
        self.door_handler: Callable[[FunctionVersion, Request], Any] = no_door
        self.lost: list[int] = []
        self.environments: dict[int, Environment] = {}

    async def __aenter__(self) -> Stage:
        self.logs = Logs(self.directory / "logs", "000000000000")
        self.ground = Ground(self.config, self.builder, self.logs, Budget(64 << 20), self.door_handler)
        self.builder.on_exited = self._on_exited
        return self

    async def __aexit__(self, *exc: object) -> None:
        for environment in self.environments.values():
            await environment.destroy()
        self.logs.close()

    def _on_exited(self, exited: Exited) -> None:
        self.environments[exited.environment_id].exited(exited)

    def function(self, code: str | None = None, **settings: Any) -> FunctionVersion:
        return make_function(self.directory, code, **settings)

    def environment(self, function: FunctionVersion, ahead: bool = False) -> Environment:
        number = len(self.environments) + 1
        made = Environment(number, function, IMAGE, self.ground, self.lost.append, ahead)
        self.environments[number] = made
        return made

    def log(self, function: FunctionVersion) -> str:
        return self.logs.read(function.account, function.name, function.version, 0, 1 << 24)[1].decode()
