"""Requests made up from AWS's model of the service: nearly sound ones, and ones with anything wrong."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore
from hypothesis import strategies as st

from tests.fuzz.wire import EXTRA_HEADERS, FRAMINGS, METHODS, Wire
from tests.support.packages import zip_of

LAYERS, SIGNING = "/2018-10-31/layers", "/2020-04-22/code-signing-configs/"
SOURCES = "/2015-03-31/event-source-mappings/"
NAME, LAYER = "fuzzed", "fuzzed-layer"
ACCOUNT = "arn:aws:lambda:us-east-1:000000000000"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/fuzzed"
PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/0123456789"
PACKAGE = base64.b64encode(zip_of({"app.py": "def handler(event, context):\n    return event\n"})).decode()


def _read_model() -> dict[str, Any]:
    path = Path(botocore.__file__).parent / "data/lambda/2015-03-31/service-2.json.gz"
    parsed: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return parsed


MODEL = _read_model()
SHAPES = MODEL["shapes"]
OPERATIONS = MODEL["operations"]
SOUND: dict[str, Any] = {
    "FunctionName": NAME, "Runtime": "python3.13", "Handler": "app.handler", "MemorySize": 128, "Timeout": 3,
    "Role": "arn:aws:iam::000000000000:role/test", "ZipFile": PACKAGE, "Qualifier": "$LATEST",
    "InvocationType": "RequestResponse", "LogType": "Tail", "RevisionId": None, "Payload": "{}",
}  # fmt: skip
STANDING = frozenset(SOUND)  # which a request has, whether or not it must
NEEDED = ("Runtime", "Handler", "ZipFile")  # whatever the model says
SOUND |= {
    "LayerName": LAYER, "VersionNumber": 1, "Content": {"ZipFile": PACKAGE}, "Code": {"ZipFile": PACKAGE},
    "Name": "live", "FunctionVersion": "1", "RoutingConfig": {}, "StatementId": "s", "Principal": "*",
    "Action": "lambda:InvokeFunction", "Resource": f"{ACCOUNT}:function:{NAME}", "Tags": {"a": "b"}, "TagKeys": ["a"],
    "Layers": [f"{ACCOUNT}:layer:{LAYER}:1"], "Arn": f"{ACCOUNT}:layer:{LAYER}:1", "AuthType": "NONE",
    "Cors": {"AllowOrigins": ["*"]}, "EventSourceArn": STREAM, "StartingPosition": "LATEST", "Enabled": False,
    "MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 60, "UpdateRuntimeOn": "Auto", "RecursiveLoop": "Allow",
    "AllowedPublishers": {"SigningProfileVersionArns": [PROFILE]}, "MaxItems": 2, "VpcConfig": {},
    "Environment": {"Variables": {"AB": "c"}}, "EphemeralStorage": {"Size": 512}, "ReservedConcurrentExecutions": 5,
    "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"}, "DestinationConfig": {},
}  # fmt: skip
NAMES = (
    NAME, "gone", f"arn:aws:lambda:us-east-1:000000000000:function:{NAME}", f"000000000000:function:{NAME}",
    f"{NAME}:$LATEST", "", ".", "..", "a" * 65, "a" * 141, "a/b", "%00", "\0", "ü", "\ud800", "$LATEST", f"{NAME} ",
    "arn:aws:lambda:eu-west-9:000000000000:function:x", "arn:aws:lambda:us-east-1:999999999999:function:x", f"{NAME}:1",
)  # fmt: skip
TEXTS = ("", " ", "x", "\0", "\n", "a\r\nX-Injected: 1", "é", "\U0001f4a9", "\ud800", "x" * 300, "../..", "%s%n",
         "'; --", "null", "-1", "１２", "0x10", "1_0", " 5", "9" * 4299, "9" * 5000, "1e5", "true")  # fmt: skip
NUMBERS: tuple[Any, ...] = (0, -1, 1, 3, 127, 128, 192, 3008, 3009, 2**31, 2**63, 10**400, 1.5, 1e308, True, None)
DEEP = "[" * 2000 + "]" * 2000


class Raw:
    """JSON as it is to stand in the request, sound or not."""

    def __init__(self, text: str) -> None:
        self.text = text


RAW = tuple(
    map(Raw, (DEEP, "NaN", "-Infinity", "1e999", "9" * 5000, "{", '{"a":1,"a":2}', '"\\ud800"', "\ufeff1", "01", "'x'"))
)
WRONG = st.sampled_from((*TEXTS, *NUMBERS, *RAW, [], {}, [[]], [None], {"": None}, {"a": {"b": 1}}, ["x"] * 300))


def encoded(value: Any) -> str:
    """JSON of a value that may hold raw text."""
    match value:
        case Raw():
            return value.text
        case dict():
            return "{" + ",".join(f"{json.dumps(str(k))}:{encoded(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(encoded, value)) + "]"
    return json.dumps(value)


@st.composite
def value_of(draw: st.DrawFn, name: str, member: str, depth: int = 0) -> Any:
    """A value for a shape of the model: mostly a sound one, or nearly."""
    shape = SHAPES[name]
    if draw(st.integers(0, 9)) == 0:
        return draw(WRONG)
    if member == "FunctionName":
        return draw(st.sampled_from((NAME, NAME, *NAMES)))
    if member in SOUND and draw(st.integers(0, 3)):
        return SOUND[member]
    match shape["type"]:
        case "structure" if depth < 3:
            wanted = [m for m in shape["members"] if m in shape.get("required", ()) or draw(st.integers(0, 5)) == 0]
            return {m: draw(value_of(shape["members"][m]["shape"], m, depth + 1)) for m in wanted}
        case "list" if depth < 3:
            return [draw(value_of(shape["member"]["shape"], "", depth + 1)) for _ in range(draw(st.integers(0, 2)))]
        case "map" if depth < 3:
            return {draw(st.sampled_from(("K", "A_B", *TEXTS))): draw(st.sampled_from(TEXTS)) for _ in range(2)}
        case "integer" | "long" | "double":
            low, high = shape.get("min", 0), shape.get("max", 10_000)
            return draw(st.sampled_from((low, high, low - 1, high + 1, (low + high) // 2)))
        case "boolean":
            return draw(st.booleans())
    if "enum" in shape:
        return draw(st.sampled_from((*shape["enum"], "Nonsense")))
    return draw(st.sampled_from(TEXTS))


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else encoded(value)


def escaped(value: Any, safe: str = "") -> bytes:
    return quote(text_of(value).encode("utf-8", "surrogatepass"), safe=safe).encode()


def input_of(operation: str) -> dict[str, Any]:
    """The shape of what an operation takes."""
    about = OPERATIONS[operation]
    shape: dict[str, Any] = SHAPES[about["input"]["shape"]] if "input" in about else {"members": {}}
    return shape


def sound_of(name: str, member: str) -> Any:
    """A value for a shape of the model that is right, or would be for somebody."""
    shape = SHAPES[name]
    if member in SOUND:
        return SOUND[member]
    match shape["type"]:
        case "structure":
            return {m: sound_of(shape["members"][m]["shape"], m) for m in shape.get("required", ())}
        case "list":
            return [sound_of(shape["member"]["shape"], "")] * shape.get("min", 0)
        case "map":
            return {}
        case "boolean":
            return False
        case "string" | "blob":
            return shape["enum"][0] if "enum" in shape else "x" * max(1, shape.get("min", 1))
    return shape.get("min", 1)


@st.composite
def nearly_sound(draw: st.DrawFn, offered: tuple[str, ...]) -> Wire:
    """A request with what it must have and some of what it may, of which one member at most is wrong."""
    name = draw(st.sampled_from(offered))
    shape = input_of(name)
    members = [m for m in shape["members"] if m in shape.get("required", ()) or m in NEEDED]
    others = sorted(shape["members"].keys() - set(members))
    if others:
        members += draw(st.lists(st.sampled_from(others), max_size=2, unique=True))
    wrong = draw(st.sampled_from((None, None, *members)))
    values = {member: sound_of(shape["members"][member]["shape"], member) for member in members}
    if "Action" in values and "LayerName" in values:
        values["Action"] = "lambda:GetLayerVersion"
    if name == "CreateAlias":
        values["Name"] = draw(st.sampled_from(("live", "other")))
    if name == "CreateFunction":
        values["FunctionName"] = draw(st.sampled_from((NAME, "fuzzed-1", "fuzzed-2")))
    if name == "CreateEventSourceMapping":
        values |= {"EventSourceArn": STREAM + draw(st.sampled_from(("", "-1", "-2"))), "StartingPosition": "LATEST"}
        values["Enabled"] = False
    if "Qualifier" in values:
        values["Qualifier"] = draw(st.sampled_from(("$LATEST", "1", "live")))
    if wrong is not None:
        values[wrong] = draw(value_of(shape["members"][wrong]["shape"], wrong))
    return draw(carried(name, values, {}))


@st.composite
def requests(draw: st.DrawFn, offered: tuple[str, ...]) -> Wire:
    """A request of one of the model's operations, with some of its members, and perhaps something wrong around it."""
    name = draw(st.sampled_from(offered if draw(st.integers(0, 9)) else tuple(OPERATIONS)))
    shape = input_of(name)
    values, unknown = {}, {}
    for member, about in shape["members"].items():
        sound = member in STANDING or member in shape.get("required", ())
        if not sound and draw(st.integers(0, 7)):
            continue
        if member in ("RevisionId", "DryRun") and draw(st.integers(0, 3)):
            continue
        values[member] = draw(value_of(about["shape"], member))
    if draw(st.integers(0, 9)) == 0:
        unknown = {draw(st.sampled_from(("Unknown", "functionName", "__proto__", "\0"))): draw(WRONG)}
    wire = draw(carried(name, values, unknown))
    method = wire.method
    if draw(st.integers(0, 14)) == 0:
        method = draw(st.sampled_from(METHODS))
    if draw(st.integers(0, 4)):
        return replace(wire, method=method)
    return replace(wire, method=method, headers=(*wire.headers, *draw(EXTRA_HEADERS)), framing=draw(FRAMINGS))


@st.composite
def carried(draw: st.DrawFn, name: str, values: dict[str, Any], unknown: dict[str, Any]) -> Wire:
    """The members of an operation's input where each belongs, in the path, the query, a header or the body."""
    operation, shape = OPERATIONS[name], input_of(name)
    target = operation["http"]["requestUri"].encode()
    query, headers, body = [], [], {}
    payload = None
    for member, value in values.items():
        about = shape["members"][member]
        wire_name = about.get("locationName", member)
        match about.get("location"):
            case "uri":
                for form in (b"{%s}" % wire_name.encode(), b"{%s+}" % wire_name.encode()):
                    target = target.replace(form, escaped(value, draw(st.sampled_from(("", "/:$", "/%?#")))))
            case "querystring":
                every = value if isinstance(value, list) else [value]
                query += [wire_name.encode() + b"=" + escaped(one) for one in every]
            case "header":
                headers.append((wire_name.encode(), text_of(value).encode("utf-8", "replace")[:6000]))
            case _ if member == shape.get("payload"):
                payload = text_of(value).encode("utf-8", "replace")
            case _:
                body[member] = value
    if query:
        target += (b"&" if b"?" in target else b"?") + b"&".join(query)
    body |= unknown
    content = payload if payload is not None else encoded(body).encode("utf-8", "surrogatepass") if body else b""
    return Wire(operation["http"]["method"].encode(), target, tuple(headers), content)
