"""Layers: publish, show, list, delete, and which of them functions take along.

Room: service. May: change the store, drop packages.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.configuration import now_text
from sandboxd.api.downloads import Downloads
from sandboxd.api.errors import access_denied, invalid_parameter
from sandboxd.api.names import Names
from sandboxd.api.packages import Packages
from sandboxd.api.pages import page, read_marker
from sandboxd.api.reclaim import Reclaimer
from sandboxd.api.runtimes import RUNTIMES
from sandboxd.api.service_model import ServiceModel
from sandboxd.errors import ApiError
from sandboxd.model.arn import LayerReference, layer_arn, parse_layer_reference
from sandboxd.model.layer import MAX_LAYERS, AttachedLayer, LayerVersion
from sandboxd.store.store import Store, Stores

_ARCHITECTURES = "x86_64, arm64"
_COUNTED_DOWN = 1 << 63  # the newest version comes first


class LayersApi:
    """The operations on layers, but for their permissions."""

    def __init__(
        self, store: Store, stores: Stores, names: Names, reclaimer: Reclaimer, packages: Packages, downloads: Downloads
    ) -> None:
        self._store, self._stores, self._names, self._reclaimer = store, stores, names, reclaimer
        self._packages, self._downloads = packages, downloads

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "DeleteLayerVersion": self.delete_layer_version,
            "GetLayerVersion": self.get_layer_version,
            "GetLayerVersionByArn": self.get_layer_version_by_arn,
            "ListLayers": self.list_layers,
            "ListLayerVersions": self.list_layer_versions,
            "PublishLayerVersion": self.publish_layer_version,
        }

    def arn(self, layer: str, version: int | None = None) -> str:
        """The ARN of a layer, or of a version of it."""
        return layer_arn(self._names.region, self._names.account, layer, version)

    def named(self, members: Mapping[str, Any], action: str) -> str:
        """The layer of a request. Raises AccessDeniedException for one of another account or region."""
        reference = parse_layer_reference(members["LayerName"])
        assert reference is not None  # the model's pattern lets through less
        self._check_ours(reference, members["LayerName"], action)
        return reference.name

    def numbered(self, members: Mapping[str, Any], action: str) -> LayerVersion | None:
        """The version of a request, or None where there is none."""
        if members["VersionNumber"] < 1:
            raise invalid_parameter("Layer Version Cannot be less than 1")
        return self._store.layers.get(self.named(members, action), members["VersionNumber"])

    def attached(self, arns: Sequence[str]) -> tuple[AttachedLayer, ...]:
        """The layers that a function asks for, those of other accounts being permitted. Raises ApiError where it cannot
        have them."""
        if len(arns) > MAX_LAYERS:
            raise invalid_parameter(f"Cannot reference more than {MAX_LAYERS} layers.")
        found: dict[str, AttachedLayer] = {}
        for arn in arns:
            reference = parse_layer_reference(arn)
            if reference is not None and reference.region != self._names.region:
                raise invalid_parameter(
                    "Layers are not in the same region as the function. "
                    f"Layers are expected to be in region {self._names.region}."
                )
            store = None if reference is None else self._stores.get(reference.account)
            version = store.layers.get(reference.name, reference.version or 0) if store and reference else None
            if version is None or reference is None:
                raise invalid_parameter(f"Layer version {arn} does not exist.")
            layer = layer_arn(self._names.region, reference.account or "", reference.name)
            if layer in found:
                raise invalid_parameter(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. "
                    f"{found[layer].arn} and {arn} are versions of the same layer."
                )
            found[layer] = AttachedLayer(arn, version.digest, version.code_size, version.unzipped)
        return tuple(found.values())

    async def publish_layer_version(self, call: Call) -> Result:
        """PublishLayerVersion."""
        members = call.members
        name = self.named(members, "PublishLayerVersion")
        _check_compatible(members)
        source = self._packages.source(members["Content"])
        runtimes, architectures = members.get("CompatibleRuntimes"), members.get("CompatibleArchitectures")
        async with self._packages.held(source) as (digest, size):
            version = LayerVersion(
                layer=name,
                version=0,
                digest=digest,
                code_size=size,
                unzipped=self._store.code.unzipped(digest),
                created=now_text(),
                description=members.get("Description", ""),
                license_info=members.get("LicenseInfo"),
                runtimes=None if runtimes is None else tuple(runtimes),
                architectures=None if architectures is None else tuple(architectures),
            )
            version = await self._store.layers.publish(version)
        return Result(201, self._describe_whole(version, call.origin))

    async def get_layer_version(self, call: Call) -> Result:
        """GetLayerVersion."""
        return self._show(self.numbered(call.members, "GetLayerVersion"), call.origin)

    async def get_layer_version_by_arn(self, call: Call) -> Result:
        """GetLayerVersionByArn."""
        reference = parse_layer_reference(call.members["Arn"])
        if reference is None:  # the form of layers that are AWS's own
            return self._show(None, call.origin)
        self._check_ours(reference, call.members["Arn"], "GetLayerVersion")
        return self._show(self._store.layers.get(reference.name, reference.version or 0), call.origin)

    async def list_layers(self, call: Call) -> Result:
        """ListLayers: of each layer the newest version that matches."""
        newest = (
            next((v for v in self._store.layers.versions(name) if _matches(v, call.members)), None)
            for name in self._store.layers.names(read_marker(call.members))
        )
        found, more = page(filter(None, newest), call.members, lambda version: version.layer)
        rows = [
            {"LayerName": v.layer, "LayerArn": self.arn(v.layer), "LatestMatchingVersion": self._describe(v)}
            for v in found
        ]
        return Result(200, {"Layers": rows} | more)

    async def list_layer_versions(self, call: Call) -> Result:
        """ListLayerVersions, newest first."""
        name, after = self.named(call.members, "ListLayerVersions"), read_marker(call.members)
        rest = (v for v in self._store.layers.versions(name) if _matches(v, call.members) and _position(v) > after)
        found, more = page(rest, call.members, _position)
        return Result(200, {"LayerVersions": [self._describe(version) for version in found]} | more)

    async def delete_layer_version(self, call: Call) -> Result:
        """DeleteLayerVersion. AWS says of no version that it is not there; functions that have it keep it."""
        version = self.numbered(call.members, "DeleteLayerVersion")
        if version is not None:
            await self._store.layers.delete(version)
            self._reclaimer.drop(version.digest)
        return Result(204)

    def _check_ours(self, reference: LayerReference, arn: str, action: str) -> None:
        ours = (self._names.account, self._names.region)
        if reference.account is not None and (reference.account, reference.region) != ours:
            raise self._denied(action, arn)

    def _denied(self, action: str, arn: str) -> ApiError:
        return access_denied(
            f"User: arn:aws:iam::{self._names.account}:root is not authorized to perform: lambda:{action} on resource: "
            f"{arn} because no resource-based policy allows the lambda:{action} action"
        )

    def _show(self, version: LayerVersion | None, origin: str) -> Result:
        if version is None:
            raise ApiError("ResourceNotFoundException", "The resource you requested does not exist.", 404)
        return Result(200, self._describe_whole(version, origin))

    def _describe_whole(self, version: LayerVersion, origin: str) -> dict[str, Any]:
        content = {
            "Location": origin + self._downloads.target(version.digest),
            "CodeSha256": base64.b64encode(bytes.fromhex(version.digest)).decode(),
            "CodeSize": version.code_size,
        }
        return {"Content": content, "LayerArn": self.arn(version.layer)} | self._describe(version)

    def _describe(self, version: LayerVersion) -> dict[str, Any]:
        """AWS's LayerVersionsListItem."""
        answer: dict[str, Any] = {
            "LayerVersionArn": self.arn(version.layer, version.version),
            "Version": version.version,
            "Description": version.description,
            "CreatedDate": version.created,
        }
        if version.runtimes is not None:
            answer["CompatibleRuntimes"] = list(version.runtimes)
        if version.architectures is not None:
            answer["CompatibleArchitectures"] = list(version.architectures)
        if version.license_info is not None:
            answer["LicenseInfo"] = version.license_info
        return answer


def prepare_model(model: ServiceModel) -> None:
    """As at AWS: a list of layers is filtered by every runtime that ever was, and what a version says that it is
    compatible with is checked here, behind the model, in words of its own."""
    for operation in ("ListLayers", "ListLayerVersions"):
        shape = model.operations[operation].input
        assert shape is not None
        member = shape.members["CompatibleRuntime"]
        shape.members["CompatibleRuntime"] = replace(member, shape=replace(member.shape))
    architectures = model.shape("CompatibleArchitectures")
    assert architectures.item is not None
    architectures.item = replace(architectures.item, enum=())


def _check_compatible(members: Mapping[str, Any]) -> None:
    failed = "failed to satisfy constraint: "
    problems = []
    runtimes, architectures = members.get("CompatibleRuntimes", ()), members.get("CompatibleArchitectures", ())
    if not set(runtimes) <= set(RUNTIMES.split(", ")):
        wrong = f"Value '[{', '.join(runtimes)}]' at 'compatibleRuntimes' {failed}"
        problems.append(f"{wrong}Member must satisfy enum value set: [{RUNTIMES}]")
    if not set(architectures) <= set(_ARCHITECTURES.split(", ")):
        wrong = f"Value '[{', '.join(architectures)}]' at 'compatibleArchitectures' {failed}"
        problems.append(
            f"{wrong}Member must satisfy constraint: [Member must satisfy enum value set: [{_ARCHITECTURES}]]"
        )
    if problems:
        many = "s" if len(problems) > 1 else ""
        raise ApiError("ValidationException", f"{len(problems)} validation error{many} detected: {'; '.join(problems)}")


def _matches(version: LayerVersion, members: Mapping[str, Any]) -> bool:
    runtime, architecture = members.get("CompatibleRuntime"), members.get("CompatibleArchitecture")
    return (runtime is None or runtime in (version.runtimes or ())) and (
        architecture is None or architecture in (version.architectures or ())
    )


def _position(version: LayerVersion) -> str:
    return f"{_COUNTED_DOWN - version.version:020}"
