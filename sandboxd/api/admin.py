"""The administration of the daemon, under /sandboxd/v1/ on the unix socket.

Room: service. May: what the API may, and accounts, keys, policies, logs. May not: be reached over TCP.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from sandboxd import __version__
from sandboxd.api.accounts import HEADER, Accounts
from sandboxd.api.calls import Result
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.handlers import Handlers
from sandboxd.api.principals import Handler, only
from sandboxd.api.protocols import Events, Scheduler
from sandboxd.api.routes import read_query
from sandboxd.config import Config
from sandboxd.errors import ApiError, SandboxdError
from sandboxd.http import Request
from sandboxd.store.images import Images
from sandboxd.store.store import AccountExists

PREFIX = "/sandboxd/v1/"
_WITH_SUBJECT = ("accounts", "functions", "groups", "keys", "roles", "users")


class AdminApi:
    """Status, environments, images, accounts, and what is administered of each account."""

    def __init__(
        self, config: Config, images: Images, accounts: Accounts, scheduler: Scheduler, events: Events
    ) -> None:
        self._config, self._images, self._accounts = config, images, accounts
        self._scheduler, self._events = scheduler, events
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "status"): self._status,
            ("GET", "environments"): self._environments,
            ("GET", "accounts"): self._list_accounts,
            ("POST", "accounts"): self._create_account,
            ("DELETE", "accounts/*"): self._delete_account,
            ("POST", "images/refresh"): self._refresh_images,
        }

    async def handle(self, request: Request) -> Result:
        """Answer a request whose path begins with PREFIX. Raises ApiError."""
        account = self._accounts.asked_for(request)
        path, _, query = request.target.removeprefix(PREFIX).partition("?")
        segments = path.split("/")
        subject = ""
        if len(segments) > 1 and segments[0] in _WITH_SUBJECT:
            subject, segments[1] = unquote(segments[1]), "*"
        route = (request.method, "/".join(segments))
        handler = self._routes.get(route) or account.admin.routes.get(route)
        if handler is None:
            raise ApiError("ResourceNotFoundException", f"There is no {request.method} {request.target[:200]}", 404)
        return await handler(request, subject, read_query(query))

    async def _status(self, request: Request, _: str, __: dict[str, str]) -> Result:
        config = self._config
        host, port = config.api_listen
        shown = self._shown(request)
        return Result(
            200,
            {
                "Version": __version__,
                "Instance": config.instance,
                "Region": config.region,
                "AccountId": self._accounts.asked_for(request).names.account,
                "Accounts": len(self._accounts),
                "Endpoint": endpoint(host, port),
                "Auth": config.api_auth,
                "Limits": dataclasses.asdict(config.limits),
                "Environments": len(self._rows(request)),
                "Functions": sum(len(account.store.functions) for account in shown),
                "Events": self._events.report(),
                "Images": self._describe_images(),
                "Runtimes": dict(self._images.runtimes),
                "StartedAt": self._started,
            },
        )

    async def _environments(self, request: Request, _: str, __: dict[str, str]) -> Result:
        return Result(200, {"Environments": self._rows(request)})

    async def _list_accounts(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        return Result(200, {"Accounts": [self._describe(account) for account in self._accounts]})

    async def _create_account(self, request: Request, _: str, __: dict[str, str]) -> Result:
        identifier = only(request, "AccountId")
        try:
            made = await self._accounts.create(identifier)
        except AccountExists:
            raise ApiError("EntityAlreadyExistsException", f"Account {identifier} already exists.", 409) from None
        except ValueError as error:
            raise invalid_parameter(f"AccountId: {error}") from None
        except SandboxdError as error:
            raise ApiError("LimitExceededException", str(error), 409) from None
        return Result(201, self._describe(made))

    async def _delete_account(self, _: Request, subject: str, __: dict[str, str]) -> Result:
        await self._accounts.delete(subject)
        return Result(204)

    async def _refresh_images(self, _: Request, __: str, ___: dict[str, str]) -> Result:
        self._images.refresh()
        return Result(200, {"Images": self._describe_images()})

    def _shown(self, request: Request) -> list[Handlers]:
        """The account that a request names, or all."""
        return [self._accounts.asked_for(request)] if HEADER in request.headers else list(self._accounts)

    def _rows(self, request: Request) -> list[dict[str, Any]]:
        """The environments of the account that a request names, or all."""
        shown = {account.names.account for account in self._shown(request)}
        rows = self._scheduler.environments()
        return [row for row in rows if row["Account"] in shown] if HEADER in request.headers else rows

    def _describe(self, account: Handlers) -> dict[str, Any]:
        store = account.store
        return {
            "AccountId": store.account,
            "Default": account is self._accounts.own,
            "Functions": len(store.functions),
            "Users": len(store.users.all()),
            "Keys": len(store.keys.all()),
        }

    def _describe_images(self) -> list[dict[str, Any]]:
        return [
            {"Runtime": image.runtime, "Digest": image.digest, "Bytes": image.bytes, "Built": image.built}
            for image in self._images.all()
        ]


def endpoint(host: str, port: int) -> str:
    """The URL of the TCP door."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
