"""Access keys of the REST API's TCP door.

Room: service. May: write rows.
"""

from __future__ import annotations

import secrets
import sqlite3
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sandboxd.errors import SandboxdError
from sandboxd.store.database import Database
from sandboxd.store.principals import ADMIN

_ID_ALPHABET = string.ascii_uppercase + "234567"  # of AWS's ids: AKIA and 16 of base32
_SECRET_ALPHABET = string.ascii_letters + string.digits + "+/"


class NoSuchUser(SandboxdError):
    """There is no user of that name."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One key pair of a user of an account; `create_date` in ISO 8601."""

    id: str
    secret: str = field(repr=False)
    description: str
    create_date: str
    user: str
    account: str


class Keys:
    """Every access key of an account. `everywhere` holds those of all accounts, by id."""

    def __init__(self, database: Database, account: str, everywhere: dict[str, AccessKey]) -> None:
        self._database, self._account, self._everywhere = database, account, everywhere
        rows = database.read(
            "SELECT id, secret, description, create_date, user FROM access_keys ORDER BY create_date, id"
        )
        self._keys = {str(row[0]): AccessKey(*map(str, (*row, account))) for row in rows}
        everywhere.update(self._keys)

    def user(self, key_id: str) -> str | None:
        """Whose a key is, or None where there is no such key."""
        key = self._keys.get(key_id)
        return None if key is None else key.user

    def all(self) -> list[AccessKey]:
        """Every key, oldest first."""
        return list(self._keys.values())

    async def create(self, description: str, user: str = ADMIN) -> AccessKey:
        """Make a key pair. Raises NoSuchUser."""
        key = AccessKey(
            "AKIA" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(16)),
            "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40)),
            description,
            datetime.now(UTC).isoformat(timespec="seconds"),
            user,
            self._account,
        )
        row = (key.id, key.secret, key.description, key.create_date)
        # A user who is being deleted gets no key, which the next user of that name would find.
        insert = "INSERT INTO access_keys SELECT ?, ?, ?, ?, name FROM principals WHERE (kind, name) = ('user', ?)"
        if not await self._database.write(lambda c: c.execute(insert, (*row, user)).rowcount):
            raise NoSuchUser(user)
        self._keys[key.id] = self._everywhere[key.id] = key
        return key

    async def delete(self, key_id: str) -> bool:
        """Remove a key, which stops working at once; False where there is none."""
        if self._keys.pop(key_id, None) is None:
            return False
        del self._everywhere[key_id]
        await self._database.write(lambda c: c.execute("DELETE FROM access_keys WHERE id = ?", (key_id,)))
        return True

    def delete_rows(self, connection: sqlite3.Connection, user: str) -> None:
        """A deleted user's part of a transaction; `forget` follows it."""
        connection.execute("DELETE FROM access_keys WHERE user = ?", (user,))

    def forget(self, user: str) -> None:
        """The user is deleted."""
        for key in [key for key in self._keys.values() if key.user == user]:
            del self._keys[key.id], self._everywhere[key.id]
