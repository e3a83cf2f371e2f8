"""Functions: create, show, list, update, delete.

Room: service. May: change the store, retire environments.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.changes import Changes
from sandboxd.api.code_signing import CodeSigningApi
from sandboxd.api.concurrency import Allotments
from sandboxd.api.configuration import Configurations, new_revision, now_text
from sandboxd.api.downloads import Downloads
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.layers import LayersApi
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.api.packages import Packages, Source
from sandboxd.api.pages import page, read_marker
from sandboxd.api.protocols import Logs
from sandboxd.api.reclaim import Reclaimer
from sandboxd.api.roles import Roles
from sandboxd.api.runtimes import check_architectures
from sandboxd.api.tags import check_tags
from sandboxd.api.tasks import Tasks
from sandboxd.api.versions import VersionsApi, position
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.model.function import FunctionVersion, Policy
from sandboxd.store.functions import FunctionExists
from sandboxd.store.store import Store

_NAME_LENGTH = 64


class FunctionsApi:
    """The operations on functions."""

    def __init__(
        self,
        store: Store,
        configurations: Configurations,
        names: Names,
        lookup: Lookup,
        changes: Changes,
        versions: VersionsApi,
        code_signing: CodeSigningApi,
        layers: LayersApi,
        packages: Packages,
        reclaimer: Reclaimer,
        allotments: Allotments,
        roles: Roles,
        logs: Logs,
        downloads: Downloads,
        tasks: Tasks,
        warm: Callable[[Iterable[FunctionVersion]], None],
    ) -> None:
        self._store, self._configurations, self._names = store, configurations, names
        self._lookup, self._changes, self._versions, self._code_signing = lookup, changes, versions, code_signing
        self._layers, self._packages, self._reclaimer, self._allotments = layers, packages, reclaimer, allotments
        self._roles, self._logs, self._downloads, self._tasks = roles, logs, downloads, tasks
        self._warm = warm

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "CreateFunction": self.create_function,
            "DeleteFunction": self.delete_function,
            "GetFunction": self.get_function,
            "GetFunctionConfiguration": self.get_function_configuration,
            "ListFunctions": self.list_functions,
            "UpdateFunctionCode": self.update_function_code,
            "UpdateFunctionConfiguration": self.update_function_configuration,
        }

    async def create_function(self, call: Call) -> Result:
        """CreateFunction."""
        members = call.members
        name, _ = self._names.resolve(members["FunctionName"], action="CreateFunction")
        if len(name) > _NAME_LENGTH:
            raise invalid_parameter(
                f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: "
                f"Member must have length less than or equal to {_NAME_LENGTH}"
            )
        source = self._packages.source(members["Code"])
        self._configurations.check(members)
        check_tags(members.get("Tags", {}))
        layers = self._layers.attached(members.get("Layers", ()))
        self._code_signing.check_package(members.get("CodeSigningConfigArn"))
        if "Runtime" not in members or "Handler" not in members:
            raise invalid_parameter(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
        if self._store.functions.described(name):
            raise _exists(name)
        arn = self._names.arn(name)
        self._changes.check(name, arn, None)
        with self._changes.unless_handed_on(name):
            try:
                bare = replace(self._configurations.initial(name, arn, members), layers=layers)
                self._roles.check(bare)
                signing = self._code_signing.attached(members.get("CodeSigningConfigArn"))
                async with self._made_of(bare, source) as version, signing as documents:
                    version, published, _ = self._published(version, members)
                    if members.get("Tags"):
                        documents["Tags"] = members["Tags"]
                    await self._store.create_function(version, published, documents)
            except FunctionExists:
                raise _exists(name) from None
        self._tasks.start(self._settle(version.name, None, published))
        return Result(201, self._configurations.describe(published or version))

    async def get_function(self, call: Call) -> Result:
        """GetFunction."""
        version, qualifier = self._lookup.qualified(call.members, "GetFunction")
        answer: dict[str, Any] = {
            "Configuration": self._configurations.describe(version, qualifier),
            "Code": {
                "RepositoryType": "S3",
                "Location": call.origin + self._downloads.target(version.code_digest),
            },
        }
        for member in ("Concurrency", "Tags"):
            if kept := self._store.settings.get(member, version.name):
                answer[member] = kept
        return Result(200, answer)

    async def get_function_configuration(self, call: Call) -> Result:
        """GetFunctionConfiguration."""
        version, qualifier = self._lookup.qualified(call.members, "GetFunctionConfiguration")
        return Result(200, self._configurations.describe(version, qualifier))

    async def list_functions(self, call: Call) -> Result:
        """ListFunctions."""
        after = read_marker(call.members)
        here = call.members.get("MasterRegion", "ALL") in ("ALL", self._names.region)
        every = call.members.get("FunctionVersion") == "ALL"
        functions = self._store.functions.every_version if every else self._store.functions.all
        rest = (v for v in functions(after.partition(":")[0]) if position(v) > after) if here else ()
        found, more = page(rest, call.members, position)
        describe = self._configurations.describe
        rows = [describe(version, version.version if every else None, listed=True) for version in found]
        return Result(200, {"Functions": rows} | more)

    async def update_function_code(self, call: Call) -> Result:
        """UpdateFunctionCode."""
        members = call.members
        current = self._lookup.to_change(members, "UpdateFunctionCode")
        self._code_signing.check_package(self._code_signing.of_function(current.name))
        source = self._packages.source(members)
        if "Architectures" in members:
            check_architectures(members["Architectures"])
        self._configurations.check({name: members[name] for name in ("PublishTo",) if name in members})
        if members.get("DryRun"):
            async with self._made_of(current, source) as version:
                return Result(200, self._configurations.describe(version))
        changed = replace(
            current, revision_id=new_revision(), last_modified=now_text(), last_update_status="InProgress"
        )
        with self._changes.unless_handed_on(current.name):
            async with self._made_of(changed, source) as version:
                version, published, new = self._published(version, members)
                await self._store.functions.describe(version, published if new else None)
        self._update(version, published if new else None)
        shown = published or version
        return Result(200, self._configurations.describe(shown, published.version if published else None))

    async def update_function_configuration(self, call: Call) -> Result:
        """UpdateFunctionConfiguration."""
        current = self._lookup.to_change(call.members, "UpdateFunctionConfiguration")
        self._configurations.check(call.members)
        version = replace(self._configurations.merged(current, call.members), last_update_status="InProgress")
        if "Layers" in call.members:
            version = replace(version, layers=self._layers.attached(call.members["Layers"]))
            self._configurations.check_unzipped(version)
        if "Role" in call.members or "DeadLetterConfig" in call.members:
            self._roles.check(version)
        with self._changes.unless_handed_on(current.name), self._store.code.keep(version.packages):
            await self._store.functions.describe(version)
        self._update(version, None)
        return Result(200, self._configurations.describe(version))

    async def delete_function(self, call: Call) -> Result:
        """DeleteFunction."""
        name, qualifier = self._names.resolve(
            call.members["FunctionName"], call.members.get("Qualifier"), "DeleteFunction"
        )
        if qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if qualifier and "$" not in qualifier and not qualifier.isdigit():
            raise invalid_parameter("Deletion of aliases is not currently supported.")
        await self._changes.wait(name)
        self._lookup.named(name)
        if qualifier:
            await self._versions.delete(name, qualifier)
            return Result(204)
        gone = self._store.functions.versions(name)
        with self._changes.one(name):
            await self._store.delete_function(name)
        for one in gone:
            self._reclaimer.retire(one)
        self._allotments.apply(name)
        self._logs.forget(self._names.account, name)
        return Result(204)

    def named(self, name: str) -> FunctionVersion:
        """A function as the API shows it. Raises ResourceNotFoundException."""
        return self._lookup.named(name)

    async def set_policy(self, name: str, policy: Policy) -> None:
        """Permit something else; as after an update, environments are made anew."""
        self._lookup.named(name)
        await self._changes.wait(name)
        self._lookup.named(name)
        before = self._store.functions.versions(name)
        with self._changes.one(name):
            # What is taken away is taken from all.
            changed = (replace(version, policy=policy, revision_id=new_revision()) for version in before)
            await self._store.functions.serve(*changed)
        for version in before:
            self._reclaimer.retire(version)
        self._allotments.apply(name)

    def _published(
        self, version: FunctionVersion, members: Mapping[str, Any]
    ) -> tuple[FunctionVersion, FunctionVersion | None, bool]:
        """A function and, with Publish, a version of it, and whether that is new: then it is Pending for now."""
        if not members.get("Publish"):
            return version, None, False
        latest, published, new = self._versions.publication(version, version.description)
        return latest, replace(published, state="Pending") if new else published, new

    def _update(self, version: FunctionVersion, published: FunctionVersion | None) -> None:
        """Have what is shown of a function serve, in the background, with a version that is new; the change ends so."""
        self._tasks.start(self._settle(version.name, self._store.functions.resolve(version.name), published))

    async def _settle(self, name: str, previous: FunctionVersion | None, published: FunctionVersion | None) -> None:
        try:
            latest = self._store.functions.described(name)
            assert latest is not None
            await self._store.functions.settle(*(_settled(version) for version in (latest, published) if version))
            self._allotments.apply(name)
            self._warm([latest])  # whoever makes a function is about to invoke it
            if previous is not None:
                self._reclaimer.retire(previous)
        finally:
            self._changes.end(name)

    @contextlib.asynccontextmanager
    async def _made_of(self, version: FunctionVersion, source: Source) -> AsyncIterator[FunctionVersion]:
        """The version with another package, which is kept, as its layers are, for the length of the block."""
        code = self._store.code
        with code.keep(layer.digest for layer in version.layers):
            async with self._packages.held(source) as (digest, size):
                unzipped = code.unzipped(digest)
                made = replace(version, code_digest=digest, code_size=size, unzipped=unzipped)
                self._configurations.check_unzipped(made)
                yield made


def _exists(name: str) -> ApiError:
    return ApiError("ResourceConflictException", f"Function already exist: {name}", 409)


def _settled(version: FunctionVersion) -> FunctionVersion:
    return replace(
        version, state="Active", state_reason="", last_update_status="Successful", revision_id=new_revision()
    )
