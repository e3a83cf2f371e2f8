"""Recorded conversations are what is still said; and what they say is of the form that AWS's model gives it.

`python -m tests.api.conversations` records them; whoever does reads what differs against AWS's documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
import pytest

from sandboxd.api.routes import Routes, read_query
from sandboxd.api.service_model import ServiceModel
from tests.api.conftest import Endpoint
from tests.api.conversations import NAMES, Conversation, read

MODEL = botocore.session.get_session().get_component("data_loader").load_service_model("lambda", "service-2")
ROUTES = Routes(ServiceModel.load(set()).operations.values())
# What AWS answers before it knows the operation, and what the model does not list though AWS answers it.
COMMON = {"ValidationException", "SerializationException", "AccessDeniedException", "NotImplementedException"}
COMMON |= {"ResourceNotFoundException", "InvalidParameterValueException"}
# What the model says and AWS does not do; the first two stand in recorded answers of AWS.
EXCEPTIONS = {
    ".LastUpdateStatusReasonCode is 'Creating'",
    "DeleteFunction: 204",
    "GetFunctionCodeSigningConfig: .CodeSigningConfigArn is missing",  # where there is none
}
TYPES = {"string": str, "integer": int, "long": int, "boolean": bool, "double": float, "timestamp": str, "blob": str}


def operation_of(request: str) -> str:
    method, _, target = request.partition(" ")
    path, _, query = target.partition("?")
    found = ROUTES.find(method, path, read_query(query))
    assert found is not None, request
    return found[0].name


def steps_of(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for step in read(name):
        if not step["request"].startswith("WAIT"):
            yield operation_of(step["request"]), step


@pytest.mark.parametrize("name", NAMES)
def test_conversation(endpoint: Endpoint, name: str) -> None:
    recorded = read(name)
    for then, now in zip(recorded, Conversation(endpoint).play(recorded), strict=True):
        assert now == then, then["request"]


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_of_the_models_form(name: str) -> None:
    wrong = []
    for operation, step in steps_of(name):
        about, status = MODEL["operations"][operation], step["status"]
        if status < 300:
            if status != about["http"].get("responseCode", 200):
                wrong.append(f"{operation}: {status}")
            shape = about.get("output", {}).get("shape")
            if shape and "payload" not in MODEL["shapes"][shape]:
                wrong += [f"{operation}: {text}" for text in problems(shape, step.get("answer", {}), "")]
            continue
        code = step["headers"]["x-amzn-errortype"]
        declared = {error["shape"]: MODEL["shapes"][error["shape"]] for error in about.get("errors", ())}
        if code not in declared.keys() | COMMON:
            wrong.append(f"{operation}: {code} is none of {sorted(declared)}")
        if code in declared and status != declared[code]["error"]["httpStatusCode"]:
            wrong.append(f"{operation}: {code} with {status}")
    wrong = [text for text in wrong if not any(known in text for known in EXCEPTIONS)]
    assert not wrong, "\n".join(wrong)


def problems(name: str, value: Any, path: str) -> Iterator[str]:
    """Where a value is not of a shape."""
    shape = MODEL["shapes"][name]
    match shape["type"]:
        case "structure":
            members = shape["members"]
            in_body = {member.get("locationName", key): member for key, member in members.items()}
            for key in value.keys() - in_body.keys():
                yield f"{path}.{key} is unknown"
            for key in set(shape.get("required", ())) - value.keys():
                yield f"{path}.{key} is missing"
            for key in value.keys() & in_body.keys():
                yield from problems(in_body[key]["shape"], value[key], f"{path}.{key}")
        case "list":
            for item in value:
                yield from problems(shape["member"]["shape"], item, f"{path}[]")
        case "map":
            for key, item in value.items():
                yield from problems(shape["value"]["shape"], item, f"{path}.{key}")
        case "timestamp" if value != "<seconds>":
            yield f"{path} is {value!r}, not a number of seconds"
        case kind if not isinstance(value, TYPES[kind]) and value != "<bytes>":
            yield f"{path} is {value!r}, no {kind}"
        case "string" if "enum" in shape and value not in shape["enum"]:
            yield f"{path} is {value!r}, none of {shape['enum']}"


def test_every_operation_is_in_a_conversation(endpoint: Endpoint) -> None:
    held = {operation for name in NAMES for operation, _ in steps_of(name)}
    streamed = {"InvokeWithResponseStream"}  # whose answers are no documents
    assert endpoint.api.offered - streamed <= held


def test_a_difference_is_seen(make_endpoint: Callable[..., Endpoint]) -> None:
    recorded = read("aliases")
    changed = [step | ({"answer": {}} if "answer" in step else {}) for step in recorded]
    played = Conversation(make_endpoint()).play(recorded)
    assert [now == then for now, then in zip(played, changed, strict=True)].count(False) > 10
