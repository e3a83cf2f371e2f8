"""The accounts of this host: each has handlers of its own over a store of its own.

Room: service. May: make and remove accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sandboxd.api.handlers import Handlers
from sandboxd.api.protocols import Logs
from sandboxd.errors import ApiError
from sandboxd.http import Request
from sandboxd.store.store import Store, Stores

HEADER = "x-sandboxd-account"  # names the account that a request over the unix socket is for; nowhere else it counts


class Accounts:
    """The handlers of every account, in the order of their ids; `own` are those of the configuration's account."""

    def __init__(self, stores: Stores, make: Callable[[Store], Handlers], logs: Logs) -> None:
        self._stores, self._make, self._logs = stores, make, logs
        self._handlers = {store.account: make(store) for store in stores}
        self.own = self._handlers[stores.own.account]

    def __len__(self) -> int:
        return len(self._handlers)

    def __iter__(self) -> Iterator[Handlers]:
        return iter([handlers for _, handlers in sorted(self._handlers.items())])

    def __getitem__(self, account: str) -> Handlers:
        """The handlers of an account. Raises KeyError."""
        return self._handlers[account]

    def asked_for(self, request: Request) -> Handlers:
        """The account that a request over the unix socket is for. Raises ResourceNotFoundException."""
        named = request.headers.get(HEADER)
        return self.own if named is None else self._named(named)

    async def create(self, account: str) -> Handlers:
        """Add an account. Raises AccountExists, ValueError for what is no account's id, SandboxdError beyond the most
        that there may be."""
        store = await self._stores.create(account)
        made = self._handlers[account] = self._make(store)
        return made

    async def delete(self, account: str) -> None:
        """Remove an account that is empty, with its users, keys and roles. Raises ApiError."""
        handlers = self._named(account)
        if handlers is self.own:
            raise _conflict(f"Account {account} is the configuration's own.")
        if handlers.left:
            raise _conflict(f"Account {account} still has {handlers.left}.")
        del self._handlers[account]
        await self._stores.delete(account)
        self._logs.forget_account(account)

    def _named(self, account: str) -> Handlers:
        handlers = self._handlers.get(account)
        if handlers is None:
            text = f"There is no account {account[:64]} here: sandboxd account create"
            raise ApiError("ResourceNotFoundException", text, 404)
        return handlers


def _conflict(text: str) -> ApiError:
    return ApiError("ResourceConflictException", text, 409)
