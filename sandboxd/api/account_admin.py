"""The administration of one account, a part of what is under /sandboxd/v1/: policies and logs of functions, keys, users
and roles.

Room: service. May: what the API may, and keys, policies, logs.
"""

from __future__ import annotations

import asyncio
import codecs
import dataclasses
import re
from typing import Any

from sandboxd.api.calls import Result
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.functions import FunctionsApi
from sandboxd.api.names import Names
from sandboxd.api.principals import GroupsApi, Handler, RolesApi, UsersApi
from sandboxd.api.protocols import Logs
from sandboxd.api.roles import Roles
from sandboxd.api.validation import read_json
from sandboxd.errors import ApiError
from sandboxd.http import Request
from sandboxd.model.arn import LATEST
from sandboxd.model.egress import EgressRule, HostRule, check_bounds, parse
from sandboxd.model.function import Policy
from sandboxd.store.keys import NoSuchUser
from sandboxd.store.principals import ADMIN
from sandboxd.store.store import Store

_LOG_CHUNK = 262_144
_LOG_WAIT = 30.0  # seconds
_DESCRIPTION = 256
_VERSION = re.compile(r"[0-9]{1,20}")


class AccountAdminApi:
    """What is administered of an account."""

    def __init__(self, store: Store, functions: FunctionsApi, names: Names, roles: Roles, logs: Logs) -> None:
        self._store, self._functions, self._names = store, functions, names
        self._roles, self._logs = roles, logs
        self.routes: dict[tuple[str, str], Handler] = {
            ("GET", "functions/*/policy"): self._get_policy,
            ("PUT", "functions/*/policy"): self._put_policy,
            ("GET", "functions/*/network"): self._get_network,
            ("GET", "functions/*/logs"): self._read_logs,
            ("GET", "keys"): self._list_keys,
            ("POST", "keys"): self._create_key,
            ("DELETE", "keys/*"): self._delete_key,
        }
        one = asyncio.Lock()
        self.routes |= UsersApi(store, store.users, roles, one).routes()
        self.routes |= GroupsApi(store, store.groups, roles, one).routes()
        self.routes |= RolesApi(store, store.roles, roles, one).routes()

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

    def _name(self, subject: str) -> str:
        name, _ = self._names.resolve(subject, action="GetFunction")
        return name


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
