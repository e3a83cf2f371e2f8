"""Names of functions: plain, partial ARN and full ARN, each with or without a qualifier; and of layers.

Room: model. Source: botocore's lambda/2015-03-31 model, shapes FunctionName, NamespacedFunctionName, LayerNameOrArn
and LayerVersionArn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LATEST = "$LATEST"

_REFERENCE = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*):lambda:)?(?:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d):)?(?:(?P<account>\d{12}):)?"
    r"(?:function:)?(?P<name>[a-zA-Z0-9-_]{1,140})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]{1,129}))?"
)
_LAYER = re.compile(
    r"(?:arn:(?:aws[a-zA-Z-]*)?:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:)?(?P<name>[a-zA-Z0-9-_]{1,140})"
    r"(?::(?P<version>\d+))?"
)


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """What a client wrote to mean a function; parts it left out are None."""

    name: str
    qualifier: str | None = None
    account: str | None = None
    region: str | None = None


def parse_function_reference(text: str) -> FunctionReference | None:
    """The reference that `text` is, or None where it is none of AWS's forms."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return None
    return FunctionReference(match["name"], match["qualifier"], match["account"], match["region"])


def function_arn(region: str, account: str, name: str, qualifier: str | None = None) -> str:
    """The ARN of a function, qualified where a qualifier is given."""
    arn = f"arn:aws:lambda:{region}:{account}:function:{name}"
    return f"{arn}:{qualifier}" if qualifier else arn


@dataclass(frozen=True, slots=True)
class LayerReference:
    """What a client wrote to mean a layer or a version of it; parts it left out are None."""

    name: str
    version: int | None = None
    account: str | None = None
    region: str | None = None


def parse_layer_reference(text: str) -> LayerReference | None:
    """The reference that `text` is, or None where it is none of AWS's forms."""
    match = _LAYER.fullmatch(text)
    if match is None:
        return None
    version = int(match["version"]) if match["version"] else None
    return LayerReference(match["name"], version, match["account"], match["region"])


def layer_arn(region: str, account: str, name: str, version: int | None = None) -> str:
    """The ARN of a layer, or of a version of it."""
    arn = f"arn:aws:lambda:{region}:{account}:layer:{name}"
    return f"{arn}:{version}" if version else arn
