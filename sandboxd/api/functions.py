"""Functions: create, show, list, update, delete.

Room: service. May: change the store, retire environments.

One change of a function at a time: a second update meanwhile is AWS's ResourceConflictException, a deletion waits.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from sandboxd.api.configuration import Configurations, new_revision, now_text
from sandboxd.api.downloads import Downloads
from sandboxd.api.errors import function_not_found, in_state, invalid_parameter, update_in_progress
from sandboxd.api.names import Names
from sandboxd.api.packages import package_error, package_of
from sandboxd.api.protocols import Logs
from sandboxd.api.reclaim import Reclaimer
from sandboxd.api.runtimes import check_architectures
from sandboxd.api.tasks import Tasks
from sandboxd.errors import ApiError, PackageRejected
from sandboxd.model.arn import LATEST
from sandboxd.model.function import FunctionVersion, Policy
from sandboxd.store.functions import FunctionExists
from sandboxd.store.store import Store

_NAME_LENGTH = 64
_PAGE = 50  # https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctions.html


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation: its checked members, and scheme and authority under which the client reached us."""

    members: dict[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation answers; no document is no body."""

    status: int
    document: dict[str, Any] | None = None


class FunctionsApi:
    """The operations on functions."""

    def __init__(
        self,
        store: Store,
        configurations: Configurations,
        names: Names,
        reclaimer: Reclaimer,
        logs: Logs,
        downloads: Downloads,
        tasks: Tasks,
    ) -> None:
        self._store, self._configurations, self._names, self._reclaimer = store, configurations, names, reclaimer
        self._logs, self._downloads, self._tasks = logs, downloads, tasks
        self._changing: dict[str, asyncio.Event] = {}

    async def create_function(self, call: Call) -> Result:
        """CreateFunction."""
        members = call.members
        name, _ = self._names.resolve(members["FunctionName"], action="CreateFunction")
        if len(name) > _NAME_LENGTH:
            raise invalid_parameter(
                f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: "
                f"Member must have length less than or equal to {_NAME_LENGTH}"
            )
        package = package_of(members["Code"], self._configurations.limits)
        self._configurations.check(members)
        if "Runtime" not in members or "Handler" not in members:
            raise invalid_parameter(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
        if self._store.functions.described(name):
            raise _exists(name)
        self._begin_change(name)
        try:
            async with self._hold(package) as digest:
                version = self._configurations.initial(name, self._names.arn(name), members, digest, len(package))
                await self._store.functions.create(version)
        except FunctionExists:
            self._end_change(name)
            raise _exists(name) from None
        except BaseException:
            self._end_change(name)
            raise
        self._tasks.start(self._settle(version, None))
        return Result(201, self._configurations.describe(version))

    async def get_function(self, call: Call) -> Result:
        """GetFunction."""
        version, qualified = self._find(call, "GetFunction")
        answer: dict[str, Any] = {
            "Configuration": self._configurations.describe(version, qualified=qualified),
            "Code": {
                "RepositoryType": "S3",
                "Location": call.origin + self._downloads.target(version.code_digest),
            },
        }
        answer |= {name: json.loads(text) for name, text in version.extra if name == "Tags"}
        return Result(200, answer)

    async def get_function_configuration(self, call: Call) -> Result:
        """GetFunctionConfiguration."""
        version, qualified = self._find(call, "GetFunctionConfiguration")
        return Result(200, self._configurations.describe(version, qualified=qualified))

    async def list_functions(self, call: Call) -> Result:
        """ListFunctions."""
        after = _read_marker(call.members.get("Marker", ""))
        count = min(call.members.get("MaxItems", _PAGE), _PAGE)
        here = call.members.get("MasterRegion", "ALL") in ("ALL", self._names.region)
        qualified = call.members.get("FunctionVersion") == "ALL"
        functions = self._store.functions.every_version() if qualified else self._store.functions.all()
        rest = [version for version in functions if _position(version) > after] if here else []
        page = [self._configurations.describe(v, qualified=qualified, listed=True) for v in rest[:count]]
        answer: dict[str, Any] = {"Functions": page}
        if len(rest) > count:
            answer["NextMarker"] = _marker(rest[count - 1])
        return Result(200, answer)

    async def update_function_code(self, call: Call) -> Result:
        """UpdateFunctionCode."""
        members = call.members
        current = self._find_to_change(members, "UpdateFunctionCode")
        package = package_of(members, self._configurations.limits)
        if "Architectures" in members:
            check_architectures(members["Architectures"])
        self._configurations.check({name: members[name] for name in ("Publish", "PublishTo") if name in members})
        if members.get("DryRun"):
            async with self._hold(package) as digest:
                return Result(
                    200,
                    self._configurations.describe(replace(current, code_digest=digest, code_size=len(package))),
                )
        self._begin_change(current.name)
        try:
            async with self._hold(package) as digest:
                version = replace(
                    current,
                    code_digest=digest,
                    code_size=len(package),
                    revision_id=new_revision(),
                    last_modified=now_text(),
                )
                return await self._update(version)
        except BaseException:
            self._end_change(current.name)
            raise

    async def update_function_configuration(self, call: Call) -> Result:
        """UpdateFunctionConfiguration."""
        current = self._find_to_change(call.members, "UpdateFunctionConfiguration")
        self._configurations.check(call.members)
        self._begin_change(current.name)
        try:
            return await self._update(self._configurations.merged(current, call.members))
        except BaseException:
            self._end_change(current.name)
            raise

    async def delete_function(self, call: Call) -> Result:
        """DeleteFunction."""
        name, qualifier = self._names.resolve(
            call.members["FunctionName"], call.members.get("Qualifier"), "DeleteFunction"
        )
        if qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if qualifier and "$" not in qualifier and not qualifier.isdigit():
            raise invalid_parameter("Deletion of aliases is not currently supported.")
        await self._wait_for_change(name)
        self._existing(name)
        version = self._store.functions.described(name, qualifier)
        if version is None:  # AWS says of no version that it is not there
            return Result(204)
        gone = [version] if qualifier else self._store.functions.versions(name)
        self._begin_change(name)
        try:
            await (self._store.functions.withdraw(version) if qualifier else self._store.functions.delete(name))
        finally:
            self._end_change(name)
        for one in gone:
            self._reclaimer.retire(one)
        if not qualifier:
            self._logs.forget(name)
        return Result(204)

    async def publish_version(self, call: Call) -> Result:
        """PublishVersion. Where nothing changed since the last version was published, that one is the answer."""
        members = call.members
        latest = self._find_to_change(members, "PublishVersion")
        self._configurations.check({name: members[name] for name in ("PublishTo",) if name in members})
        digest = base64.b64encode(bytes.fromhex(latest.code_digest)).decode()
        if members.get("CodeSha256", digest) != digest:
            raise invalid_parameter(
                f"CodeSHA256 ({members['CodeSha256']}) is different from current CodeSHA256 in $LATEST ({digest}). "
                "Please try again with the CodeSHA256 in $LATEST."
            )
        if latest.state != "Active":
            raise in_state(latest.state)
        published = self._store.functions.versions(latest.name)[-1]
        if published.published_from != latest.revision_id:
            number = latest.last_published + 1
            published = replace(
                latest,
                version=str(number),
                description=members.get("Description", latest.description),
                revision_id=new_revision(),
                published_from=latest.revision_id,
                extra=(),
            )
            self._begin_change(latest.name)
            try:
                await self._store.functions.publish(replace(latest, last_published=number), published)
            finally:
                self._end_change(latest.name)
        return Result(201, self._configurations.describe(published, qualified=True))

    async def list_versions_by_function(self, call: Call) -> Result:
        """ListVersionsByFunction."""
        name, _ = self._names.resolve(call.members["FunctionName"], action="ListVersionsByFunction")
        self._existing(name)
        after = _read_marker(call.members.get("Marker", ""))
        count = min(call.members.get("MaxItems", _PAGE), _PAGE)
        rest = [version for version in self._store.functions.versions(name) if _position(version) > after]
        page = [self._configurations.describe(v, qualified=True, listed=True) for v in rest[:count]]
        answer: dict[str, Any] = {"Versions": page}
        if len(rest) > count:
            answer["NextMarker"] = _marker(rest[count - 1])
        return Result(200, answer)

    def policy(self, name: str) -> Policy:
        """What a function may do. Raises ResourceNotFoundException."""
        return self._existing(name).policy

    async def set_policy(self, name: str, policy: Policy) -> None:
        """Permit something else; as after an update, environments are made anew."""
        self._existing(name)
        await self._wait_for_change(name)
        current = self._existing(name)
        self._begin_change(name)
        try:
            for published in self._store.functions.versions(name)[1:]:  # what is taken away is taken from all
                await self._store.functions.settle(replace(published, policy=policy, revision_id=new_revision()))
            await self._store.functions.serve(replace(current, policy=policy, revision_id=new_revision()))
        finally:
            self._end_change(name)
        self._reclaimer.retire(current)

    def _existing(self, name: str) -> FunctionVersion:
        version = self._store.functions.described(name)
        if version is None:
            raise function_not_found(self._names.arn(name))
        return version

    def _find(self, call: Call, action: str) -> tuple[FunctionVersion, bool]:
        name, qualifier = self._names.resolve(call.members["FunctionName"], call.members.get("Qualifier"), action)
        version = self._store.functions.described(name, qualifier)
        if version is None:
            raise function_not_found(self._names.arn(name, qualifier))
        return version, qualifier is not None

    def _find_to_change(self, members: dict[str, Any], action: str) -> FunctionVersion:
        name, qualifier = self._names.resolve(members["FunctionName"], action=action)
        version = self._existing(name)
        if qualifier not in (None, LATEST):
            raise invalid_parameter(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
                "operation. Please specify either a function name or an unqualified function ARN."
            )
        if name in self._changing:
            raise self._conflict(name)
        if "RevisionId" in members and members["RevisionId"] != version.revision_id:
            text = (
                "The Revision Id provided does not match the latest Revision Id. "
                "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
            )
            raise ApiError("PreconditionFailedException", text, 412)
        return version

    def _begin_change(self, name: str) -> None:
        if name in self._changing:
            raise self._conflict(name)
        self._changing[name] = asyncio.Event()

    def _end_change(self, name: str) -> None:
        self._changing.pop(name).set()

    async def _wait_for_change(self, name: str) -> None:
        while name in self._changing:
            await self._changing[name].wait()

    def _conflict(self, name: str) -> ApiError:
        version = self._store.functions.described(name)
        if version is not None and version.state == "Pending":
            return in_state("Pending")
        return update_in_progress(self._names.arn(name))

    async def _update(self, version: FunctionVersion) -> Result:
        """Show the new version, and have it serve right behind; the change ends with that."""
        previous = self._store.functions.resolve(version.name)
        shown = replace(version, last_update_status="InProgress")
        await self._store.functions.describe(shown)
        self._tasks.start(self._settle(shown, previous))
        return Result(200, self._configurations.describe(shown))

    async def _settle(self, version: FunctionVersion, previous: FunctionVersion | None) -> None:
        try:
            await self._store.functions.serve(
                replace(
                    version,
                    state="Active",
                    state_reason="",
                    last_update_status="Successful",
                    revision_id=new_revision(),
                )
            )
            if previous is not None:
                self._reclaimer.retire(previous)
        finally:
            self._end_change(version.name)

    @contextlib.asynccontextmanager
    async def _hold(self, package: bytes) -> AsyncIterator[str]:
        try:
            async with self._store.code.hold(package) as digest:
                yield digest
        except (PackageRejected, OSError) as error:
            raise package_error(error, self._configurations.limits) from error


def _exists(name: str) -> ApiError:
    return ApiError("ResourceConflictException", f"Function already exist: {name}", 409)


def _position(version: FunctionVersion) -> tuple[str, int]:
    """Where a version stands in lists: by name, $LATEST first, then by number."""
    return version.name, 0 if version.version == LATEST else int(version.version)


def _marker(version: FunctionVersion) -> str:
    name, number = _position(version)
    return base64.urlsafe_b64encode(f"{name}:{number}".encode()).decode()


def _read_marker(marker: str) -> tuple[str, int]:
    try:
        name, _, number = base64.b64decode(marker, altchars=b"-_", validate=True).decode().partition(":")
        return name, int(number) if marker else -1
    except (binascii.Error, ValueError):
        raise invalid_parameter("Invalid Marker") from None
