"""The sandbox of one environment as the service holds it: descriptors that the builder passed out.

Room: service. May: ask the builder through its client; use and close those descriptors. May not: judge what goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Protocol

from sandboxd.config import Config
from sandboxd.environment import guest_environ, memory
from sandboxd.environment.logs import Logs
from sandboxd.environment.output import Output
from sandboxd.environment.resolver import Resolver
from sandboxd.environment.runtime_api import RuntimeApi
from sandboxd.environment.upstream import Upstream
from sandboxd.errors import SandboxdError
from sandboxd.http import Budget, HttpLimits, Request, Response, Server, serve
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.model.function import FunctionVersion
from sandboxd.model.network import Network
from sandboxd.privsep.channel import close_all
from sandboxd.privsep.client import BuilderGone

DoorHandler = Callable[[FunctionVersion, Request], Response | asyncio.Future[Response] | Coroutine[Any, Any, Response]]

Credentials = Callable[[FunctionVersion], Mapping[str, str]]


Networks = Callable[[FunctionVersion], Network]


def no_credentials(_: FunctionVersion) -> Mapping[str, str]:
    """Of functions without a role."""
    return {}


def own_network(function: FunctionVersion) -> Network:
    """What functions without a role may reach."""
    return Network(function.policy.egress, function.policy.hosts)


class Builder(Protocol):
    """What an environment asks the builder for; privsep.client.Client."""

    async def bind(self, spec: EnvironmentSpec, process_environ: int) -> list[int]:
        """Make it."""

    def warm_image(self, image_digest: bytes, memory_mb: int, environ: int) -> None:
        """Boot runtimes of it ahead."""

    def init_ended(self, environment_id: int) -> None:
        """Give it its own share of CPU."""

    async def open_addresses(
        self, environment_id: int, addresses: Sequence[IPv4Address], ports: Sequence[int], ttl: int
    ) -> None:
        """Let it reach them for a while."""

    async def destroy(self, environment_id: int) -> None:
        """End it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What every environment of a service stands on."""

    config: Config
    builder: Builder
    logs: Logs
    budget: Budget
    door_handler: DoorHandler
    credentials: Credentials = no_credentials
    network: Networks = own_network


class EnvironmentEnded(SandboxdError):
    """The environment was destroyed under its invocation: the service ends."""


class Sandbox:
    """One sandbox: asked for with `bind`, served, and ended with `destroy`, from when on it holds nothing."""

    __slots__ = (
        "_ahead", "_binding", "_bound", "_descriptors", "_ended", "_freeze", "_function", "_ground", "_id",
        "_image_digest", "_memory_stat", "_network", "_resolver", "_servers", "memory_seen", "output",
    )  # fmt: skip

    def __init__(
        self, environment_id: int, function: FunctionVersion, image_digest: bytes, ground: Ground, ahead: bool = False
    ) -> None:
        self._id, self._function, self._image_digest, self._ground = environment_id, function, image_digest, ground
        self._ahead = ahead
        self.output = Output(ground.logs.stream(function.account, function.name, function.version))
        self._binding: asyncio.Future[None] | None = None
        self._bound = self._ended = False
        self._servers: list[Server] = []
        self._resolver: Resolver | None = None
        self._network = Network()
        self._descriptors: list[int] = []
        self._freeze = self._memory_stat = -1
        self.memory_seen = 0

    async def bind(self) -> list[int]:
        """Have it made; the descriptors of its doors, the caller's to serve. Its runtime runs from now on.

        Raises StepFailed, BuilderGone, ApiError where its role gives it nothing to run with, and EnvironmentEnded where
        it was ended meanwhile.
        """
        function, ground = self._function, self._ground
        limits = ground.config.limits
        network = self._network = ground.network(function)
        spec = EnvironmentSpec(
            self._id, self._image_digest, bytes.fromhex(function.code_digest), function.memory_size,
            function.ephemeral_storage, limits.pids, limits.open_files, function.policy.invoke,
            guest_environ.read_at_exec(function), network.egress, network.host_ports, _layers(function), network.denied,
        )  # fmt: skip
        log_stream = guest_environ.log_stream_name(time.strftime("%Y/%m/%d", time.gmtime()), function.version)
        variables = guest_environ.variables(
            function,
            ground.config.region,
            log_stream,
            self._ahead,
            ground.credentials(function),
            ground.config.services_for_functions,
        )
        environ = guest_environ.sealed(variables)
        self._binding = asyncio.get_running_loop().create_future()
        try:
            descriptors = await ground.builder.bind(spec, environ)
            self._bound = True
        finally:
            os.close(environ)
            self._binding.set_result(None)
        if self._ended:
            close_all(descriptors)
            raise EnvironmentEnded("the service ends")
        runtime_api, log, self._freeze, frozen_events, self._memory_stat, *doors = descriptors
        self._descriptors = [self._freeze, frozen_events, self._memory_stat]
        self.output.attach(log)
        return [runtime_api, *doors]

    async def serve(self, doors: list[int], api: RuntimeApi) -> None:
        """Serve the doors that `bind` returned: the Runtime API, then those that the policy asks for."""
        config = self._ground.config
        runtime_api, *others = doors
        if self._network.hosts:
            *others, udp, tcp = others
            opener = functools.partial(self._ground.builder.open_addresses, self._id)
            self._resolver = Resolver(self._network, Upstream(config.resolvers), opener, udp, tcp)
        self._servers.append(await api.serve(runtime_api, self._ground.budget))
        for door in others:
            self._servers.append(await self._serve_invoke_door(door))
        if self._ended:
            self.close()

    async def _serve_invoke_door(self, listening: int) -> Server:
        size = self._ground.config.limits.sync_payload_bytes
        limits = HttpLimits(body=size, header=64 * 1024, connections=64)
        budget = Budget(4 * size, whole=self._ground.budget)
        handler = functools.partial(self._ground.door_handler, self._function)
        return await serve(socket.socket(fileno=listening), handler, limits, budget, backlog=64, paced=True)

    def init_ended(self) -> None:
        """Its init phase is over."""
        self._ground.builder.init_ended(self._id)

    def freeze(self) -> None:
        """Have the kernel stop every process in it, soon."""
        self._write_freeze(b"1")

    def thaw(self) -> None:
        """Have them go on."""
        self._write_freeze(b"0")

    def _write_freeze(self, value: bytes) -> None:
        with contextlib.suppress(OSError):  # the group is gone where the builder is: that is heard elsewhere
            os.pwrite(self._freeze, value, 0)

    def max_memory(self) -> int:
        """The most memory seen in use, in bytes, now included."""
        if self._memory_stat >= 0:
            with contextlib.suppress(OSError):
                self.memory_seen = max(self.memory_seen, memory.used_bytes(self._memory_stat))
        return self.memory_seen

    def close(self) -> None:
        """End every connection and close every descriptor."""
        self._ended = True
        for server in self._servers:
            server.abort()
        self._servers = []
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None
        self.output.close()
        close_all(self._descriptors)
        self._descriptors = []
        self._freeze = self._memory_stat = -1

    async def destroy(self) -> None:
        """End it with everything in it; returns when nothing is left."""
        self.close()
        if self._binding is not None:
            await self._binding
        if self._bound:
            with contextlib.suppress(BuilderGone, OSError):  # with the builder, every environment is gone
                await self._ground.builder.destroy(self._id)


def _layers(function: FunctionVersion) -> tuple[bytes, ...]:
    """The digests of its layers, each once: of one that two layers share only the upper can be seen."""
    from_above = dict.fromkeys(bytes.fromhex(layer.digest) for layer in reversed(function.layers))
    return tuple(reversed(from_above))
