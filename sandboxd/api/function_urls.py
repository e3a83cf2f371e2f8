"""The configuration of functions' URLs, and what their addresses look like.

Room: service. May: change the store.

Source: https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.errors import invalid_parameter
from sandboxd.api.names import Names
from sandboxd.api.pages import page, read_marker
from sandboxd.config import Config
from sandboxd.errors import ApiError
from sandboxd.store.store import Store
from sandboxd.store.urls import FunctionUrl, Urls

MARK = ".lambda-url."  # what every address has behind its id
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKENS = ("AllowHeaders", "AllowMethods", "ExposeHeaders")


@dataclass(frozen=True, slots=True)
class Addresses:
    """The form of the addresses: `https://<id>.lambda-url.<region>.on.aws/` at AWS, with a domain of one's own here."""

    scheme: str
    domain: str
    port: int | None  # where it is not the scheme's
    suffix: str

    @classmethod
    def of(cls, config: Config) -> Addresses:
        """Those that the configuration wants."""
        base = urlsplit(config.function_urls or f"http://localhost:{config.api_listen[1]}")
        assert base.hostname is not None
        return cls(base.scheme, base.hostname, base.port, f"{MARK}{config.region}.{base.hostname}")

    def url(self, url_id: str) -> str:
        """A function's URL."""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{url_id}{self.suffix}{port}/"

    def id(self, host: str) -> str:
        """The id that a Host header names; empty where it names no address of ours."""
        name = host.partition(":")[0].lower()
        return name.removesuffix(self.suffix) if name.endswith(self.suffix) else ""


class FunctionUrlsApi:
    """The operations on functions' URLs."""

    def __init__(self, store: Store, names: Names, urls: Urls, addresses: Addresses) -> None:
        self._store, self._names, self._urls, self._addresses = store, names, urls, addresses

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "CreateFunctionUrlConfig": self.create_config,
            "DeleteFunctionUrlConfig": self.delete_config,
            "GetFunctionUrlConfig": self.get_config,
            "ListFunctionUrlConfigs": self.list_configs,
            "UpdateFunctionUrlConfig": self.update_config,
        }

    async def create_config(self, call: Call) -> Result:
        """CreateFunctionUrlConfig."""
        members = call.members
        name, qualifier = self._named(members, "CreateFunctionUrlConfig")
        if self._store.functions.described(name) is None:
            raise _no_function()
        if self._urls.get(name, qualifier) is not None:
            arn = self._names.arn(name, qualifier or None)
            text = f"Failed to create function url config for [functionArn = {arn}]. Error message:  "
            text += "FunctionUrlConfig exists for this Lambda function"
            raise ApiError("ResourceConflictException", text, 409)
        self._check_alias(name, qualifier)
        now, mode = _now(), members.get("InvokeMode", "BUFFERED")
        url = FunctionUrl(name, qualifier, members["AuthType"], mode, _cors(members), now, now)
        await self._urls.put(url)
        answer = self._describe(url)
        del answer["LastModifiedTime"]
        if "InvokeMode" not in members:  # as AWS was recorded to
            del answer["InvokeMode"]
        return Result(201, answer)

    async def get_config(self, call: Call) -> Result:
        """GetFunctionUrlConfig."""
        return Result(200, self._describe(self._found(call.members, "GetFunctionUrlConfig")))

    async def update_config(self, call: Call) -> Result:
        """UpdateFunctionUrlConfig: what the request leaves out stays."""
        members = call.members
        name, qualifier = self._named(members, "UpdateFunctionUrlConfig")
        if self._store.functions.described(name) is None:
            raise _no_function()
        self._check_alias(name, qualifier)
        url = self._urls.get(name, qualifier)
        if url is None:
            raise _no_url()
        url = replace(
            url,
            auth_type=members.get("AuthType", url.auth_type),
            invoke_mode=members.get("InvokeMode", url.invoke_mode),
            cors=_cors(members) if "Cors" in members else url.cors,
            modified=_now(),
        )
        await self._urls.put(url)
        return Result(200, self._describe(url))

    async def delete_config(self, call: Call) -> Result:
        """DeleteFunctionUrlConfig."""
        await self._urls.remove(self._found(call.members, "DeleteFunctionUrlConfig"))
        return Result(204)

    async def list_configs(self, call: Call) -> Result:
        """ListFunctionUrlConfigs."""
        name, _ = self._names.resolve(call.members["FunctionName"], action="ListFunctionUrlConfigs")
        if self._store.functions.described(name) is None:
            raise _no_function()
        after = read_marker(call.members)
        rest = (url for url in self._urls.of(name) if _position(url) > after)
        found, more = page(rest, call.members, _position)
        return Result(200, {"FunctionUrlConfigs": [self._describe(url) for url in found]} | more)

    def _named(self, members: Mapping[str, Any], action: str) -> tuple[str, str]:
        """The function and the alias (empty: none) of a request."""
        name, qualifier = self._names.resolve(members["FunctionName"], members.get("Qualifier"), action)
        return name, qualifier or ""

    def _check_alias(self, name: str, qualifier: str) -> None:
        if qualifier and self._store.aliases.get(name, qualifier) is None:
            raise _no_function()

    def _found(self, members: Mapping[str, Any], action: str) -> FunctionUrl:
        url = self._urls.get(*self._named(members, action))
        if url is None:
            raise _no_url()
        return url

    def _describe(self, url: FunctionUrl) -> dict[str, Any]:
        """AWS's FunctionUrlConfig."""
        answer = {
            "FunctionUrl": self._addresses.url(url.id),
            "FunctionArn": self._names.arn(url.function, url.qualifier or None),
            "AuthType": url.auth_type,
            "CreationTime": url.created,
            "LastModifiedTime": url.modified,
            "InvokeMode": url.invoke_mode,
        }
        return answer | ({"Cors": url.cors} if url.cors else {})


def _position(url: FunctionUrl) -> str:
    return f":{url.qualifier}"  # a text, where no position is the one before all


def _cors(members: Mapping[str, Any]) -> dict[str, Any]:
    """The Cors of a request. Raises ApiError where a name in it can be none, which AWS's model lets through."""
    cors: dict[str, Any] = members.get("Cors", {})
    for member in _TOKENS:
        for name in cors.get(member, ()):
            if not _TOKEN.fullmatch(name):
                raise invalid_parameter(f"{member} of Cors holds what is no name: {name[:100]!r}")
    return cors


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _no_function() -> ApiError:
    return ApiError("ResourceNotFoundException", "Function does not exist", 404)


def _no_url() -> ApiError:
    return ApiError("ResourceNotFoundException", "The resource you requested does not exist.", 404)
