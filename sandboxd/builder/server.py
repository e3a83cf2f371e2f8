"""The builder: answers the service's requests, one `answer_…` for every `client.…`.

Room: root, one thread, pid 1 of the outer pid namespace. May: everything of the kernel. May not: parse HTTP, JSON or a
zip, listen, or believe the service: what a message asks for was bounded in `privsep.messages` and is checked again
against what exists here. A message outside the table ends this process, and with it every environment.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address

from sandboxd.builder.ahead import REFILL_SECONDS, SPARES, Ahead
from sandboxd.builder.environment import Building, Environment, Host
from sandboxd.builder.network import ADMIT, OPEN
from sandboxd.builder.packages import Packages
from sandboxd.builder.zygote import Zygote
from sandboxd.builder.zygotes import Zygotes
from sandboxd.config import Config
from sandboxd.errors import ProtocolViolation, StepFailed
from sandboxd.model.environment import EnvironmentSpec
from sandboxd.privsep import channel as door
from sandboxd.privsep.messages import (
    REQUESTS,
    AddressesOpened,
    Answer,
    Bind,
    BindFailed,
    Bound,
    Destroy,
    Destroyed,
    Exited,
    InitEnded,
    OpenAddresses,
    Ping,
    Ready,
    RemoveCode,
    Unpack,
    WarmImage,
    decode,
    encode,
)

log = logging.getLogger("sandboxd.builder")
_MAX_UNCLAIMED = 256  # other children of ours, and orphans of environments
_SHUTDOWN_SECONDS = 8.0
_MAX_OPENING = 64  # requests for the router at one time: both block when the other's queue is full
_RETRY_SECONDS = 0.005
_IDLE_SECONDS = 1.0  # how soon what could not be made ahead is tried again


class Server:
    """Answers one service over one channel until either ends."""

    def __init__(
        self,
        config: Config,
        generation: str,
        channel: socket.socket,
        host: Host,
        code_directory: int,
        extractor: bytes,
        zygotes_files: list[int],
    ) -> None:
        self._config, self._generation, self._channel, self._host = config, generation, channel, host
        self._environments: dict[int, Environment] = {}
        self._by_pid: dict[int, Environment] = {}
        self._ending: set[Environment] = set()
        self._zygotes = Zygotes(host, zygotes_files, self._next_name, self._begin_zygote, self._end)
        self._ahead = Ahead(host, self._prepare, self._zygotes, self._end, config.memory)
        self._made = 0
        self._unclaimed: dict[int, int] = {}  # exit statuses that overtook the record that names their process
        self._selector = selectors.EpollSelector()
        self._packages = Packages(code_directory, extractor, config.limits, host, self._selector, self._say)
        self._selector.register(channel, selectors.EVENT_READ, self._on_request)
        self._selector.register(host.router.channel, selectors.EVENT_READ, self._on_router)
        self._selector.register(host.volumes.channel, selectors.EVENT_READ, self._on_templates)
        self._released: dict[int, IPv4Address] = {}
        self._opening: deque[int] = deque()  # requests that the router has not answered yet; it keeps their order
        self._open = True

    def run(self) -> None:
        """Serve until the service closes its end, then end everything."""
        wakeup, signalled = socket.socketpair()
        signalled.setblocking(False)
        wakeup.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child's signals are its own
        self._selector.register(wakeup, selectors.EVENT_READ, lambda: self._on_child_signal(wakeup))
        try:
            self._serve()
        finally:
            signal.set_wakeup_fd(-1)  # before its socket is closed: a child that ends then would be told as a traceback

    def _serve(self) -> None:
        for _ in range(SPARES):
            self._ahead.refill()
        self._say(Ready())
        while self._open:
            self._turn()
        self._ahead.end()
        for environment in list(self._environments.values()):
            self._end(environment)
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        while self._ending and time.monotonic() < deadline:
            self._turn()

    def _turn(self) -> None:
        wanting = self._open and self._ahead.wanting()
        ready = self._selector.select(_RETRY_SECONDS if self._ending else REFILL_SECONDS if wanting else _IDLE_SECONDS)
        for key, _ in ready:
            handler: Callable[[], None] = key.data
            handler()
        if not ready and wanting:
            self._ahead.refill()
        for environment in list(self._ending):
            self._finish_end(environment)

    # requests

    def _on_request(self) -> None:
        try:
            datagram, descriptors = door.receive(self._channel)
        except (BlockingIOError, ConnectionResetError):
            return
        if not datagram:
            self._open = False
            self._selector.unregister(self._channel)
            return
        try:
            match decode(REQUESTS, datagram, len(descriptors)):
                case Bind() as message:
                    door.check_sealed(descriptors[0])
                    self._answer_bind(message, descriptors[0])
                case InitEnded(environment_id):
                    self._answer_init_ended(environment_id)
                case WarmImage(image, memory_mb):
                    door.check_sealed(descriptors[0])
                    self._ahead.warm((image, memory_mb), descriptors[0])
                case Destroy(environment_id):
                    self._answer_destroy(environment_id)
                case Unpack() as message:
                    door.check_file(descriptors[0])
                    self._packages.answer_unpack(message, descriptors[0])
                case OpenAddresses() as message:
                    self._answer_open_addresses(message)
                case Ping():
                    self._say(Ready())
                case RemoveCode(digest):
                    self._packages.answer_remove(digest)
        finally:
            door.close_all(descriptors)

    def _say(self, answer: Answer, descriptors: list[int] | None = None) -> None:
        try:
            door.send(self._channel, encode(answer), descriptors or ())
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise

    # environments

    def _answer_bind(self, message: Bind, environ: int) -> None:
        number = message.spec.environment_id
        if number in self._environments or number in self._released:  # the router, too, knows it by its number
            raise ProtocolViolation(f"environment {number} exists")
        limits, spec = self._config.limits, message.spec
        if spec.memory_mb > limits.memory_mb_max or spec.tmp_mb > limits.ephemeral_storage_mb_max:
            self._say_failed(number, StepFailed("limits", errno.EPERM))  # a function from before they were lowered
            return
        stem = self._ahead.take_stem(message.spec)
        if stem is not None:
            stem.environ = os.dup(environ)
            self._answer_bind_with_stem(stem, spec)
            return
        child = self._ahead.take_child(spec)
        if child is not None:
            child.spec, child.environ = spec, os.dup(environ)
            self._environments[number] = child
            return
        self._bind_spare(spec, environ)

    def _bind_spare(self, spec: EnvironmentSpec, environ: int) -> None:
        number = spec.environment_id
        try:
            environment = self._ahead.take_spare()
        except (StepFailed, OSError) as error:
            self._say_failed(number, error)
            return
        self._environments[number] = environment
        try:
            self._host.bind(environment, spec, environ)
        except (StepFailed, OSError) as error:
            log.warning("environment %d: %s", number, error)
            environment.abandon(error.step if isinstance(error, StepFailed) else "bind", error.errno or 0)

    def _answer_bind_with_child(self, environment: Environment) -> None:
        """A zygote's child has become a stem, whose function is known already."""
        assert environment.spec is not None
        if self._zygotes.confirm(environment):
            self._answer_bind_with_stem(environment, environment.spec)
        else:
            self._bind_another_way(environment, environment.spec)

    def _bind_another_way(self, child: Environment, spec: EnvironmentSpec) -> None:
        """A zygote's child failed before it was anything: a spare takes its place, and the zygote is given up."""
        child.spec = None
        del self._environments[spec.environment_id]
        self._bind_spare(spec, child.environ)
        self._ahead.lose(child)

    def _answer_bind_with_stem(self, environment: Environment, spec: EnvironmentSpec) -> None:
        self._environments[spec.environment_id] = environment
        self._go_on_with_stem(environment, spec.environment_id, lambda: self._host.bind_stem(environment, spec))

    def _go_on_with_stem(self, environment: Environment, number: int, part: Callable[[], None]) -> None:
        """Do a part of binding it; answer where it was the last, or failed."""
        try:
            if environment.ending:
                raise StepFailed("destroyed", 0)
            part()
        except (StepFailed, OSError) as error:
            self._say_failed(number, error)
            self._end(environment)
            return
        if not environment.linking:
            self._say_bound(environment, number)

    def _say_bound(self, environment: Environment, number: int) -> None:
        descriptors = environment.take_descriptors()
        self._say(Bound(number), descriptors)
        door.close_all(descriptors)
        environment.running = True
        self._say_exited(environment)

    def _say_failed(self, number: int, error: StepFailed | OSError) -> None:
        log.warning("environment %d: %s", number, error)
        step = error.step if isinstance(error, StepFailed) else "host side"
        self._say(BindFailed(number, error.errno or 0, step))

    def _next_name(self) -> str:
        self._made += 1
        return f"{self._generation}-{self._made}"

    def _begin_zygote(self, environment: Environment) -> None:
        self._by_pid[environment.maker] = environment
        self._selector.register(environment.channel, selectors.EVENT_READ, lambda: self._on_mapper(environment))

    def _on_mapper(self, environment: Environment) -> None:
        if not self._zygotes.hear(environment):
            self._selector.unregister(environment.channel)
            environment.channel.close()
            self._ahead.lose_zygote(environment)

    def _prepare(self, mother: Zygote | None) -> Environment:
        environment = self._host.prepare(self._next_name(), mother)
        if environment.maker:
            self._by_pid[environment.maker] = environment
        self._selector.register(environment.channel, selectors.EVENT_READ, lambda: self._on_child(environment))
        return environment

    def _on_child(self, environment: Environment) -> None:
        state = self._host.hear(environment)
        if state is Building.FORKED:
            for pid in (environment.pid1, environment.runtime):
                self._by_pid[pid] = environment
            for pid in (environment.pid1, environment.runtime):
                if pid in self._unclaimed:
                    self._on_exit(pid, self._unclaimed.pop(pid))
        if state is not Building.OVER:
            return
        self._selector.unregister(environment.channel)
        environment.channel.close()
        if environment.spec is None:
            self._ahead.settle(environment)
            return
        number = environment.spec.environment_id
        if environment.failure is None and not environment.ending and environment.environ >= 0:
            self._answer_bind_with_child(environment)
        elif environment.failure is None and not environment.ending:
            self._say_bound(environment, number)
        elif environment.environ >= 0 and not environment.ending:
            self._bind_another_way(environment, environment.spec)
        else:
            step, reason = environment.failure or ("destroyed", 0)
            self._say(BindFailed(number, reason, step))
            self._end(environment)

    def _on_router(self) -> None:
        request, number, reason, step = self._host.router.reply()
        if request == OPEN:
            self._say(AddressesOpened(self._opening.popleft(), reason))
        elif request == ADMIT:
            environment, failure = self._environments[number], (step, reason) if reason else None
            environment.linking = False
            if environment.channel.fileno() >= 0:
                self._host.go_on(environment, failure)
            elif environment.orders >= 0:
                self._go_on_with_stem(environment, number, lambda: self._host.give_orders(environment, failure))
        else:
            self._host.router.addresses.give_back(self._released.pop(number))

    def _on_templates(self) -> None:
        """The maker of templates says nothing unasked: it ended, and as with the router, this room ends too."""
        raise OSError(errno.EPIPE, "the maker of templates ended")

    def _answer_open_addresses(self, message: OpenAddresses) -> None:
        environment = self._environments.get(message.environment_id)
        if environment is None or environment.spec is None or environment.ending or not environment.running:
            self._say(AddressesOpened(message.request_id, errno.ENOENT))
        elif not set(message.ports) <= set(environment.spec.host_ports):
            raise ProtocolViolation(f"environment {message.environment_id}: a port that no host is permitted at")
        elif len(self._opening) >= _MAX_OPENING:
            self._say(AddressesOpened(message.request_id, errno.EAGAIN))
        else:
            self._opening.append(message.request_id)
            self._host.router.open(message)

    def _answer_init_ended(self, environment_id: int) -> None:
        environment = self._environments.get(environment_id)
        if environment is not None and environment.spec is not None and not environment.ending:
            try:
                environment.cgroup.limit_cpu(environment.spec.cpu_quota)
            except (StepFailed, OSError) as error:
                log.warning("environment %d: %s", environment_id, error)
                environment.cgroup.kill()  # rather none than one without its limit; the service hears that it ended

    def _answer_destroy(self, environment_id: int) -> None:
        environment = self._environments.get(environment_id)
        if environment is None:
            self._say(Destroyed(environment_id))
            return
        environment.destroy_asked = True
        self._end(environment)

    def _end(self, environment: Environment) -> None:
        if not environment.ending:
            environment.ending = True
            environment.cgroup.kill()
            if environment.maker in self._by_pid:  # not reaped; it may not have entered its cgroup yet
                os.kill(environment.maker, signal.SIGKILL)
            self._ending.add(environment)

    def _finish_end(self, environment: Environment) -> None:
        if environment.channel.fileno() >= 0 or environment.linking or not self._host.remove(environment):
            return
        self._ending.discard(environment)
        for pid in (environment.pid1, environment.runtime):
            self._by_pid.pop(pid, None)
        if environment.spec is None:
            return
        number = environment.spec.environment_id
        del self._environments[number]
        if environment.address is not None:
            self._released[number] = environment.address
        if environment.destroy_asked:
            self._say(Destroyed(number))

    def _on_child_signal(self, wakeup: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            wakeup.recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._on_exit(pid, status)

    def _on_exit(self, pid: int, status: int) -> None:
        if self._packages.take_exit(pid, status):
            return
        environment = self._by_pid.pop(pid, None)
        if environment is None:
            self._unclaimed[pid] = status
            if len(self._unclaimed) > _MAX_UNCLAIMED:
                del self._unclaimed[next(iter(self._unclaimed))]
        elif pid == environment.runtime:
            environment.exit_status = status
            if environment.spec is None and environment.channel.fileno() < 0:
                self._ahead.lose(environment)
            self._say_exited(environment)

    def _say_exited(self, environment: Environment) -> None:
        """Tell of a runtime that ended, once the service knows the environment, and unless it asked for the end."""
        status = environment.exit_status
        if status is not None and environment.running and environment.spec and not environment.ending:
            self._say(Exited(environment.spec.environment_id, status, environment.cgroup.out_of_memory()))
