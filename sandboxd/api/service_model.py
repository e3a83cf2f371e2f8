"""Botocore's model of AWS Lambda, cut down to what a server needs of it.

Room: service. May: read the model's file, once, at the start.

The file is read as data: importing botocore's own model classes brings urllib3 and ssl along, 20 MB and 0.15 s for
a process that never makes a request. What is kept of the model takes about 1 MB.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_GZIP = b"\x1f\x8b"
_FILES = ("data/lambda/2015-03-31/service-2.json.gz", "data/lambda/2015-03-31/service-2.json")


# Java's Unicode classes that Python's `re` lacks, as the nearest class that holds them.
_JAVA_CLASSES = (("\\p{L}", r"\w"), ("\\p{N}", r"\d"), ("\\p{Z}", r"\s"))


@dataclass(slots=True)
class Shape:
    """One shape of the model. Bounds are of a number's value, or of the length of a text, list or map."""

    name: str
    kind: str
    low: int | None = None
    high: int | None = None
    pattern: str = ""
    enum: tuple[str, ...] = ()
    sensitive: bool = False
    required: tuple[str, ...] = ()
    members: dict[str, Member] = field(default_factory=dict)  # of a structure
    item: Shape | None = None  # of a list; of a map, its values
    key: Shape | None = None  # of a map

    def matches(self, text: str) -> bool:
        """Whether a text is of the shape's pattern; `re` keeps the compiled form."""
        return not self.pattern or re.fullmatch(_python_pattern(self.pattern), text) is not None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a structure and where in a request it travels: "uri", "querystring", "header" or "body"."""

    name: str
    shape: Shape
    location: str
    wire_name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its route, and the shape of what it takes (None: an operation that is not offered)."""

    name: str
    method: str
    uri: str
    status: int
    input: Shape | None


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How AWS writes an error: its status, the name of the member with the text, members that travel as headers."""

    status: int
    text_member: str
    headers: Mapping[str, str]


@functools.cache
def document() -> bytes:
    """The model's file as botocore ships it; read while the process may still read whatever its interpreter may."""
    spec = importlib.util.find_spec("botocore")
    assert spec is not None and spec.origin is not None
    path = next(p for p in (Path(spec.origin).parent / name for name in _FILES) if p.exists())
    return path.read_bytes()


class ServiceModel:
    """The operations and errors of AWS Lambda; shapes only of the operations that are offered."""

    def __init__(self, document: Mapping[str, Any], offered: Set[str]) -> None:
        self._raw: Mapping[str, Any] = document["shapes"]
        self._shapes: dict[str, Shape] = {}
        self.operations = {n: self._operation(n, raw, n in offered) for n, raw in document["operations"].items()}
        self.errors = {name: _error(raw) for name, raw in self._raw.items() if raw.get("exception")}
        del self._raw

    @classmethod
    def load(cls, offered: Set[str]) -> ServiceModel:
        """Read the model from the botocore that is installed."""
        content = document()
        return cls(json.loads(gzip.decompress(content) if content[:2] == _GZIP else content), offered)

    def shape(self, name: str) -> Shape:
        """A shape that some operation takes."""
        return self._shapes[name]

    def _operation(self, name: str, raw: Mapping[str, Any], offered: bool) -> Operation:
        http = raw["http"]
        shape = self._shape(raw["input"]["shape"]) if offered else None
        return Operation(name, http["method"], http["requestUri"], http.get("responseCode", 200), shape)

    def _shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        raw = self._raw[name]
        shape = self._shapes[name] = Shape(
            name,
            raw["type"],
            raw.get("min"),
            raw.get("max"),
            raw.get("pattern", ""),
            tuple(raw.get("enum", ())),
            raw.get("sensitive", False),
            tuple(raw.get("required", ())),
        )
        for member, target in raw.get("members", {}).items():
            location = target.get("location", "body")
            wire_name = target.get("locationName", member)
            shape.members[member] = Member(member, self._shape(target["shape"]), location, wire_name)
        if "member" in raw or "value" in raw:
            shape.item = self._shape(raw.get("member", raw.get("value"))["shape"])
        if "key" in raw:
            shape.key = self._shape(raw["key"]["shape"])
        return shape


def _python_pattern(pattern: str) -> str:
    for java, python in _JAVA_CLASSES:
        pattern = pattern.replace(java, python)
    return pattern


def _error(raw: Mapping[str, Any]) -> ErrorShape:
    members = raw["members"]
    headers = {m: t["locationName"] for m, t in members.items() if t.get("location") == "header"}
    text = "Message" if "Message" in members else "message"
    return ErrorShape(raw["error"]["httpStatusCode"], text, headers)
