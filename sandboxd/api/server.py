"""The API's three doors: TCP with signatures, the unix socket with peer credentials, the door inside a sandbox.

Room: service. May: authenticate, route, answer.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
from collections.abc import Coroutine
from typing import Any

from sandboxd.api import event_sources
from sandboxd.api.accounts import Accounts
from sandboxd.api.admin import PREFIX as ADMIN
from sandboxd.api.admin import AdminApi, endpoint
from sandboxd.api.authorize import Authorizer
from sandboxd.api.callers import Root, Who
from sandboxd.api.calls import Call, Result
from sandboxd.api.downloads import PREFIX as DOWNLOADS
from sandboxd.api.downloads import Downloads
from sandboxd.api.errors import ErrorWriter, access_denied, not_offered, request_too_large
from sandboxd.api.function_urls import MARK
from sandboxd.api.handlers import Handlers, Host
from sandboxd.api.invoke import Target, invoke_target, new_request_id
from sandboxd.api.layers import prepare_model
from sandboxd.api.peers import Peers
from sandboxd.api.protocols import Events, Logs, Scheduler
from sandboxd.api.reclaim import Reclaimer
from sandboxd.api.routes import Routes, read_query
from sandboxd.api.service_model import ServiceModel
from sandboxd.api.sessions import SECONDS, Session, Sessions
from sandboxd.api.sigv4 import Verifier
from sandboxd.api.tasks import Tasks
from sandboxd.api.url_door import UrlDoor
from sandboxd.api.validation import take_members
from sandboxd.config import Config
from sandboxd.errors import ApiError
from sandboxd.http import Request, Response
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult
from sandboxd.model.limits import Limits
from sandboxd.model.network import Network
from sandboxd.services import Neighbours
from sandboxd.store.store import Stores
from sandboxd.store.urls import Places

_HASHED_HERE = 1 << 20  # bytes; a larger body is hashed on a thread, which lets other requests go on
_ENVELOPE = 262_144  # bytes that AWS allows a CreateFunction around its package in base64
_UNEXPECTED = "An error occurred and the request cannot be processed."

_log = logging.getLogger("sandboxd.api")

Answer = Response | Coroutine[Any, Any, Response]


class Api:
    """Every operation, behind the three doors. `close` ends what runs in the background."""

    def __init__(
        self, config: Config, stores: Stores, scheduler: Scheduler, events: Events, logs: Logs, neighbours: Neighbours
    ) -> None:
        self._config, self._stores, self._tasks = config, stores, Tasks()
        self._verifier = Verifier(self._secret, config.region)
        self._peers, self._downloads, self._sessions = Peers(config.user), Downloads(), Sessions()
        places, self._authorizer = Places(), Authorizer(stores, config.region)
        host = Host(
            config,
            scheduler,
            events,
            logs,
            Reclaimer(scheduler, stores.code, self._tasks),
            self._downloads,
            self._tasks,
            ServiceModel.load({"Invoke"}).operations["Invoke"],
            places,
            neighbours,
            stores,
            self._authorizer,
        )
        self._accounts = Accounts(stores, lambda store: Handlers(host, store), logs)
        model = ServiceModel.load(self.offered)
        prepare_model(model)
        event_sources.prepare_model(model)
        _apply_limits(model, config.limits)
        self._errors = ErrorWriter(model.errors)
        self._urls = UrlDoor(config, places, self._accounts.__getitem__, self._errors, self._verify, self._verifier)
        self._routes = Routes(model.operations.values())
        self._admin = AdminApi(config, stores.images, self._accounts, scheduler, events)
        self._tcp_origin = endpoint(*config.api_listen)
        for account in self._accounts:
            account.begin()
        self._tasks.start_patient(self._renew_in_time())

    @property
    def offered(self) -> set[str]:
        """The names of the operations that there are."""
        return {"Invoke", "InvokeWithResponseStream", *self._accounts.own.operations}

    @property
    def body_limit(self) -> int:
        """The largest body that any operation takes, in bytes: a package in base64, and what is around it."""
        return -(-self._config.limits.zip_bytes * 4 // 3) + _ENVELOPE

    def handle_tcp(self, request: Request) -> Answer:
        """The TCP door: functions' URLs, signed requests, and links to packages, which carry their own signature."""
        if MARK in request.headers.get("host", ""):
            request_id = new_request_id()
            return self._guard(self._urls.handle(request, request_id), request_id)
        if request.method == "GET" and request.target.startswith(DOWNLOADS):
            return self._download(request.target)
        if self._config.api_auth == "none":
            return self._serve(request, self._origin(request), Root(self._config.account_id))
        if len(request.body) > _HASHED_HERE:
            return self._serve_large(request)
        try:
            who = self._verify(request, hashlib.sha256(request.body).hexdigest())
        except ApiError as error:
            return self._errors.response(error, new_request_id())
        return self._serve(request, self._origin(request), who)

    def handle_unix(self, request: Request) -> Answer:
        """The unix socket: root and the daemon's group may do everything, in an account at a time; nobody else
        anything."""
        if not self._peers.may_administer(request.peer):
            text = f"The API's socket is for root and members of the group {self._config.user}"
            return self._errors.response(access_denied(text), new_request_id())
        if request.target.startswith(ADMIN):
            work = self._admin.handle(request)
            return self._guard(work if request.method == "GET" else self._tasks.finish(work), new_request_id())
        try:
            account = self._accounts.asked_for(request)
        except ApiError as error:
            return self._errors.response(error, new_request_id())
        return self._serve(request, self._tcp_origin, Root(account.names.account))

    def handle_invoke_door(self, function: FunctionVersion, request: Request) -> Answer:
        """The door inside a sandbox whose policy permits Invoke: that and nothing else, with no signature.

        `function` is whose sandbox the door is in.
        """
        target = invoke_target(request.method, request.target)
        request_id = new_request_id()
        if target is not None:
            return self._serve_invoke(target, request, request_id, function)
        path, _, query = request.target.partition("?")
        found = self._routes.find(request.method, path, read_query(query))
        if found is None:
            return self._errors.response(_no_such_operation(), request_id)
        role = function.role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
        action = f"lambda:{found[0].name}"
        text = (
            f"User: {role}/{function.name} is not authorized to perform: {action} on resource: * "
            f"because no identity-based policy allows the {action} action"
        )
        return self._errors.response(access_denied(text), request_id)

    def refuse(self, status: int, reason: str) -> Response:
        """The answer to what the transport does not take."""
        if status == 413:
            error = request_too_large(self.body_limit, "CreateFunction")
        else:
            code, fault = ("ServiceException", "Service") if status >= 500 else ("SerializationException", "User")
            error = ApiError(code, reason, status, fault=fault)
        return self._errors.response(error, new_request_id())

    def admit_tcp(self, request: Request) -> Response | int | None:
        """The refusal of a request, known by its head alone, whose large body could not change it; else the most bytes
        that it may have, where those are fewer than `body_limit`."""
        if MARK in request.headers.get("host", ""):
            return self._urls.admit(request)
        try:
            if self._config.api_auth != "none":
                self._verifier.check_head(request.headers)
        except ApiError as error:
            return self._errors.response(error, new_request_id())
        return None

    def oversized(self, request: Request) -> Response:
        """The answer to a request, known by its head alone, whose body is larger than `body_limit`."""
        if MARK in request.headers.get("host", ""):
            return self._urls.oversized(request)
        if invoke_target(request.method, request.target):
            error = request_too_large(self._config.limits.sync_payload_bytes, "InvokeFunction")
            return self._errors.response(error, new_request_id())
        return self.refuse(413, "")

    async def run(self, invocation: Invocation) -> InvocationResult:
        """Run the invocation of an event that was accepted. Raises ApiError."""
        return await self._accounts[invocation.function.account].invoke.run(invocation)

    def may_send(self, function: FunctionVersion, arn: str) -> bool:
        """Whether a function may have a destination told of its events."""
        return self._authorizer.may_send(function, arn)

    def renew_credentials(self) -> None:
        """Replace the environments of functions whose role is kept here: credentials end."""
        for account in self._accounts:
            account.roles.renew()

    async def _renew_in_time(self) -> None:
        while True:
            await asyncio.sleep(SECONDS / 2)
            self.renew_credentials()

    async def close(self) -> None:
        """Let changes under way come to their end, for 10 seconds at most, and end what else runs."""
        await self._tasks.close()

    def _origin(self, request: Request) -> str:
        return f"http://{request.headers['host']}" if "host" in request.headers else self._tcp_origin

    def credentials(self, function: FunctionVersion) -> dict[str, str]:
        """The environment variables by which a function has the permissions of its role, where that is kept here."""
        store = self._stores.get(function.account)
        if store is None or not self._authorizer.keeps_role(function):
            return {}
        return self._sessions.credentials(function, store.incarnation)

    def network(self, function: FunctionVersion) -> Network:
        """What an environment of a function may reach. Raises ApiError where it may not be made."""
        return self._accounts[function.account].roles.network(function)

    def _secret(self, key_id: str, token: str | None) -> str | None:
        if token is not None:
            return self._sessions.secret(key_id, token)
        key = self._stores.key(key_id)
        return None if key is None else key.secret

    def _verify(self, request: Request, payload_hash: str) -> str | Session:
        """Who signed the request. Raises ApiError."""
        key_id = self._verifier.verify(request.method, request.target, request.headers, payload_hash)
        token = request.headers.get("x-amz-security-token")
        return key_id if token is None else self._sessions.session(token)

    async def _serve_large(self, request: Request) -> Response:
        payload_hash = await asyncio.to_thread(lambda: hashlib.sha256(request.body).hexdigest())
        try:
            who = self._verify(request, payload_hash)
        except ApiError as error:
            return self._errors.response(error, new_request_id())
        answer = self._serve(request, self._origin(request), who)
        return answer if isinstance(answer, Response) else await answer

    def _serve(self, request: Request, origin: str, who: Who) -> Answer:
        """Answer a request of somebody."""
        request_id = new_request_id()
        target = invoke_target(request.method, request.target)
        if target is not None:
            return self._serve_invoke(target, request, request_id, who)
        return self._guard(self._operate(request, origin, who), request_id)

    def _serve_invoke(self, target: Target, request: Request, request_id: str, who: Who) -> Answer:
        try:
            account = self._authorizer.check_invoke(who, (target.function, target.query), request)
        except ApiError as error:
            return self._errors.response(error, request_id)
        return self._guard(self._accounts[account].invoke.handle(target, request, request_id), request_id)

    async def _guard(self, work: Coroutine[Any, Any, Response | Result], request_id: str) -> Response:
        """Answer with what the work gives, or with the error that it raises; nothing else gets out."""
        try:
            result = await work
        except ApiError as error:
            return self._errors.response(error, request_id)
        except Exception as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            _log.error("request %s failed: %s", request_id, error, exc_info=not full)
            reason = "The disk of the service is full." if full else _UNEXPECTED
            return self._errors.response(ApiError("ServiceException", reason, 500, fault="Service"), request_id)
        if isinstance(result, Response):
            return result
        headers = {"x-amzn-RequestId": request_id}
        if result.document is None:
            return Response(result.status, b"", headers)
        headers["Content-Type"] = "application/json"
        return Response(result.status, json.dumps(result.document).encode(), headers)

    async def _operate(self, request: Request, origin: str, who: Who) -> Result:
        path, _, query_text = request.target.partition("?")
        query = read_query(query_text)
        found = self._routes.find(request.method, path, query)
        if found is None:
            raise _no_such_operation()
        operation, labels = found
        if operation.name not in self._accounts.own.operations:
            raise not_offered(f"the operation {operation.name}")
        members = take_members(operation, labels, query, request.headers, request.body)
        account = self._authorizer.check(who, operation.name, members, request).account
        work = self._accounts[account].operations[operation.name](Call(members, origin))
        return await (work if request.method == "GET" else self._tasks.finish(work))

    def _download(self, target: str) -> Response:
        digest = self._downloads.digest(target)
        try:
            if digest is None:
                raise PermissionError
            package = self._stores.code.read(digest)
        except OSError:
            return Response(403, b"The link has expired or is none of ours.\n", {"Content-Type": "text/plain"})
        return Response(200, headers={"Content-Type": "application/zip"}, chunks=package)


def _apply_limits(model: ServiceModel, limits: Limits) -> None:
    """This instance's limits in place of the model's, which are those of AWS's largest offers."""
    model.shape("Timeout").high = limits.timeout_seconds
    model.shape("MemorySize").low = limits.memory_mb_min
    storage = model.shape("EphemeralStorageSize")
    storage.low, storage.high = limits.ephemeral_storage_mb_min, limits.ephemeral_storage_mb_max
    # AWS checks the runtime behind the model, with an error and a list of its own.
    model.shape("Runtime").enum = ()


def _no_such_operation() -> ApiError:
    return access_denied("Unable to determine service/operation name to be authorized")
