"""The administration of the daemon, under /sandboxd/v1/ on the unix socket.

Room: service. May: what the API may, and keys, policies, logs. May not: be reached over TCP.
"""

from __future__ import annotations

import codecs
import dataclasses
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from sandboxd import __version__
from sandboxd.api.calls import Result
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.functions import FunctionsApi
from sandboxd.api.names import Names
from sandboxd.api.principals import Handler, RolesApi, UsersApi
from sandboxd.api.protocols import Events, Logs, Scheduler
from sandboxd.api.roles import Roles
from sandboxd.api.routes import read_query
from sandboxd.api.validation import read_json
from sandboxd.config import Config
from sandboxd.errors import ApiError
from sandboxd.http import Request
from sandboxd.model.arn import LATEST
from sandboxd.model.egress import EgressRule, HostRule, check_bounds, parse
from sandboxd.model.function import Policy
from sandboxd.store.keys import NoSuchUser
from sandboxd.store.principals import ADMIN
from sandboxd.store.store import Store

PREFIX = "/sandboxd/v1/"
_LOG_CHUNK = 262_144
_LOG_WAIT = 30.0  # seconds
_DESCRIPTION = 256
_VERSION = re.compile(r"[0-9]{1,20}")


class AdminApi:
    """Status, environments, policies, logs, keys, users, roles, images."""

    def __init__(
        self,
        config: Config,
        store: Store,
        functions: FunctionsApi,
        names: Names,
        roles: Roles,
        scheduler: Scheduler,
        events: Events,
        logs: Logs,
    ) -> None:
        self._config, self._store, self._functions, self._names = config, store, functions, names
        self._roles, self._scheduler, self._events, self._logs = roles, scheduler, events, logs
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "status"): self._status,
            ("GET", "environments"): self._environments,
            ("GET", "functions/*/policy"): self._get_policy,
            ("PUT", "functions/*/policy"): self._put_policy,
            ("GET", "functions/*/network"): self._get_network,
            ("GET", "functions/*/logs"): self._read_logs,
            ("GET", "keys"): self._list_keys,
            ("POST", "keys"): self._create_key,
            ("DELETE", "keys/*"): self._delete_key,
            ("POST", "images/refresh"): self._refresh_images,
        }
        self._routes |= UsersApi(store, store.users, config.account_id, roles).routes()
        self._routes |= RolesApi(store, store.roles, config.account_id, roles).routes()

    async def handle(self, request: Request) -> Result:
        """Answer a request whose path begins with PREFIX. Raises ApiError."""
        path, _, query = request.target.removeprefix(PREFIX).partition("?")
        segments = path.split("/")
        subject = ""
        if len(segments) > 1 and segments[0] in ("functions", "keys", "roles", "users"):
            subject, segments[1] = unquote(segments[1]), "*"
        handler = self._routes.get((request.method, "/".join(segments)))
        if handler is None:
            raise ApiError("ResourceNotFoundException", f"There is no {request.method} {request.target[:200]}", 404)
        return await handler(request, subject, read_query(query))

    async def _status(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        config = self._config
        host, port = config.api_listen
        return Result(
            200,
            {
                "Version": __version__,
                "Instance": config.instance,
                "Region": config.region,
                "AccountId": config.account_id,
                "Endpoint": endpoint(host, port),
                "Auth": config.api_auth,
                "Limits": dataclasses.asdict(config.limits),
                "Environments": len(self._scheduler.environments()),
                "Functions": len(self._store.functions),
                "Events": self._events.report(),
                "Images": self._images(),
                "Runtimes": dict(self._store.images.runtimes),
                "StartedAt": self._started,
            },
        )

    async def _environments(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        return Result(200, {"Environments": self._scheduler.environments()})

    async def _get_policy(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        return Result(200, _describe(self._functions.named(self._name(subject)).policy))

    async def _put_policy(self, request: Request, subject: str, _: dict[str, str]) -> Result:
        name = self._name(subject)
        policy = _read_policy(read_json(request.body))
        self._roles.check_network(dataclasses.replace(self._functions.named(name), policy=policy))
        await self._functions.set_policy(name, policy)
        return Result(200, _describe(policy))

    async def _get_network(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        """What new environments may reach: by the function's own setting, and by its role where that is kept here."""
        function = self._functions.named(self._name(subject))
        try:
            network = self._roles.network(function)
        except ApiError as error:
            return Result(200, {"Allow": [], "Deny": [], "Error": error.message})
        allowed, denied = (*network.egress, *network.hosts), (*network.denied, *network.denied_hosts)
        return Result(200, {"Allow": [*map(str, allowed)], "Deny": [*map(str, denied)]})

    async def _read_logs(self, _: Request, subject: str, query: dict[str, str]) -> Result:
        name = self._name(subject)
        self._functions.named(name)
        version = query.get("version", LATEST)
        if version != LATEST and not _VERSION.fullmatch(version):
            raise invalid_parameter("version is $LATEST or a number")
        try:
            offset, wait = int(query.get("offset", "0")), float(query.get("wait", "0"))
        except ValueError:
            raise invalid_parameter("offset and wait are numbers") from None
        whose = (self._names.account, name, version)
        after, data = self._logs.read(*whose, offset, _LOG_CHUNK)
        if not data and wait > 0:
            await self._logs.wait(*whose, after, min(wait, _LOG_WAIT))
            after, data = self._logs.read(*whose, after, _LOG_CHUNK)
        text, left = _whole_characters(data)
        return Result(200, {"Offset": after - left, "Data": text})

    async def _list_keys(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        rows = [
            {"AccessKeyId": k.id, "UserName": k.user, "Description": k.description, "CreateDate": k.create_date}
            for k in self._store.keys.all()
        ]
        return Result(200, {"Keys": rows})

    async def _create_key(self, request: Request, _: str, __: dict[str, str]) -> Result:
        body = read_json(request.body) if request.body else {}
        description = body.get("Description", "") if isinstance(body, dict) else None
        user = body.get("UserName", ADMIN) if isinstance(body, dict) else None
        if not isinstance(description, str) or len(description) > _DESCRIPTION or not description.isprintable():
            raise invalid_parameter(f"Description is a text of up to {_DESCRIPTION} characters")
        if not isinstance(user, str):
            raise invalid_parameter("UserName is a text")
        try:
            key = await self._store.keys.create(description, user)
        except NoSuchUser:
            text = f"The user with name {user[:64]} cannot be found."
            raise ApiError("ResourceNotFoundException", text, 404) from None
        return Result(
            201,
            {
                "AccessKeyId": key.id,
                "SecretAccessKey": key.secret,
                "UserName": key.user,
                "Description": key.description,
                "CreateDate": key.create_date,
            },
        )

    async def _delete_key(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        if not await self._store.keys.delete(subject):
            raise ApiError("ResourceNotFoundException", f"Key not found: {subject[:200]}", 404)
        return Result(204)

    async def _refresh_images(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        self._store.images.refresh()
        return Result(200, {"Images": self._images()})

    def _images(self) -> list[dict[str, Any]]:
        return [
            {"Runtime": image.runtime, "Digest": image.digest, "Bytes": image.bytes, "Built": image.built}
            for image in self._store.images.all()
        ]

    def _name(self, subject: str) -> str:
        name, _ = self._names.resolve(subject, action="GetFunction")
        return name


def endpoint(host: str, port: int) -> str:
    """The URL of the TCP door."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _describe(policy: Policy) -> dict[str, Any]:
    stated = [str(rule) for rule in (*policy.egress, *policy.hosts)] if policy.stated else None
    return {"AllowEgress": stated, "AllowInvoke": policy.invoke}


def _read_policy(document: Any) -> Policy:
    if not isinstance(document, dict) or not document.keys() <= {"AllowEgress", "AllowInvoke"}:
        raise invalid_parameter("A policy has AllowEgress and AllowInvoke, and nothing else")
    stated, invoke = document.get("AllowEgress"), document.get("AllowInvoke", False)
    egress = [] if stated is None else stated
    if not isinstance(egress, list) or not all(isinstance(rule, str) for rule in egress):
        raise invalid_parameter("AllowEgress is a list of CIDR:PORT and HOST:PORT, or null")
    if not isinstance(invoke, bool):
        raise invalid_parameter("AllowInvoke is true or false")
    try:
        rules = {parse(rule) for rule in egress}
        networks = sorted(rule for rule in rules if isinstance(rule, EgressRule))
        hosts = sorted(rule for rule in rules if isinstance(rule, HostRule))
        check_bounds(networks, [host.port for host in hosts])
    except ValueError as error:
        raise invalid_parameter(f"AllowEgress: {error}") from None
    return Policy(tuple(networks), tuple(hosts), invoke, stated is not None)


def _whole_characters(data: bytes) -> tuple[str, int]:
    """The text of some bytes of a log, and how many at the end are the beginning of a character still to come."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    left = len(decoder.getstate()[0])
    # A log that ends within a character would never be read past it.
    return (text, left) if text or not left else (decoder.decode(b"", final=True), 0)
