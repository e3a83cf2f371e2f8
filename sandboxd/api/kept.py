"""Settings that are kept and read back: how a function's runtime is updated, and what becomes of loops.

Room: service. May: change the store.

Runtimes are updated as AWS's Auto does: `sandboxd image build` replaces an image for every new environment. The other
two modes, which pin one, are refused. Loops are not detected; the setting says what its owner wants.
"""

from __future__ import annotations

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.errors import not_offered_member
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.store.store import Store

_RECURSION = "Recursion"
_DEFAULT_RECURSION = {"RecursiveLoop": "Terminate"}


class KeptApi:
    """RuntimeManagementConfig and FunctionRecursionConfig."""

    def __init__(self, store: Store, names: Names, lookup: Lookup) -> None:
        self._settings, self._names, self._lookup = store.settings, names, lookup

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "GetFunctionRecursionConfig": self.get_function_recursion_config,
            "GetRuntimeManagementConfig": self.get_runtime_management_config,
            "PutFunctionRecursionConfig": self.put_function_recursion_config,
            "PutRuntimeManagementConfig": self.put_runtime_management_config,
        }

    async def get_runtime_management_config(self, call: Call) -> Result:
        """GetRuntimeManagementConfig."""
        version, qualifier = self._lookup.qualified(call.members, "GetRuntimeManagementConfig")
        arn = self._names.arn(version.name, qualifier or version.version)
        return Result(200, {"UpdateRuntimeOn": "Auto", "FunctionArn": arn})

    async def put_runtime_management_config(self, call: Call) -> Result:
        """PutRuntimeManagementConfig."""
        answer = await self.get_runtime_management_config(call)
        if call.members["UpdateRuntimeOn"] != "Auto" or "RuntimeVersionArn" in call.members:
            raise not_offered_member(f"UpdateRuntimeOn {call.members['UpdateRuntimeOn']} (Auto is)")
        return answer

    async def get_function_recursion_config(self, call: Call) -> Result:
        """GetFunctionRecursionConfig."""
        name = self._lookup.function(call.members, "GetFunctionRecursionConfig").name
        return Result(200, self._settings.get(_RECURSION, name) or _DEFAULT_RECURSION)

    async def put_function_recursion_config(self, call: Call) -> Result:
        """PutFunctionRecursionConfig."""
        name = self._lookup.function(call.members, "PutFunctionRecursionConfig").name
        document = {"RecursiveLoop": call.members["RecursiveLoop"]}
        await self._settings.put(_RECURSION, name, document)
        return Result(200, document)
