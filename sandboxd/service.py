"""The service: REST API, scheduler, Runtime API and store in one unprivileged process.

Room: service, user `sandboxd`, no capability. May: talk to clients, functions and, by messages, to the builder.
May not: exec, fork, mount, kill by pid, touch netlink: `service_profile.json` names all the system calls it has. This
file only puts the rooms together.

Everything is imported before privilege is given up, and nothing behind it: the interpreter and the checkout may lie in
a directory, such as /root, that the service's user cannot read, and the filter lets no library in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import pwd
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prctl
import uvloop

from sandboxd import landlock
from sandboxd.api import service_model
from sandboxd.api.server import Api
from sandboxd.config import Config
from sandboxd.environment.logs import Logs
from sandboxd.environment.upstream import RESOLV_CONF
from sandboxd.errors import ApiError
from sandboxd.events.mode import EventMode
from sandboxd.http import Budget, HttpLimits, Server, serve
from sandboxd.privsep.client import Client
from sandboxd.scheduler.scheduler import Scheduler
from sandboxd.seccomp import make_filter, read_profile
from sandboxd.services import Neighbours
from sandboxd.store.store import Stores

_BODY_BUDGET = 512 * 1024 * 1024  # of requests that are buffered at one time, on the whole host
_BACKLOG = 4096
_CONNECTIONS = 8192  # at one time, of TCP and of the unix socket: one takes 3 KB before a byte of a request has come
_BEAT_SECONDS = 2.0
_LAST_REQUEST_SECONDS = 0.5  # a request may be on its way on a connection that looks idle; its sender could not know
_PROFILE, _CONNECTS = "service_profile.json", "service_connects.json"
_UNUSED = (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_RTPRIO)

log = logging.getLogger("sandboxd.service")


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The descriptors that the keeper hands over."""

    config: int
    builder: int
    beats: int
    tcp: int
    unix: int


def main() -> None:
    """Become the service: `python -m sandboxd.service CONFIG_FD BUILDER_FD BEATS_FD TCP_FD UNIX_FD`."""
    given = Inheritance(*map(int, sys.argv[1:6]))
    with os.fdopen(given.config, "rb") as file:
        config = pickle.load(file)  # noqa: S301  # from the keeper, which is root
    prctl.set_name("sandboxd-serve")
    prctl.set_proctitle("sandboxd: service")
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    service_model.document()
    neighbours = _neighbours(config)
    _set_limits()
    filter_ = make_filter(_profile(config))
    _drop_privilege(config.user)
    if not landlock.restrict(_reachable(config), config.ports):
        log.warning(
            "this kernel has no Landlock: only the permissions of user %s keep the service's files", config.user
        )
    filter_.load()
    uvloop.run(_serve(config, given, neighbours))


def _set_limits() -> None:
    """As many descriptors as there may be; of what a service has no use for, nothing."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for kind in _UNUSED:
        resource.setrlimit(kind, (0, 0))


def _profile(config: Config) -> dict[str, Any]:
    """The system calls that the service has: to connect is among them where the configuration names an endpoint."""
    profile = read_profile("sandboxd", _PROFILE)
    if config.ports:
        profile["syscalls"] += read_profile("sandboxd", _CONNECTS)["syscalls"]
    return profile


def _reachable(config: Config) -> dict[str, int]:
    """The files that the service has a use for; beneath all others it may not even look."""
    reachable = {
        str(config.service_dir): landlock.CHANGE,
        str(config.images_dir): landlock.READ,
        str(config.code_dir): landlock.READ_DIR,  # which packages are there, to remove what no function is made from
        "/etc": landlock.READ,  # groups, and who is asked for names
        "/dev/null": landlock.WRITE_FILE,
    }
    resolvers = os.path.dirname(os.path.realpath(RESOLV_CONF))
    return reachable | ({resolvers: landlock.READ} if os.path.isdir(resolvers) else {})


def _neighbours(config: Config) -> Neighbours:
    """What the configuration has beyond this host's own; its certificates are read now, wherever they are."""
    try:
        return Neighbours(config)
    except OSError as error:
        raise SystemExit(f"sandboxd service: the certificates of {config.ca_file or 'this host'}: {error}") from None


def _drop_privilege(user: str) -> None:
    """Give up root for good: bounding set, groups, ids, and every way back by execve."""
    account = pwd.getpwnam(user)
    prctl.capbset.limit()
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    prctl.set_no_new_privs(1)
    os.umask(0o077)
    held = Path("/proc/self/status").read_text().split("Cap", 1)[1]
    if os.getresuid() != (account.pw_uid,) * 3 or re.findall(
        r"(?:Inh|Prm|Eff|Bnd|Amb):\t(?!0{16}$)", held, re.MULTILINE
    ):
        raise SystemExit("sandboxd service: privilege could not be given up")


async def _serve(config: Config, given: Inheritance, neighbours: Neighbours) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def end(reason: str) -> None:
        if not over.done():
            over.set_result(reason)

    channel = socket.socket(fileno=given.builder)
    builder = Client(channel, on_exited=lambda exited: scheduler.on_exited(exited), on_gone=end)
    await builder.ready()
    stores = await Stores.open(config, builder)
    logs = Logs(config.service_dir / "logs", config.account_id)
    budget = Budget(_BODY_BUDGET)
    scheduler = Scheduler(
        config,
        builder,
        logs,
        lambda runtime: _image_digest(stores, runtime),
        lambda function, request: api.handle_invoke_door(function, request),
        budget,
        lambda function: api.credentials(function),
        lambda function: api.network(function),
    )
    for runtime, other in config.runtimes.items():
        log.info("%s is served by the image of %s", runtime, other)
    scheduler.warm(version for store in stores for version in store.functions.all())
    events = EventMode(config, stores, neighbours)
    api = Api(config, stores, scheduler, events, logs, neighbours)
    servers = await _open_doors(given, api, budget)
    loop.add_signal_handler(signal.SIGTERM, end, "stop")
    os.set_blocking(given.beats, False)
    beating = loop.create_task(_beat(builder, given.beats, end))
    await events.start(api.run, api.may_send)
    log.info("serving http://%s:%d and %s", *config.api_listen, config.api_socket)
    reason = await over
    beating.cancel()
    events.stop()
    if reason == "stop":
        await _drain(servers, scheduler, logs, config.drain)
    for server in servers:
        server.abort()
    await api.close()
    await events.close()
    logs.close()
    stores.close()
    builder.close()
    if reason != "stop":
        log.error("%s", reason)
        sys.exit(1)


def _image_digest(stores: Stores, runtime: str) -> bytes:
    digest = stores.images.digest(runtime)
    if digest is None:  # removed since the function was made
        text = f"There is no image of {runtime}: sandboxd image build {stores.images.serving(runtime)}"
        raise ApiError("ServiceException", text, 500, fault="Service")
    return bytes.fromhex(digest)


async def _open_doors(given: Inheritance, api: Api, budget: Budget) -> list[Server]:
    # Whoever is not yet known may hold only a part of what the service has: functions need the rest.
    strangers = Budget(_BODY_BUDGET // 2, whole=budget)
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = HttpLimits(
        body=api.body_limit, discard=2 * api.body_limit, connections=min(descriptors // 4, _CONNECTIONS)
    )
    doors = ((given.tcp, api.handle_tcp, api.admit_tcp), (given.unix, api.handle_unix, None))
    return [
        await serve(socket.socket(fileno=fd), handler, limits, strangers, api.refuse, _BACKLOG, api.oversized, admit)
        for fd, handler, admit in doors
    ]


async def _beat(builder: Client, beats: int, end: Callable[[str], None]) -> None:
    """Tell the keeper, again and again, that this loop turns and that the builder answers.

    A keeper that is killed takes the builder along, and with it this process, unless the builder was so young that it
    had not asked for that yet: the first word here finds nobody who reads it.
    """
    while True:
        await builder.answers()
        try:
            os.write(beats, b".")
        except BrokenPipeError:
            end("the keeper is gone")
        except BlockingIOError:  # it has left some 60,000 unread
            pass
        await asyncio.sleep(_BEAT_SECONDS)


async def _drain(servers: list[Server], scheduler: Scheduler, logs: Logs, seconds: float) -> None:
    """Take no new connection, answer each request on those that are open, and end what takes longer than `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    for server in servers:
        server.stop_listening()
    logs.wake_readers()
    last = min(_LAST_REQUEST_SECONDS, seconds)
    finishing = [loop.create_task(server.finish(last)) for server in servers]
    await asyncio.wait(finishing, timeout=seconds)
    await scheduler.drain(max(0.0, deadline - loop.time()))  # what nobody waits for any more; else nothing is left
    _, unfinished = await asyncio.wait(finishing, timeout=1)
    for task in unfinished:
        task.cancel()


if __name__ == "__main__":
    main()
