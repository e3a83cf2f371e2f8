"""Aliases: rows in the database, values in memory, and which version an invocation of one gets.

Room: service. May: write rows.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sqlite3

from sandboxd.errors import SandboxdError
from sandboxd.model.function import Alias
from sandboxd.store.database import Database

_CARDS = 100


class AliasExists(SandboxdError):
    """The function has an alias of that name."""


class Aliases:
    """The aliases of every function. Methods are for the event loop's thread; those that write are coroutines."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._aliases: dict[str, dict[str, Alias]] = {}
        self._decks: dict[tuple[str, str], _Deck] = {}
        for (record,) in database.read("SELECT record FROM aliases"):
            self._show(Alias(**json.loads(str(record))))

    def get(self, function: str, name: str) -> Alias | None:
        """An alias, or None."""
        return self._aliases.get(function, {}).get(name)

    def of(self, function: str) -> list[Alias]:
        """The aliases of a function, by name."""
        return [alias for _, alias in sorted(self._aliases.get(function, {}).items())]

    def version(self, function: str, name: str) -> str | None:
        """The version that an alias is a name of, or None where there is no such alias."""
        alias = self.get(function, name)
        return None if alias is None else alias.version

    def draw(self, function: str, name: str) -> str | None:
        """The version that an invocation of an alias gets, by its weights; None where there is no such alias."""
        alias = self.get(function, name)
        if alias is None:
            return None
        if not alias.second_version:
            return alias.version
        return alias.second_version if self._decks[function, name].draw() else alias.version

    async def create(self, alias: Alias) -> None:
        """Add an alias. Raises AliasExists."""
        row = (alias.function, alias.name, _record(alias))
        try:
            await self._database.write(lambda c: c.execute("INSERT INTO aliases VALUES (?, ?, ?)", row))
        except sqlite3.IntegrityError:
            raise AliasExists(alias.name) from None
        self._show(alias)

    async def update(self, alias: Alias) -> None:
        """Change an alias."""
        row = (_record(alias), alias.function, alias.name)
        statement = "UPDATE aliases SET record = ? WHERE (function, name) = (?, ?)"
        await self._database.write(lambda c: c.execute(statement, row))
        self._show(alias)

    def delete_rows(self, connection: sqlite3.Connection, function: str, name: str | None = None) -> None:
        """A deleted function's part of a transaction, or that of an alias; `forget` follows it."""
        statement = "DELETE FROM aliases WHERE function = ? AND name = ifnull(?, name)"
        connection.execute(statement, (function, name))

    def forget(self, function: str, name: str | None = None) -> None:
        """The function is deleted, or the alias."""
        aliases = self._aliases.get(function, {})
        for one in [name] if name is not None else list(aliases):
            aliases.pop(one, None)
            self._decks.pop((function, one), None)
        if not aliases:
            self._aliases.pop(function, None)

    def _show(self, alias: Alias) -> None:
        self._aliases.setdefault(alias.function, {})[alias.name] = alias
        if alias.second_version:
            self._decks[alias.function, alias.name] = _Deck(alias.weight)
        else:
            self._decks.pop((alias.function, alias.name), None)


class _Deck:
    """Cards for a weight's share of invocations, shuffled, so that a share is kept exactly by every hundred of them
    while no caller's own rhythm meets the one version more often than the other."""

    __slots__ = ("_cards", "_owed", "_weight")

    def __init__(self, weight: float) -> None:
        self._weight, self._owed = weight, 0.0
        self._cards: list[bool] = []

    def draw(self) -> bool:
        """Whether this invocation is the weight's."""
        if not self._cards:
            self._owed += self._weight * _CARDS
            count = int(self._owed + 1e-9)
            self._owed -= count
            self._cards = [True] * count + [False] * (_CARDS - count)
            random.shuffle(self._cards)
        return self._cards.pop()


def _record(alias: Alias) -> str:
    return json.dumps(dataclasses.asdict(alias))
