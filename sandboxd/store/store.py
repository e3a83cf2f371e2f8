"""The store: its parts put together, and brought into order at the start.

Room: service. May: what its parts may.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from sandboxd.config import Config
from sandboxd.model.arn import LATEST
from sandboxd.store.code import Code, Unpacker
from sandboxd.store.database import Database
from sandboxd.store.functions import Functions
from sandboxd.store.images import Images
from sandboxd.store.keys import Keys


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that survives a restart."""

    database: Database
    functions: Functions
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
        store = cls(database, functions, code, Keys(database), Images(config.images_dir))
        await store._recover()
        return store

    def close(self) -> None:
        """Finish the writes under way and close every file."""
        self.database.close()
        self.code.close()

    async def _recover(self) -> None:
        failures = await self.code.recover({version.code_digest for version in self.functions.every_version()})
        for version in self.functions.every_version():
            reason = failures.get(version.code_digest, "")
            state = "Failed" if reason else "Active"
            if (version.state, version.state_reason, version.last_update_status) == (state, reason, "Successful"):
                continue
            settled = replace(
                version,
                state=state,
                state_reason=reason,
                last_update_status="Successful",
                revision_id=str(uuid.uuid4()),
            )
            await (self.functions.serve if version.version == LATEST else self.functions.settle)(settled)
