"""The store: what one account has, and what all accounts share, brought into order at the start.

Room: service. May: what its parts may.

Each account has a database of its own: that of the configuration's account is `service_dir/sandboxd.db`, another's is
`service_dir/accounts/ID/sandboxd.db`. Packages are known by their content and lie together; one goes when no account
has anything made from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sandboxd.config import Config
from sandboxd.errors import SandboxdError
from sandboxd.model.arn import function_arn
from sandboxd.model.function import FunctionVersion
from sandboxd.model.iam.policy import Policy
from sandboxd.store.aliases import Aliases
from sandboxd.store.code import Code, Unpacker
from sandboxd.store.database import Database, DiskFull
from sandboxd.store.events import EventQueue
from sandboxd.store.functions import Functions
from sandboxd.store.generation import Generation
from sandboxd.store.images import Images
from sandboxd.store.keys import AccessKey, Keys
from sandboxd.store.layers import Layers
from sandboxd.store.moving import move_users
from sandboxd.store.principals import Identity, Principals
from sandboxd.store.settings import Document, Settings

MOST_ACCOUNTS = 256  # each has an open database and a thread that writes it
_ID = re.compile(r"\d{12}", re.ASCII)
_GONE = ".gone-"


class AccountExists(SandboxdError):
    """There is an account of that id."""


@dataclass(frozen=True, slots=True)
class Store:
    """Everything of one account that survives a restart; code, images and events are all accounts'.

    `incarnation` is this object's alone: an account of the same id that is made anew has another.
    """

    account: str
    incarnation: str
    generation: Generation
    database: Database
    functions: Functions
    aliases: Aliases
    settings: Settings
    layers: Layers
    code: Code
    keys: Keys
    users: Principals
    roles: Principals
    groups: Principals
    images: Images
    events: EventQueue

    def policies_of(self, user: Identity) -> list[Policy]:
        """The policies of a user and of the groups that it is in."""
        groups = (self.groups.get(name) for name in user.groups)
        return [*user.policies(), *(policy for group in groups if group for policy in group.policies())]

    async def create_function(
        self, latest: FunctionVersion, published: FunctionVersion | None, documents: Mapping[str, Document]
    ) -> None:
        """Add a function, perhaps with a version, and its documents by kind, at once. Raises FunctionExists."""
        name = latest.name
        await self.functions.create(latest, published, lambda c: self.settings.put_rows(c, name, documents))
        self.settings.show(name, documents)

    async def delete_function(self, name: str) -> None:
        """Remove a function and everything that is its own, at once."""
        arn = self.functions.versions(name)[0].arn
        await self.delete_qualified(name, None)
        with contextlib.suppress(DiskFull):  # an event without a function is dropped when its turn comes
            await self.events.forget(arn)

    async def delete_qualified(self, name: str, qualifier: str | None) -> None:
        """Remove a published version or an alias (None: the whole function) and everything that is its own, at once."""
        parts = (self.functions, self.aliases, self.settings)
        await self.database.write(lambda c: [part.delete_rows(c, name, qualifier) for part in parts])
        for part in parts:
            part.forget(name, qualifier)

    async def delete_user(self, name: str) -> None:
        """Remove a user with the keys, which stop working at once."""
        await self.database.write(lambda c: [part.delete_rows(c, name) for part in (self.keys, self.users)])
        self.keys.forget(name)
        self.users.forget(name)

    def uses(self, digest: str) -> bool:
        """Whether any version of a function or a layer is made from a package."""
        return self.functions.uses_code(digest) or self.layers.uses(digest)


class Stores:
    """The store of every account, and what they share. `own` is that of the configuration's account."""

    def __init__(self, config: Config, builder: Unpacker) -> None:
        self._config, self._directory = config, config.service_dir / "accounts"
        self._stores: dict[str, Store] = {}
        self._keys: dict[str, AccessKey] = {}
        self._one = asyncio.Lock()
        self.code = Code(config.service_dir / "zips", config.code_dir, builder, config.limits, self._uses)
        self.images = Images(config.images_dir, config.runtimes)
        self.events = EventQueue(config.service_dir / "events.db")

    @classmethod
    async def open(cls, config: Config, builder: Unpacker) -> Stores:
        """Open every account's store and finish, or undo, what a sudden end interrupted. Raises SandboxdError."""
        stores = cls(config, builder)
        try:
            await stores._open()
        except BaseException:
            stores.close()
            raise
        return stores

    @property
    def own(self) -> Store:
        """The store of the configuration's account."""
        return self._stores[self._config.account_id]

    def __iter__(self) -> Iterator[Store]:
        return iter(tuple(self._stores.values()))

    def get(self, account: str | None) -> Store | None:
        """The store of an account, or None where there is none."""
        return self._stores.get(account or "")

    def owner(self, arn: str) -> str:
        """The account that an ARN is of; of one that is not here, or of none, the configuration's."""
        account = arn.split(":", 5)[4]
        return account if account in self._stores else self._config.account_id

    def key(self, key_id: str) -> AccessKey | None:
        """An access key of whatever account, or None."""
        return self._keys.get(key_id)

    async def create(self, account: str) -> Store:
        """Add an account. Raises AccountExists, ValueError for what is no account's id, SandboxdError beyond the most
        that there may be."""
        if not _ID.fullmatch(account):
            raise ValueError("the id of an account is 12 digits")
        async with self._one:
            if account in self._stores:
                raise AccountExists(account)
            if len(self._stores) >= MOST_ACCOUNTS:
                raise SandboxdError(f"there are {MOST_ACCOUNTS} accounts, which is the most that there may be")
            database = await asyncio.to_thread(self._make, account)
            store = self._stores[account] = self._store(account, database)
        return store

    async def delete(self, account: str) -> None:
        """Remove an account other than the configuration's, with users, keys and roles, which stop working at once; of
        functions and layers it has none."""
        async with self._one:
            store = self._stores.pop(account)
            for user in store.users.all():
                store.keys.forget(user.name)
                store.users.forget(user.name)
            await asyncio.to_thread(self._bury, store)

    def close(self) -> None:
        """Finish the writes under way and close every file."""
        for store in self:
            store.database.close()
        self.events.close()
        self.code.close()

    def _uses(self, digest: str) -> bool:
        return any(store.uses(digest) for store in self._stores.values())

    async def _open(self) -> None:
        own = self._config.account_id
        for gone in self._directory.glob(f"{_GONE}*"):
            shutil.rmtree(gone)
        others = {path.name for path in self._directory.glob("[0-9]*") if _ID.fullmatch(path.name)}
        if own in others:
            raise SandboxdError(
                f"{self._directory / own} holds an account of the id that the configuration gives its own (account_id)"
            )
        databases = {own: Database(self._config.service_dir / "sandboxd.db")}

        def other(account: str) -> Database:
            if account not in databases:
                databases[account] = self._make(account)
            return databases[account]

        try:
            for account in others:
                other(account)
            await move_users(databases[own], own, other)
        except BaseException:
            for database in databases.values():
                database.close()
            raise
        self._stores = {account: self._store(account, database) for account, database in databases.items()}
        await self._recover()

    def _make(self, account: str) -> Database:
        """An account's database, made where missing."""
        path = self._directory / account
        if path.is_dir():
            return Database(path / "sandboxd.db")
        for directory in (self._directory, path):
            directory.mkdir(mode=0o700, exist_ok=True)
        database = Database(path / "sandboxd.db")
        for directory in (path, self._directory, self._directory.parent):
            _sync(directory)
        return database

    def _store(self, account: str, database: Database) -> Store:
        generation = Generation()
        return Store(
            account,
            secrets.token_hex(8),
            generation,
            database,
            Functions(database),
            Aliases(database),
            Settings(database, generation),
            Layers(database),
            self.code,
            Keys(database, account, self._keys),
            Principals(database, "user", generation),
            Principals(database, "role", generation),
            Principals(database, "group", generation),
            self.images,
            self.events,
        )

    def _bury(self, store: Store) -> None:
        store.database.close()
        gone = self._directory / f"{_GONE}{secrets.token_hex(8)}"
        (self._directory / store.account).rename(gone)
        _sync(self._directory)
        shutil.rmtree(gone)

    async def _recover(self) -> None:
        wanted = {layer.digest: layer.unzipped for store in self for layer in store.layers.every_version()}
        for store in self:
            for version in store.functions.every_version():
                wanted |= {layer.digest: layer.unzipped for layer in version.layers}
                wanted[version.code_digest] = version.unzipped
        failures = await self.code.recover(wanted)
        for store in self:
            versions = list(store.functions.every_version())
            settled = [self._settled(store.account, version, failures) for version in versions]
            await store.functions.settle(
                *(after for before, after in zip(versions, settled, strict=True) if after != before)
            )

    def _settled(self, account: str, version: FunctionVersion, failures: Mapping[str, str]) -> FunctionVersion:
        """A version in the state that it has after a start. Whose it is says the database: the configuration may have
        another account or region than when it was made."""
        reason = _reason(version, failures)
        settled = replace(
            version,
            arn=function_arn(self._config.region, account, version.name),
            state="Failed" if reason else "Active",
            state_reason=reason,
            last_update_status="Successful",
        )
        return version if settled == version else replace(settled, revision_id=str(uuid.uuid4()))


def _reason(version: FunctionVersion, failures: Mapping[str, str]) -> str:
    """Why a version cannot run, or nothing."""
    if version.code_digest in failures:
        return f"its code package {failures[version.code_digest]}"
    lost = (f"its layer {layer.arn} {failures[layer.digest]}" for layer in version.layers if layer.digest in failures)
    return next(lost, "")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
