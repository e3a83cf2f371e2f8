"""Layers: rows in the database, values in memory.

Room: service. May: write rows. May not: touch packages or environments.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterator

from sandboxd.model.layer import LayerVersion, Unzipped
from sandboxd.store.database import Database


class Layers:
    """Every version of every layer. Methods are for the event loop's thread; those that write are coroutines."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._versions: dict[str, dict[int, LayerVersion]] = {}
        self._names: list[str] = []
        self._packages: Counter[str] = Counter()
        for (record,) in database.read("SELECT record FROM layer_versions ORDER BY layer, version"):
            self._show(_version(str(record)))

    def get(self, layer: str, version: int) -> LayerVersion | None:
        """A version, or None."""
        return self._versions.get(layer, {}).get(version)

    def names(self, after: str) -> Iterator[str]:
        """The layers that have a version, by name, from behind one."""
        return iter(self._names[bisect_right(self._names, after) :])

    def versions(self, layer: str) -> list[LayerVersion]:
        """The versions of a layer, newest first."""
        versions = self._versions.get(layer, {})
        return [versions[number] for number in sorted(versions, reverse=True)]

    def every_version(self) -> Iterator[LayerVersion]:
        """The versions of all layers."""
        for versions in self._versions.values():
            yield from versions.values()

    def uses(self, digest: str) -> bool:
        """Whether a version is this package."""
        return digest in self._packages

    async def publish(self, version: LayerVersion) -> LayerVersion:
        """Add a version, whose number is the layer's next: none is given twice."""

        def work(connection: sqlite3.Connection) -> LayerVersion:
            statement = (
                "INSERT INTO layers VALUES (?, 1) ON CONFLICT DO UPDATE SET last_version = last_version + 1 "
                "RETURNING last_version"
            )
            ((number,),) = connection.execute(statement, (version.layer,)).fetchall()
            published = dataclasses.replace(version, version=number)
            row = (published.layer, number, _record(published))
            connection.execute("INSERT INTO layer_versions VALUES (?, ?, ?)", row)
            return published

        published = await self._database.write(work)
        self._show(published)
        return published

    async def update(self, version: LayerVersion) -> None:
        """Change what can be changed of a version: its policy."""
        row = (_record(version), version.layer, version.version)
        statement = "UPDATE layer_versions SET record = ? WHERE (layer, version) = (?, ?)"
        await self._database.write(lambda c: c.execute(statement, row))
        if self.get(version.layer, version.version) is not None:
            self._versions[version.layer][version.version] = version

    async def delete(self, version: LayerVersion) -> None:
        """Remove a version that is there."""
        key = (version.layer, version.version)
        statement = "DELETE FROM layer_versions WHERE (layer, version) = (?, ?)"
        await self._database.write(lambda c: c.execute(statement, key))
        versions = self._versions.get(version.layer, {})
        if versions.pop(version.version, None) is None:
            return  # another request was quicker
        self._packages[version.digest] -= 1
        if not self._packages[version.digest]:
            del self._packages[version.digest]
        if not versions:
            del self._versions[version.layer]
            self._names.remove(version.layer)

    def _show(self, version: LayerVersion) -> None:
        if version.layer not in self._versions:
            self._versions[version.layer] = {}
            insort(self._names, version.layer)
        self._versions[version.layer][version.version] = version
        self._packages[version.digest] += 1


def _record(version: LayerVersion) -> str:
    return json.dumps(dataclasses.asdict(version))


def _version(record: str) -> LayerVersion:
    fields = json.loads(record)
    fields["unzipped"] = Unzipped(*fields["unzipped"])
    for name in ("runtimes", "architectures"):
        if fields[name] is not None:
            fields[name] = tuple(fields[name])
    return LayerVersion(**fields)
