"""Code signing: configurations, and which function has which. No package is signed here, so Enforce lets none in.

Room: service. May: change the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import string
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.configuration import now_text
from sandboxd.api.lookup import Lookup
from sandboxd.api.names import Names
from sandboxd.api.pages import page, read_marker
from sandboxd.api.tags import CODE_SIGNING, CODE_SIGNING_PREFIX, check_tags
from sandboxd.errors import ApiError
from sandboxd.store.settings import Document
from sandboxd.store.store import Store

_KIND, _OF_FUNCTION, _PREFIX = CODE_SIGNING, "CodeSigning", CODE_SIGNING_PREFIX
_ALPHABET = string.ascii_lowercase + string.digits


class CodeSigningApi:
    """The operations on code signing configurations."""

    def __init__(self, store: Store, names: Names, lookup: Lookup) -> None:
        self._database, self._settings, self._names, self._lookup = store.database, store.settings, names, lookup
        self._turn = asyncio.Lock()  # of those that use a configuration and those that delete one

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "CreateCodeSigningConfig": self.create_code_signing_config,
            "DeleteCodeSigningConfig": self.delete_code_signing_config,
            "DeleteFunctionCodeSigningConfig": self.delete_function_code_signing_config,
            "GetCodeSigningConfig": self.get_code_signing_config,
            "GetFunctionCodeSigningConfig": self.get_function_code_signing_config,
            "ListCodeSigningConfigs": self.list_code_signing_configs,
            "ListFunctionsByCodeSigningConfig": self.list_functions_by_code_signing_config,
            "PutFunctionCodeSigningConfig": self.put_function_code_signing_config,
            "UpdateCodeSigningConfig": self.update_code_signing_config,
        }

    def check_package(self, arn: str | None) -> None:
        """Raise CodeVerificationFailedException where the configuration lets no unsigned package in."""
        if arn and self._found(arn)["CodeSigningPolicies"]["UntrustedArtifactOnDeployment"] == "Enforce":
            raise ApiError(
                "CodeVerificationFailedException",
                "Lambda cannot deploy the function. The function or layer might be signed using a signature that the "
                "client is not configured to accept. Check the provided signature for unsigned.",
            )

    def of_function(self, name: str) -> str | None:
        """The ARN of the configuration that a function has."""
        document = self._settings.get(_OF_FUNCTION, name)
        return None if document is None else str(document["CodeSigningConfigArn"])

    @contextlib.asynccontextmanager
    async def attached(self, arn: str | None) -> AsyncIterator[dict[str, Document]]:
        """The document, by kind, of a function that gets a configuration, which stays for the length of the block.

        Raises CodeSigningConfigNotFoundException.
        """
        if arn is None:
            yield {}
            return
        async with self._turn:
            self._found(arn)
            yield {_OF_FUNCTION: {"CodeSigningConfigArn": arn}}

    async def create_code_signing_config(self, call: Call) -> Result:
        """CreateCodeSigningConfig."""
        tags = call.members.get("Tags", {})
        check_tags(tags)
        identifier = "csc-" + "".join(secrets.choice(_ALPHABET) for _ in range(17))
        document = {
            "CodeSigningConfigId": identifier,
            "CodeSigningConfigArn": self._arn(identifier),
            "Description": "",
            "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"},
        }
        changed = await self._put(document, call.members, {"Tags": tags} if tags else {})
        return Result(201, {"CodeSigningConfig": changed})

    async def update_code_signing_config(self, call: Call) -> Result:
        """UpdateCodeSigningConfig."""
        document = self._config(call.members)
        return Result(200, {"CodeSigningConfig": await self._put(document, call.members)})

    async def get_code_signing_config(self, call: Call) -> Result:
        """GetCodeSigningConfig."""
        return Result(200, {"CodeSigningConfig": self._config(call.members)})

    async def list_code_signing_configs(self, call: Call) -> Result:
        """ListCodeSigningConfigs."""
        after = read_marker(call.members)
        rest = (document for key, _, document in self._settings.every(_KIND) if key > after)
        found, more = page(rest, call.members, lambda document: _PREFIX + document["CodeSigningConfigId"])
        return Result(200, {"CodeSigningConfigs": found} | more)

    async def delete_code_signing_config(self, call: Call) -> Result:
        """DeleteCodeSigningConfig."""
        async with self._turn:
            document = self._config(call.members)
            if self._users(document["CodeSigningConfigArn"]):
                text = "Cannot delete the CodeSigningConfig as it is in use."
                raise ApiError("ResourceConflictException", text, 409)
            key = _PREFIX + document["CodeSigningConfigId"]
            await self._database.write(lambda c: self._settings.delete_rows(c, key))
            self._settings.forget(key)
        return Result(204)

    async def list_functions_by_code_signing_config(self, call: Call) -> Result:
        """ListFunctionsByCodeSigningConfig."""
        after = read_marker(call.members)
        users = self._users(self._config(call.members)["CodeSigningConfigArn"])
        found, more = page((name for name in users if name > after), call.members, str)
        return Result(200, {"FunctionArns": [self._names.arn(name) for name in found]} | more)

    async def put_function_code_signing_config(self, call: Call) -> Result:
        """PutFunctionCodeSigningConfig."""
        name = self._lookup.unqualified(call.members, "PutFunctionCodeSigningConfig").name
        async with self.attached(call.members["CodeSigningConfigArn"]) as documents:
            await self._settings.put(_OF_FUNCTION, name, documents[_OF_FUNCTION])
        return Result(200, {"CodeSigningConfigArn": self.of_function(name), "FunctionName": name})

    async def get_function_code_signing_config(self, call: Call) -> Result:
        """GetFunctionCodeSigningConfig."""
        name = self._lookup.unqualified(call.members, "GetFunctionCodeSigningConfig").name
        arn = self.of_function(name)
        return Result(200, {"FunctionName": name} | ({"CodeSigningConfigArn": arn} if arn else {}))

    async def delete_function_code_signing_config(self, call: Call) -> Result:
        """DeleteFunctionCodeSigningConfig."""
        name = self._lookup.unqualified(call.members, "DeleteFunctionCodeSigningConfig").name
        if self.of_function(name) is not None:
            await self._settings.remove(_OF_FUNCTION, name)
        return Result(204)

    async def _put(
        self, document: Document, members: dict[str, Any], beside: Mapping[str, Document] | None = None
    ) -> Document:
        taken = ("Description", "AllowedPublishers", "CodeSigningPolicies")
        changed = document | {name: members[name] for name in taken if name in members} | {"LastModified": now_text()}
        documents, key = {_KIND: changed, **(beside or {})}, _PREFIX + document["CodeSigningConfigId"]
        await self._database.write(lambda c: self._settings.put_rows(c, key, documents))
        self._settings.show(key, documents)
        return changed

    def _config(self, members: dict[str, Any]) -> Document:
        arn = members["CodeSigningConfigArn"]
        try:
            return self._found(arn)
        except ApiError:
            text = f"The provided CodeSigningConfig {arn} was not found."
            raise ApiError("ResourceNotFoundException", text, 404) from None

    def _found(self, arn: str) -> Document:
        identifier = arn.rpartition(":")[2]
        document = self._settings.get(_KIND, _PREFIX + identifier)
        if document is None or arn != self._arn(identifier):
            text = (
                "The code signing configuration cannot be found. Check that the provided configuration is not deleted: "
            )
            raise ApiError("CodeSigningConfigNotFoundException", text + arn + ".", 404)
        return document

    def _users(self, arn: str) -> list[str]:
        return [name for name, _, kept in self._settings.every(_OF_FUNCTION) if kept["CodeSigningConfigArn"] == arn]

    def _arn(self, identifier: str) -> str:
        return f"arn:aws:lambda:{self._names.region}:{self._names.account}:{_PREFIX}{identifier}"
