"""Names of functions: plain, partial ARN and full ARN, each with or without a qualifier.

Room: model. Source: botocore's lambda/2015-03-31 model, shapes FunctionName and NamespacedFunctionName.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LATEST = "$LATEST"

_REFERENCE = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*):lambda:)?(?:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d):)?(?:(?P<account>\d{12}):)?"
    r"(?:function:)?(?P<name>[a-zA-Z0-9-_]{1,140})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]{1,129}))?"
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
