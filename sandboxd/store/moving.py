"""Users of other accounts, whom databases of before there were several accounts hold: each moves into its account's.

Room: service. May: write rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sandboxd.store.database import Database

Rows = list[tuple[object, ...]]


async def move_users(database: Database, own: str, other: Callable[[str], Database]) -> None:
    """Move the users that the schema marked, with their keys, into the database that `other` has for their account.

    After a sudden end the next start does what is left.
    """
    for kind, name, record in database.read("SELECT kind, name, record FROM principals WHERE kind LIKE 'user@%'"):
        account = str(kind).partition("@")[2]
        if account == own:
            await database.write(_stayer(str(kind), str(name)))
            continue
        keys = [row for row in database.read("SELECT * FROM access_keys") if row[4] == name]
        await other(account).write(_comer(str(name), str(record), keys))
        await database.write(_leaver(str(kind), str(name)))


def _stayer(kind: str, name: str) -> Callable[[sqlite3.Connection], object]:
    statement = "UPDATE principals SET kind = 'user' WHERE (kind, name) = (?, ?)"
    return lambda connection: connection.execute(statement, (kind, name))


def _comer(name: str, record: str, keys: Rows) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR REPLACE INTO principals VALUES ('user', ?, ?)", (name, record))
        connection.executemany("INSERT OR REPLACE INTO access_keys VALUES (?, ?, ?, ?, ?)", keys)

    return work


def _leaver(kind: str, name: str) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM principals WHERE (kind, name) = (?, ?)", (kind, name))
        connection.execute("DELETE FROM access_keys WHERE user = ?", (name,))

    return work
