"""What is kept beside a function and its versions: documents by kind and qualifier (tags, policies, event settings).

Room: service. May: write rows. May not: know what a document says.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from sandboxd.store.database import Database
from sandboxd.store.generation import Generation

Document = dict[str, Any]


class Settings:
    """Documents of every function. A document is not changed after it is put: whoever changes one puts another."""

    def __init__(self, database: Database, generation: Generation) -> None:
        self._database, self._generation = database, generation
        self._documents: dict[str, dict[str, dict[str, Document]]] = {}  # by kind, function and qualifier
        for kind, function, qualifier, document in database.read("SELECT * FROM settings"):
            self._show(str(kind), str(function), str(qualifier), json.loads(str(document)))

    def get(self, kind: str, function: str, qualifier: str = "") -> Document | None:
        """A document; the qualifier is empty for the function itself."""
        return self._documents.get(kind, {}).get(function, {}).get(qualifier)

    def of(self, kind: str, function: str) -> list[tuple[str, Document]]:
        """The documents of a kind that a function has, by qualifier."""
        return sorted(self._documents.get(kind, {}).get(function, {}).items())

    def every(self, kind: str) -> Iterator[tuple[str, str, Document]]:
        """Function, qualifier and document of a kind."""
        for function, documents in sorted(self._documents.get(kind, {}).items()):
            for qualifier, document in sorted(documents.items()):
                yield function, qualifier, document

    async def put(self, kind: str, function: str, document: Document, qualifier: str = "") -> None:
        """Set a document."""
        row = (kind, function, qualifier, json.dumps(document))
        await self._database.write(lambda c: c.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?, ?)", row))
        self._show(*row[:3], document)

    def put_rows(self, connection: sqlite3.Connection, function: str, documents: Mapping[str, Document]) -> None:
        """A new function's part of a transaction, its documents by kind; `show` follows it."""
        rows = [(kind, function, "", json.dumps(document)) for kind, document in documents.items()]
        connection.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?, ?, ?)", rows)

    def show(self, function: str, documents: Mapping[str, Document]) -> None:
        """The function is made."""
        for kind, document in documents.items():
            self._show(kind, function, "", document)

    async def remove(self, kind: str, function: str, qualifier: str = "") -> None:
        """Remove a document that is there."""
        statement = "DELETE FROM settings WHERE (kind, function, qualifier) = (?, ?, ?)"
        await self._database.write(lambda c: c.execute(statement, (kind, function, qualifier)))
        self._hide(kind, function, qualifier)

    def delete_rows(self, connection: sqlite3.Connection, function: str, qualifier: str | None = None) -> None:
        """A deleted function's part of a transaction, or that of a version or an alias; `forget` follows it."""
        statement = "DELETE FROM settings WHERE function = ? AND qualifier = ifnull(?, qualifier)"
        connection.execute(statement, (function, qualifier))

    def forget(self, function: str, qualifier: str | None = None) -> None:
        """The function is deleted, or the version or alias."""
        for kind, functions in self._documents.items():
            if qualifier is None:
                functions.pop(function, None)
            else:
                self._hide(kind, function, qualifier)
        self._generation.end()

    def _show(self, kind: str, function: str, qualifier: str, document: Document) -> None:
        self._documents.setdefault(kind, {}).setdefault(function, {})[qualifier] = document
        self._generation.end()

    def _hide(self, kind: str, function: str, qualifier: str) -> None:
        self._generation.end()
        documents = self._documents.get(kind, {}).get(function, {})
        if documents.pop(qualifier, None) is not None and not documents:
            del self._documents[kind][function]
