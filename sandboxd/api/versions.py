"""Published versions: made of what $LATEST is, never changed, known by number.

Room: service. May: change the store, retire environments.
"""

from __future__ import annotations

import base64
from dataclasses import replace

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.changes import Changes
from sandboxd.api.concurrency import Allotments
from sandboxd.api.configuration import Configurations, new_revision
from sandboxd.api.errors import in_state, invalid_parameter
from sandboxd.api.lookup import Lookup
from sandboxd.api.pages import page, read_marker
from sandboxd.api.reclaim import Reclaimer
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.model.function import FunctionVersion
from sandboxd.store.store import Store


class VersionsApi:
    """The operations on versions."""

    def __init__(
        self,
        store: Store,
        configurations: Configurations,
        lookup: Lookup,
        changes: Changes,
        reclaimer: Reclaimer,
        allotments: Allotments,
    ) -> None:
        self._store, self._configurations, self._allotments = store, configurations, allotments
        self._lookup, self._changes, self._reclaimer = lookup, changes, reclaimer

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "ListVersionsByFunction": self.list_versions_by_function,
            "PublishVersion": self.publish_version,
        }

    async def publish_version(self, call: Call) -> Result:
        """PublishVersion. Where nothing changed since the last version was published, that one is the answer."""
        members = call.members
        latest = self._lookup.to_change(members, "PublishVersion")
        self._configurations.check({name: members[name] for name in ("PublishTo",) if name in members})
        digest = base64.b64encode(bytes.fromhex(latest.code_digest)).decode()
        if members.get("CodeSha256", digest) != digest:
            raise invalid_parameter(
                f"CodeSHA256 ({members['CodeSha256']}) is different from current CodeSHA256 in $LATEST ({digest}). "
                "Please try again with the CodeSHA256 in $LATEST."
            )
        if latest.state != "Active":
            raise in_state(latest.state)
        with self._changes.one(latest.name):
            description = members.get("Description", latest.description)
            latest, published, new = self.publication(latest, description)
            if new:
                await self._store.functions.publish(latest, published)
        return Result(201, self._configurations.describe(published, published.version))

    def publication(self, latest: FunctionVersion, description: str) -> tuple[FunctionVersion, FunctionVersion, bool]:
        """$LATEST and a version of what it is: the last one, where that was made of the same, or else a new one, whose
        number $LATEST knows; and whether it is new.
        """
        if self._store.functions.described(latest.name) is not None:
            last = self._store.functions.versions(latest.name)[-1]
            if last.published_from == latest.content:
                return latest, last, False
        number = latest.last_published + 1
        published = replace(
            latest,
            version=str(number),
            description=description,
            revision_id=new_revision(),
            published_from=latest.content,
        )
        return replace(latest, last_published=number), published, True

    async def list_versions_by_function(self, call: Call) -> Result:
        """ListVersionsByFunction."""
        function = self._lookup.function(call.members, "ListVersionsByFunction")
        after = read_marker(call.members)
        rest = (version for version in self._store.functions.versions(function.name) if position(version) > after)
        found, more = page(rest, call.members, position)
        rows = [self._configurations.describe(version, version.version, listed=True) for version in found]
        return Result(200, {"Versions": rows} | more)

    async def delete(self, name: str, number: str) -> None:
        """Remove a version; AWS says of no version that it is not there. Raises ApiError where an alias needs it."""
        version = self._store.functions.described(name, number)
        if version is None:
            return
        users = [
            alias.name for alias in self._store.aliases.of(name) if number in (alias.version, alias.second_version)
        ]
        if users:
            text = f"Unable to delete version because the following aliases reference it: [{', '.join(users)}]"
            raise ApiError("ResourceConflictException", text, 409)
        with self._changes.one(name):
            await self._store.delete_qualified(name, number)
        self._reclaimer.retire(version)
        self._allotments.apply(name)


def position(version: FunctionVersion) -> str:
    """Where a version stands in lists: by name, $LATEST first, then by number."""
    return f"{version.name}:{0 if version.version == LATEST else int(version.version):020}"
