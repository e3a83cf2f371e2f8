"""The store: its parts put together, and brought into order at the start.

Room: service. May: what its parts may.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sandboxd.config import Config
from sandboxd.model.function import FunctionVersion
from sandboxd.store.aliases import Aliases
from sandboxd.store.code import Code, Unpacker
from sandboxd.store.database import Database, DiskFull
from sandboxd.store.events import EventQueue
from sandboxd.store.functions import Functions
from sandboxd.store.images import Images
from sandboxd.store.keys import Keys
from sandboxd.store.layers import Layers
from sandboxd.store.principals import Principals
from sandboxd.store.settings import Document, Settings


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that survives a restart."""

    database: Database
    functions: Functions
    aliases: Aliases
    settings: Settings
    layers: Layers
    code: Code
    keys: Keys
    users: Principals
    roles: Principals
    images: Images
    events: EventQueue

    @classmethod
    async def open(cls, config: Config, builder: Unpacker) -> Store:
        """Open the store of an instance and finish, or undo, what a sudden end interrupted."""
        database = Database(config.service_dir / "sandboxd.db")
        functions, layers = Functions(database), Layers(database)
        zips = config.service_dir / "zips"

        def in_use(digest: str) -> bool:
            return functions.uses_code(digest) or layers.uses(digest)

        code = Code(zips, config.code_dir, builder, config.limits, in_use)
        aliases, settings = Aliases(database), Settings(database)
        store = cls(
            database,
            functions,
            aliases,
            settings,
            layers,
            code,
            Keys(database),
            Principals(database, "user"),
            Principals(database, "role"),
            Images(config.images_dir, config.runtimes),
            EventQueue(config.service_dir / "events.db"),
        )
        await store._recover()
        return store

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

    def close(self) -> None:
        """Finish the writes under way and close every file."""
        self.database.close()
        self.events.close()
        self.code.close()

    async def _recover(self) -> None:
        wanted = {layer.digest: layer.unzipped for layer in self.layers.every_version()}
        for version in self.functions.every_version():
            wanted |= {layer.digest: layer.unzipped for layer in version.layers}
            wanted[version.code_digest] = version.unzipped
        failures = await self.code.recover(wanted)
        settled = []
        for version in self.functions.every_version():
            reason = _reason(version, failures)
            state = "Failed" if reason else "Active"
            if (version.state, version.state_reason, version.last_update_status) == (state, reason, "Successful"):
                continue
            settled.append(
                replace(
                    version,
                    state=state,
                    state_reason=reason,
                    last_update_status="Successful",
                    revision_id=str(uuid.uuid4()),
                )
            )
        await self.functions.settle(*settled)


def _reason(version: FunctionVersion, failures: Mapping[str, str]) -> str:
    """Why a version cannot run, or nothing."""
    if version.code_digest in failures:
        return f"its code package {failures[version.code_digest]}"
    lost = (f"its layer {layer.arn} {failures[layer.digest]}" for layer in version.layers if layer.digest in failures)
    return next(lost, "")
