"""From a request to an operation's members: typed by the model's shapes, then checked against them in AWS's words.

Room: service. May: read bytes that a client wrote. May not: know what any member means.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from sandboxd.api.routes import Query
from sandboxd.api.service_model import Operation, Shape
from sandboxd.errors import ApiError

_MAX_ITEMS = 10_000  # members and elements of a document: each takes up to thirty times its bytes
_SHOWN = 4096  # characters of a wrong value that an answer repeats
_KINDS = {str: "STRING_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE", bool: "BOOLEAN_VALUE"}
_WANTED = {"string": "a String", "blob": "a Blob", "integer": "an Integer", "long": "a Long", "boolean": "a Boolean"}
_WANTED |= {"double": "a Double", "float": "a Float"}


def take_members(
    operation: Operation, labels: Mapping[str, str], query: Query, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    """The members of an operation's input. Raises ApiError SerializationException or ValidationException."""
    assert operation.input is not None
    sources: dict[str, Mapping[str, str]] = {"uri": labels, "querystring": query}
    members: dict[str, Any] = {}
    in_body: dict[str, Shape] = {}
    for member in operation.input.members.values():
        if member.location == "body":
            in_body[member.name] = member.shape
            continue
        # Header names arrive in lower case.
        source = sources.get(member.location)
        text = headers.get(member.wire_name.lower()) if source is None else source.get(member.wire_name)
        if text is not None:
            listed = member.shape.kind == "list"
            members[member.name] = query.every(member.wire_name) if listed else _from_text(member.shape, text)
    if in_body:
        members |= _structure(in_body, read_json(body) if body else {}, operation.name)
    problems = list(_problems(operation, members))
    if problems:
        many = "s" if len(problems) > 1 else ""
        text = f"{len(problems)} validation error{many} detected: {'; '.join(problems)}"
        raise ApiError("ValidationException", text)
    return members


def read_json(body: bytes) -> Any:
    """The document of a request's body. Raises ApiError SerializationException."""
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_ITEMS:  # a package is one text, and has none of these
        raise serialization_error(f"the document has more than {_MAX_ITEMS} members and elements")
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise serialization_error("the document is nested too deeply") from None
    except ValueError as error:
        raise serialization_error(f"the body is not JSON: {error}") from None
    return document


def serialization_error(text: str) -> ApiError:
    """AWS's error for a body that does not have the form the model asks for."""
    return ApiError("SerializationException", text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _from_text(shape: Shape, text: str) -> Any:
    if shape.kind == "string":
        return text
    try:
        return int(text)
    except ValueError:
        raise serialization_error(f"STRING_VALUE can not be converted to {_WANTED[shape.kind]}") from None


def _structure(shapes: Mapping[str, Shape], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise serialization_error("Expected a structure" if not isinstance(value, list) else "Start of list found")
    unknown = next((name for name in value if name not in shapes), None)
    if unknown is not None:
        raise serialization_error(f"Unknown member {unknown[:200]!r} in {where}")
    return {name: _typed(shapes[name], item) for name, item in value.items() if item is not None}


def _typed(shape: Shape, value: Any) -> Any:
    match shape.kind:
        case "structure":
            return _structure({name: m.shape for name, m in shape.members.items()}, value, shape.name)
        case "list":
            if not isinstance(value, list):
                raise serialization_error("Expected list or null")
            assert shape.item is not None
            return [_typed(shape.item, item) for item in value]
        case "map":
            if not isinstance(value, dict):
                raise serialization_error("Expected map or null")
            assert shape.item is not None and shape.key is not None
            return {_typed(shape.key, key): _typed(shape.item, item) for key, item in value.items()}
        case "string" if isinstance(value, str):
            return _encodable(value)
        case "blob" if isinstance(value, str):
            try:
                return binascii.a2b_base64(value, strict_mode=True)
            except ValueError:
                raise serialization_error(f"{shape.name} is not base64") from None
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" | "long" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "double" | "float" | "timestamp" if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    if isinstance(value, list | dict):
        start = "list" if isinstance(value, list) else "structure or map"
        raise serialization_error(f"Start of {start} found where not expected.")
    kind = _KINDS.get(type(value), "NULL_VALUE")
    raise serialization_error(f"{kind} can not be converted to {_WANTED.get(shape.kind, shape.kind)}")


def _encodable(text: str) -> str:
    # JSON's \ud800 is half of a character: no file, header or environment variable can carry it.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise serialization_error("a text holds half of a surrogate pair") from None
    return text


def _problems(operation: Operation, members: Mapping[str, Any]) -> Iterator[str]:
    assert operation.input is not None
    yield from _missing(operation.input, members, "")
    # AWS names what is wrong in the query before what is wrong in the path.
    for member in sorted(operation.input.members.values(), key=lambda m: m.location != "querystring"):
        if member.name in members:
            yield from _value_problems(member.shape, members[member.name], _path("", member.name))


def _missing(shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required:
        if name not in value:
            yield f"Value null at '{_path(path, name)}' failed to satisfy constraint: Member must not be null"


def _path(parent: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{parent}.{name}" if parent else name


def _value_problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    shown = "Value" if shape.sensitive else f"Value '{_java_text(value)[:_SHOWN]}'"
    failed = f"{shown} at '{path}' failed to satisfy constraint: "
    match shape.kind:
        case "structure":
            yield from _missing(shape, value, path)
            for name, item in value.items():
                yield from _value_problems(shape.members[name].shape, item, _path(path, name))
        case "list":
            assert shape.item is not None
            yield from (failed + c for c in _broken(shape, len(value), "length"))
            if shape.item.kind == "structure":
                for index, item in enumerate(value, 1):
                    yield from _value_problems(shape.item, item, f"{path}.{index}.member")
            elif any(any(_text_broken(shape.item, item)) for item in value):
                yield failed + f"Member must satisfy constraint: [{', '.join(_constraints(shape.item))}]"
        case "map":
            assert shape.item is not None and shape.key is not None
            if any(any(_text_broken(shape.key, key)) for key in value):
                yield failed + f"Map keys must satisfy constraint: [{', '.join(_constraints(shape.key))}]"
            if any(any(_item_broken(shape.item, item)) for item in value.values()):
                yield failed + f"Map value must satisfy constraint: [{', '.join(_constraints(shape.item))}]"
        case "string":
            yield from (failed + constraint for constraint in _text_broken(shape, value))
        case "integer" | "long" | "double" | "float":
            yield from (failed + constraint for constraint in _broken(shape, value, "value"))


def _item_broken(shape: Shape, item: Any) -> Iterator[str]:
    if isinstance(item, list):
        assert shape.item is not None
        return chain(_broken(shape, len(item), "length"), *(_text_broken(shape.item, text) for text in item))
    return _text_broken(shape, item) if isinstance(item, str) else _broken(shape, item, "value")


def _text_broken(shape: Shape, text: str) -> Iterator[str]:
    if shape.enum:
        if text not in shape.enum:
            yield f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        return
    yield from _broken(shape, len(text), "length")
    # A text that is too long is refused already: its pattern is tried no further than the longest one could go.
    if not shape.matches(text if shape.high is None else text[: shape.high + 1]):
        yield f"Member must satisfy regular expression pattern: {shape.pattern}"


def _broken(shape: Shape, number: float, what: str) -> Iterator[str]:
    if shape.high is not None and number > shape.high:
        yield f"Member must have {what} less than or equal to {shape.high}"
    if shape.low is not None and number < shape.low:
        yield f"Member must have {what} greater than or equal to {shape.low}"


def _constraints(shape: Shape) -> Iterator[str]:
    """Every constraint of a shape, as AWS lists them where one element of a list or map breaks any."""
    if shape.kind == "double":
        yield f"Member must have value less than or equal to {float(shape.high or 0)}"
        yield f"Member must have value greater than or equal to {float(shape.low or 0)}"
        yield "Member must not be null"
        return
    if shape.enum:
        yield f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        yield "Member must not be null"
        return
    if shape.high is not None:
        yield f"Member must have length less than or equal to {shape.high}"
    if shape.low is not None:
        yield f"Member must have length greater than or equal to {shape.low}"
    if shape.pattern:
        yield f"Member must satisfy regular expression pattern: {shape.pattern}"


def _java_text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_java_text, value))}]"
        case dict():
            return "{" + ", ".join(f"{key}={_java_text(item)}" for key, item in value.items()) + "}"
        case bytes():
            return "java.nio.HeapByteBuffer"
    return str(value)
