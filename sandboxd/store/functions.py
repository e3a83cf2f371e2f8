"""Functions: rows in the database, values in memory.

Room: service. May: write rows. May not: touch packages or environments.

Two maps answer without I/O: `described` is what the API shows, `serving` what an invocation runs. They differ while
an update is in progress: AWS goes on invoking the previous code and configuration until the update is done.
Source: https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network
from typing import Any

from sandboxd.errors import SandboxdError
from sandboxd.model.arn import LATEST
from sandboxd.model.egress import EgressRule, HostRule
from sandboxd.model.function import FunctionVersion, Policy
from sandboxd.model.layer import AttachedLayer, Unzipped
from sandboxd.store.database import Database, DiskFull


class FunctionExists(SandboxdError):
    """A function of that name is there already."""


class Functions:
    """Every function of an account. Methods are for the event loop's thread; those that write are coroutines."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.read("SELECT record FROM function_versions")
        versions = [_version(str(record)) for (record,) in rows]
        self._described: dict[str, FunctionVersion] = {}
        self._serving: dict[str, FunctionVersion] = {}
        self._packages: Counter[str] = Counter()  # how often the three maps hold a version that is made from it
        self.code_size = 0  # bytes, of every version that is shown
        latest = [version for version in versions if version.version == LATEST]
        self._names = sorted(version.name for version in latest)
        self._published: dict[str, dict[str, FunctionVersion]] = {name: {} for name in self._names}
        self._take(latest)
        self._take(sorted((v for v in versions if v.version != LATEST), key=lambda v: int(v.version)))

    def __len__(self) -> int:
        return len(self._described)

    def resolve(self, name: str, qualifier: str | None = None) -> FunctionVersion | None:
        """What an invocation of name and qualifier runs, or None."""
        if qualifier is None or qualifier == LATEST:
            return self._serving.get(name)
        return self._published.get(name, {}).get(qualifier)

    def described(self, name: str, qualifier: str | None = None) -> FunctionVersion | None:
        """What the API shows of name and qualifier, or None."""
        if qualifier is None or qualifier == LATEST:
            return self._described.get(name)
        return self._published.get(name, {}).get(qualifier)

    def all(self, begin: str = "") -> Iterator[FunctionVersion]:
        """Every function as the API shows it, by name, from one that `begin` names or would stand before."""
        for index in range(bisect_left(self._names, begin), len(self._names)):
            yield self._described[self._names[index]]

    def versions(self, name: str) -> list[FunctionVersion]:
        """$LATEST as the API shows it, and every published version, oldest first."""
        return [self._described[name], *self._published[name].values()]

    def every_version(self, begin: str = "") -> Iterator[FunctionVersion]:
        """The versions of every function, by name, from one that `begin` names or would stand before."""
        for latest in self.all(begin):
            yield from self.versions(latest.name)

    def uses_code(self, digest: str) -> bool:
        """Whether any version, shown or serving, is made from this package, as its code or as a layer."""
        return digest in self._packages

    async def create(
        self,
        version: FunctionVersion,
        published: FunctionVersion | None = None,
        beside: Callable[[sqlite3.Connection], None] = lambda connection: None,
    ) -> None:
        """Add a function, with a version of it perhaps, and what `beside` writes, at once. Raises FunctionExists."""
        versions = [version] if published is None else [version, published]

        def work(connection: sqlite3.Connection) -> None:
            for one in versions:
                _insert(connection, one)
            beside(connection)

        try:
            await self._database.write(work)
        except sqlite3.IntegrityError:
            raise FunctionExists(version.name) from None
        self._published[version.name] = {}
        self._take(versions)
        insort(self._names, version.name)

    async def publish(self, latest: FunctionVersion, published: FunctionVersion) -> None:
        """Add a version that was made of `latest`, which knows its number."""

        def work(connection: sqlite3.Connection) -> None:
            _update(connection, latest)
            _insert(connection, published)

        await self._database.write(work)
        self._take([latest, published])

    async def describe(self, version: FunctionVersion, published: FunctionVersion | None = None) -> None:
        """Show another state of a function, while the previous one goes on serving, and perhaps a new version of it."""

        def work(connection: sqlite3.Connection) -> None:
            _update(connection, version)
            if published is not None:
                _insert(connection, published)

        await self._database.write(work)
        self._put(self._described, version.name, version)
        if published is not None:
            self._take([published])

    async def serve(self, *versions: FunctionVersion) -> None:
        """Show another state of versions, all at once, and run it from the next invocation on."""
        await self._database.write(lambda c: _update(c, *versions))
        self._take(versions)

    async def settle(self, *versions: FunctionVersion) -> None:
        """As `serve`, with the state that a change ends in: a full disk keeps none from its end.

        What is then not written is what the next start does with all that it finds unsettled (Store.open).
        """
        with contextlib.suppress(DiskFull):
            await self._database.write(lambda c: _update(c, *versions))
        self._take(versions)

    def _take(self, versions: Iterable[FunctionVersion]) -> None:
        for version in versions:
            if version.version == LATEST:
                self._put(self._described, version.name, version)
                self._put(self._serving, version.name, version)
            else:
                self._put(self._published[version.name], version.version, version)

    def _put(self, versions: dict[str, FunctionVersion], key: str, version: FunctionVersion | None) -> None:
        """Put a version into one of the maps in place of what is there, or nothing, and count what they are made of."""
        before = versions.get(key)
        if version is not None:
            versions[key] = version
            self._packages.update(version.packages)
        if before is not None:
            if version is None:
                del versions[key]
            for digest in before.packages:
                self._packages[digest] -= 1
                if not self._packages[digest]:
                    del self._packages[digest]
        if versions is not self._serving:
            self.code_size += (version.code_size if version else 0) - (before.code_size if before else 0)

    def delete_rows(self, connection: sqlite3.Connection, name: str, version: str | None = None) -> None:
        """A deleted function's part of a transaction, or that of a published version; `forget` follows it."""
        statement = "DELETE FROM function_versions WHERE name = ? AND version = ifnull(?, version)"
        connection.execute(statement, (name, version))

    def forget(self, name: str, version: str | None = None) -> None:
        """The function is deleted with all its versions, or a published version is."""
        if version is not None:
            self._put(self._published[name], version, None)
            return
        for number in list(self._published[name]):
            self._put(self._published[name], number, None)
        del self._published[name]
        self._put(self._described, name, None)
        self._put(self._serving, name, None)
        del self._names[bisect_left(self._names, name)]


def _insert(connection: sqlite3.Connection, version: FunctionVersion) -> None:
    connection.execute(
        "INSERT INTO function_versions (name, version, code_digest, record) VALUES (?, ?, ?, ?)",
        (version.name, version.version, version.code_digest, _record(version)),
    )


def _update(connection: sqlite3.Connection, *versions: FunctionVersion) -> None:
    connection.executemany(
        "UPDATE function_versions SET code_digest = ?, record = ? WHERE name = ? AND version = ?",
        [(version.code_digest, _record(version), version.name, version.version) for version in versions],
    )


def _record(version: FunctionVersion) -> str:
    return json.dumps(dataclasses.asdict(version), default=str)


def _version(record: str) -> FunctionVersion:
    fields: dict[str, Any] = json.loads(record)
    for name in ("architectures", "variables", "settings"):
        fields[name] = _tuples(fields[name])
    fields["unzipped"] = Unzipped(*fields["unzipped"])
    fields["layers"] = tuple(
        AttachedLayer(**(layer | {"unzipped": Unzipped(*layer["unzipped"])})) for layer in fields["layers"]
    )
    policy = fields.pop("policy")
    rules = (EgressRule(IPv4Network(r["network"]), r["port_first"], r["port_last"]) for r in policy["egress"])
    hosts = (HostRule(**host) for host in policy.get("hosts", ()))  # a record of before there were any
    stated = policy.get("stated", bool(policy["egress"] or policy.get("hosts")))  # as before
    return FunctionVersion(**fields, policy=Policy(tuple(rules), tuple(hosts), policy["invoke"], stated))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
