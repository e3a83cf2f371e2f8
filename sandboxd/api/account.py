"""The account's limits and what of them is used.

Room: service. May: read the store's maps, ask how large the disk is.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.concurrency import Allotments
from sandboxd.model.limits import Limits
from sandboxd.store.store import Store


class AccountApi:
    """GetAccountSettings. The disk under the packages is the limit of their total size."""

    def __init__(self, store: Store, limits: Limits, allotments: Allotments, directory: Path) -> None:
        self._functions, self._layers, self._limits = store.functions, store.layers, limits
        self._allotments, self._directory = allotments, directory

    def operations(self) -> Operations:
        """What the model's operation is done by."""
        return {"GetAccountSettings": self.get_account_settings}

    async def get_account_settings(self, call: Call) -> Result:
        """GetAccountSettings."""
        limit = {
            "TotalCodeSize": shutil.disk_usage(self._directory).total,
            "CodeSizeUnzipped": self._limits.unzipped_bytes,
            "CodeSizeZipped": self._limits.zip_bytes,
            "ConcurrentExecutions": self._limits.concurrency,
            "UnreservedConcurrentExecutions": self._allotments.unreserved(),
        }
        size = self._functions.code_size + sum(v.code_size for v in self._layers.every_version())
        usage = {"TotalCodeSize": size, "FunctionCount": len(self._functions)}
        return Result(200, {"AccountLimit": limit, "AccountUsage": usage})
