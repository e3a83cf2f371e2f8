"""Users: whom access keys belong to, and the policies that say what they may do.

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

ADMIN = "admin"  # whose keys are those that are made for nobody else; the schema makes it


class UserExists(SandboxdError):
    """There is a user of that name."""


@dataclass(frozen=True, slots=True)
class User:
    """One user; `account` is empty where it is the instance's own, `create_date` is in ISO 8601."""

    name: str
    account: str
    create_date: str
    documents: dict[str, str] = field(default_factory=dict)  # policies by name, as they were put

    def policies(self) -> list[Policy]:
        """The policies as the evaluator takes them."""
        return [parse_identity(document) for document in self.documents.values()]


class Principals:
    """Every user of the instance. `generation` is another one after whatever changed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.generation = 0
        rows = database.read("SELECT record FROM users ORDER BY name")
        users = [User(**json.loads(str(record))) for (record,) in rows]
        self._users = {user.name: user for user in users}

    def get(self, name: str) -> User | None:
        """A user, or None."""
        return self._users.get(name)

    def all(self) -> list[User]:
        """Every user, by name."""
        return [user for _, user in sorted(self._users.items())]

    async def create(self, name: str, account: str) -> User:
        """Add a user, who may do nothing. Raises UserExists."""
        user = User(name, account, datetime.now(UTC).isoformat(timespec="seconds"))
        row = (name, _record(user))
        try:
            await self._database.write(lambda c: c.execute("INSERT INTO users VALUES (?, ?)", row))
        except sqlite3.IntegrityError:
            raise UserExists(name) from None
        self._show(user)
        return user

    async def update(self, user: User) -> None:
        """Give a user other policies."""
        row = (_record(user), user.name)
        await self._database.write(lambda c: c.execute("UPDATE users SET record = ? WHERE name = ?", row))
        if user.name in self._users:
            self._show(user)

    def delete_rows(self, connection: sqlite3.Connection, name: str) -> None:
        """A deleted user's part of a transaction; `forget` follows it."""
        connection.execute("DELETE FROM users WHERE name = ?", (name,))

    def forget(self, name: str) -> None:
        """The user is deleted."""
        self._users.pop(name, None)
        self.generation += 1

    def _show(self, user: User) -> None:
        self._users[user.name] = user
        self.generation += 1


def _record(user: User) -> str:
    return json.dumps(dataclasses.asdict(user))
