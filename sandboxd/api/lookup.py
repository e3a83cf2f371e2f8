"""From what a client calls a function to the function, version or alias that is meant.

Room: service. May: read the store's maps. May not: change anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxd.api.changes import Changes
from sandboxd.api.errors import function_not_found, functions_only, revision_differs
from sandboxd.api.names import Names
from sandboxd.api.revisions import Revisions
from sandboxd.model.arn import LATEST
from sandboxd.model.function import FunctionVersion
from sandboxd.store.store import Store


class Lookup:
    """Finds functions by the members of a request; raises ApiError in AWS's words where there is none."""

    def __init__(self, store: Store, names: Names, changes: Changes, revisions: Revisions) -> None:
        self._store, self._names, self._changes, self._revisions = store, names, changes, revisions

    def named(self, name: str) -> FunctionVersion:
        """A function by its plain name, as the API shows it."""
        version = self._store.functions.described(name)
        if version is None:
            raise function_not_found(self._names.arn(name))
        return version

    def function(self, members: Mapping[str, Any], action: str) -> FunctionVersion:
        """The function of a request, whatever qualifier its name holds."""
        name, _ = self._names.resolve(members["FunctionName"], action=action)
        return self.named(name)

    def qualified(self, members: Mapping[str, Any], action: str) -> tuple[FunctionVersion, str | None]:
        """The version that name and Qualifier mean, by an alias too, and the qualifier."""
        name, qualifier = self._names.resolve(members["FunctionName"], members.get("Qualifier"), action)
        number = self._store.aliases.version(name, qualifier) if qualifier else None
        version = self._store.functions.described(name, number or qualifier)
        if version is None:
            raise function_not_found(self._names.arn(name, qualifier))
        return version, qualifier

    def unqualified(self, members: Mapping[str, Any], action: str) -> FunctionVersion:
        """The function of a request for what versions and aliases do not support."""
        name, qualifier = self._names.resolve(members["FunctionName"], action=action)
        version = self.named(name)
        if qualifier not in (None, LATEST):
            raise functions_only()
        return version

    def to_change(self, members: Mapping[str, Any], action: str) -> FunctionVersion:
        """The function of a request that changes it: nobody else does, and RevisionId, where given, is the present."""
        version = self.unqualified(members, action)
        self._changes.check(version.name, self._names.arn(version.name), version)
        present = self._revisions.of(version)
        if members.get("RevisionId", present) != present:
            raise revision_differs()
        return version
