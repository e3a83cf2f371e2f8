"""The store: its parts put together, and brought into order at the start.

Room: service. May: what its parts may.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from sandboxd.config import Config
from sandboxd.store.aliases import Aliases
from sandboxd.store.code import Code, Unpacker
from sandboxd.store.database import Database
from sandboxd.store.functions import Functions
from sandboxd.store.images import Images
from sandboxd.store.keys import Keys
from sandboxd.store.settings import Settings


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that survives a restart."""

    database: Database
    functions: Functions
    aliases: Aliases
    settings: Settings
    code: Code
    keys: Keys
    images: Images

    @classmethod
    async def open(cls, config: Config, builder: Unpacker) -> Store:
        """Open the store of an instance and finish, or undo, what a sudden end interrupted."""
        database = Database(config.service_dir / "sandboxd.db")
        functions = Functions(database)
        zips = config.service_dir / "zips"
        code = Code(zips, config.code_dir, builder, config.limits, functions.uses_code)
        aliases, settings = Aliases(database), Settings(database)
        store = cls(database, functions, aliases, settings, code, Keys(database), Images(config.images_dir))
        await store._recover()
        return store

    async def delete_function(self, name: str) -> None:
        """Remove a function and everything that is its own, at once."""
        parts = (self.functions, self.aliases, self.settings)
        await self.database.write(lambda c: [part.delete_rows(c, name) for part in parts])
        for part in parts:
            part.forget(name)

    def close(self) -> None:
        """Finish the writes under way and close every file."""
        self.database.close()
        self.code.close()

    async def _recover(self) -> None:
        failures = await self.code.recover({version.code_digest for version in self.functions.every_version()})
        settled = []
        for version in self.functions.every_version():
            reason = failures.get(version.code_digest, "")
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
