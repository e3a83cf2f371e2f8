"""Users, whom access keys belong to, and roles, which functions have: with the policies that say what they may do.

Room: service. May: write rows.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sandboxd.errors import SandboxdError
from sandboxd.model.iam.policy import Policy, parse_identity
from sandboxd.store.database import Database
from sandboxd.store.generation import Generation

ADMIN = "admin"  # whose keys are those that are made for nobody else; the schema makes it


class NameTaken(SandboxdError):
    """There is a user, a role or a group of that name."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One user, role or group; `create_date` is in ISO 8601.

    `trust` is a role's policy of who may assume it, empty for the one that lets Lambda; `boundary` the policy beyond
    which its others allow nothing, empty where there is none. Both are as they were put. `groups` are those that a user
    is in, by name.
    """

    name: str
    create_date: str
    documents: dict[str, str] = field(default_factory=dict)  # policies by name, as they were put
    trust: str = ""
    boundary: str = ""
    groups: tuple[str, ...] = ()

    def policies(self) -> list[Policy]:
        """The policies as the evaluator takes them."""
        return [parse_identity(document) for document in self.documents.values()]

    def bounds(self) -> Policy | None:
        """The boundary as the evaluator takes it."""
        return parse_identity(self.boundary) if self.boundary else None


class Principals:
    """Every "user", every "role" or every "group" of an account. Whatever changes ends the `generation`."""

    def __init__(self, database: Database, kind: str, generation: Generation) -> None:
        self._database, self._kind, self._generation = database, kind, generation
        rows = database.read("SELECT kind, record FROM principals")
        found = [_identity(str(record)) for of_kind, record in rows if of_kind == kind]
        self._kept = {identity.name: identity for identity in found}

    def get(self, name: str) -> Identity | None:
        """The one of a name, or None."""
        return self._kept.get(name)

    def all(self) -> list[Identity]:
        """All, by name."""
        return [identity for _, identity in sorted(self._kept.items())]

    async def create(self, name: str, trust: str = "") -> Identity:
        """Add one that may do nothing. Raises NameTaken."""
        identity = Identity(name, datetime.now(UTC).isoformat(timespec="seconds"), trust=trust)
        row = (self._kind, name, _record(identity))
        try:
            await self._database.write(lambda c: c.execute("INSERT INTO principals VALUES (?, ?, ?)", row))
        except sqlite3.IntegrityError:
            raise NameTaken(name) from None
        self._show(identity)
        return identity

    async def update(self, identity: Identity) -> None:
        """Give one other policies, trust or boundary."""
        row = (_record(identity), self._kind, identity.name)
        statement = "UPDATE principals SET record = ? WHERE (kind, name) = (?, ?)"
        await self._database.write(lambda c: c.execute(statement, row))
        if identity.name in self._kept:
            self._show(identity)

    async def delete(self, name: str) -> None:
        """Remove one."""
        await self._database.write(lambda c: self.delete_rows(c, name))
        self.forget(name)

    def delete_rows(self, connection: sqlite3.Connection, name: str) -> None:
        """The part in a transaction of one that is deleted; `forget` follows it."""
        connection.execute("DELETE FROM principals WHERE (kind, name) = (?, ?)", (self._kind, name))

    def forget(self, name: str) -> None:
        """It is deleted."""
        self._kept.pop(name, None)
        self._generation.end()

    def _show(self, identity: Identity) -> None:
        self._kept[identity.name] = identity
        self._generation.end()


def _identity(record: str) -> Identity:
    fields = json.loads(record)
    return Identity(**fields | {"groups": tuple(fields.get("groups", ()))})


def _record(identity: Identity) -> str:
    return json.dumps(dataclasses.asdict(identity))
