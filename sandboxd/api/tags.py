"""Tags of functions, event source mappings and code signing configurations.

Room: service. May: change the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.changes import Changes
from sandboxd.api.errors import invalid_parameter, not_offered_member
from sandboxd.api.event_source_kinds import KIND, PREFIX
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.errors import ApiError
from sandboxd.store.store import Store

CODE_SIGNING = "CodeSigningConfig"  # the kind of the documents of configurations
CODE_SIGNING_PREFIX = "code-signing-config:"  # of their keys; with a colon a key is no function's name
_KEPT = {PREFIX[:-1]: KIND, CODE_SIGNING_PREFIX[:-1]: CODE_SIGNING}  # each by the end of its ARN
_MOST = 50  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-tags.html


class TagsApi:
    """ListTags, TagResource and UntagResource."""

    def __init__(self, store: Store, names: Names, lookup: Lookup, changes: Changes) -> None:
        self._store, self._names, self._lookup, self._changes = store, names, lookup, changes

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "ListTags": self.list_tags,
            "TagResource": self.tag_resource,
            "UntagResource": self.untag_resource,
        }

    async def list_tags(self, call: Call) -> Result:
        """ListTags."""
        return Result(200, {"Tags": self._of(self._function(call, "ListTags"))})

    async def tag_resource(self, call: Call) -> Result:
        """TagResource."""
        name = self._function(call, "TagResource")
        await self._changes.wait(name)
        tags = self._of(self._function(call, "TagResource")) | call.members["Tags"]
        check_tags(tags)
        return await self._put(name, tags)

    async def untag_resource(self, call: Call) -> Result:
        """UntagResource. AWS says of no tag that it is not there."""
        name = self._function(call, "UntagResource")
        await self._changes.wait(name)
        tags = self._of(self._function(call, "UntagResource"))
        gone = call.members["TagKeys"]
        return await self._put(name, {key: value for key, value in tags.items() if key not in gone})

    async def _put(self, name: str, tags: dict[str, Any]) -> Result:
        with self._changes.one(name):
            await self._store.settings.put("Tags", name, tags)
        return Result(204)

    def _of(self, name: str) -> dict[str, Any]:
        return self._store.settings.get("Tags", name) or {}

    def _function(self, call: Call, action: str) -> str:
        """By what the tags of an ARN's resource are kept, which is a function's name. Raises ApiError."""
        arn = call.members["Resource"]
        kind = arn.split(":")[5]
        if kind in _KEPT:
            return self._kept(arn, _KEPT[kind])
        if kind != "function":
            raise not_offered_member(f"tags of a {kind}")
        name, qualifier = self._names.resolve(arn, action=action)
        if qualifier:
            raise invalid_parameter(
                "Tags on function aliases and versions are not supported. Please specify a function ARN."
            )
        return self._lookup.named(name).name

    def _kept(self, arn: str, kind: str) -> str:
        _, _, _, region, account, key = arn.split(":", 5)
        found = self._store.settings.get(kind, key)
        if found is None or (region, account) != (self._names.region, self._names.account):
            raise ApiError("ResourceNotFoundException", "The resource you requested does not exist.", 404)
        return key


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise InvalidParameterValueException where a function cannot have these tags."""
    if len(tags) > _MOST:
        raise invalid_parameter("Number of tags exceeds resource tag limit.")
    if any(key.lower().startswith("aws:") for key in tags):
        raise invalid_parameter("aws: prefixed tag key names are not allowed for external use.")
