"""What is refused and how; and that no request at all, however made, breaks the API."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sandboxd
from sandboxd.api.service_model import ServiceModel
from tests.api.conftest import ROLE, Endpoint, package
from tests.api.test_lifecycle import error_of

FUNCTIONS = "/2015-03-31/functions"


def creation(name: str = "my-function", **members: Any) -> dict[str, Any]:
    standing = {"Runtime": "python3.12", "Handler": "handler.handler", "Role": ROLE, "Code": {"ZipFile": package()}}
    return {"FunctionName": name, "Timeout": 30, "Environment": {"Variables": {}}} | standing | members


def out_of_bounds(member: str, value: int, words: str) -> tuple[str, int, str]:
    text = f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member must have "
    return "ValidationException", 400, f"{text}value {words}"


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, int, str]]] = {
    "memory 100": ({"MemorySize": 100}, out_of_bounds("memorySize", 100, "greater than or equal to 128")),
    "memory 200": (
        {"MemorySize": 200},
        (
            "InvalidParameterValueException",
            400,
            "'MemorySize' value failed to satisfy constraint: Member must be a multiple of 64",
        ),
    ),
    "memory 4096": (
        {"MemorySize": 4096},
        (
            "InvalidParameterValueException",
            400,
            "'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to 3008",
        ),
    ),
    "timeout 0": ({"Timeout": 0}, out_of_bounds("timeout", 0, "greater than or equal to 1")),
    "timeout 901": ({"Timeout": 901}, out_of_bounds("timeout", 901, "less than or equal to 900")),
    "storage 511": (
        {"EphemeralStorage": {"Size": 511}},
        out_of_bounds("ephemeralStorage.size", 511, "greater than or equal to 512"),
    ),
    "storage 10241": (
        {"EphemeralStorage": {"Size": 10241}},
        out_of_bounds("ephemeralStorage.size", 10241, "less than or equal to 10240"),
    ),
    "no role": (
        {"Role": None},
        (
            "ValidationException",
            400,
            "1 validation error detected: Value null at 'role' failed to satisfy constraint: Member must not be null",
        ),
    ),
    "no handler": (
        {"Handler": None},
        (
            "InvalidParameterValueException",
            400,
            "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
        ),
    ),
    "a runtime without image": (
        {"Runtime": "nodejs20.x"},
        (
            "InvalidParameterValueException",
            400,
            "The runtime nodejs20.x has no image on this server. Build it with: sandboxd image build nodejs20.x",
        ),
    ),
    "reserved variables": (
        {"Environment": {"Variables": {"AWS_REGION": "x", "FINE": "y", "AWS_ACCESS_KEY_ID": "z"}}},
        (
            "InvalidParameterValueException",
            400,
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. Reserved keys used in "
            "this request: AWS_REGION, AWS_ACCESS_KEY_ID",
        ),
    ),
    "a variable's name": (
        {"Environment": {"Variables": {"1": "x"}}},
        (
            "ValidationException",
            400,
            "1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: Map keys must "
            "satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]",
        ),
    ),
    "no code": ({"Code": {}}, ("InvalidParameterValueException", 400, "Please provide a source for function code.")),
    "empty zip": (
        {"Code": {"ZipFile": ""}},
        ("InvalidParameterValueException", 400, "Uploaded file must be a non-empty zip"),
    ),
    "ill-formed base64": ({"Code": {"ZipFile": "%%%"}}, ("SerializationException", 400, "Blob is not base64")),
    "arm64": (
        {"Architectures": ["arm64"]},
        ("InvalidParameterValueException", 400, "This server runs functions for x86_64, not for arm64"),
    ),
    "unknown member": (
        {"Colour": "green"},
        ("SerializationException", 400, "Unknown member 'Colour' in CreateFunction"),
    ),
    "unknown member inside": (
        {"Code": {"ZipFiles": ""}},
        ("SerializationException", 400, "Unknown member 'ZipFiles' in FunctionCode"),
    ),
    "text for a number": (
        {"Timeout": "3"},
        ("SerializationException", 400, "STRING_VALUE can not be converted to an Integer"),
    ),
    "number for a text": (
        {"Description": 3},
        ("SerializationException", 400, "NUMBER_VALUE can not be converted to a String"),
    ),
    "truth for a number": (
        {"Timeout": True},
        ("SerializationException", 400, "BOOLEAN_VALUE can not be converted to an Integer"),
    ),
    "half a character": (
        {"Description": "\ud800"},
        ("SerializationException", 400, "a text holds half of a surrogate pair"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_members_that_are_refused(endpoint: Endpoint, what: str) -> None:
    members, expected = REFUSED[what]
    encoded = {"Code": {"ZipFile": base64.b64encode(package()).decode()}}
    request = {k: v for k, v in (creation("refused") | encoded | members).items() if v is not None}
    status, headers, body = endpoint.unix("POST", FUNCTIONS, request)
    answer = json.loads(body)
    assert (headers["x-amzn-errortype"], status, answer.get("message", answer.get("Message"))) == expected
    assert endpoint.unix("GET", f"{FUNCTIONS}/refused")[0] == 404
    assert not list((endpoint.config.service_dir / "zips").iterdir())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("PackageType", "Image"),
        ("VpcConfig", {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}),
        ("KMSKeyArn", "arn:aws:kms:us-east-1:111111111111:key/1"),
        ("ImageConfig", {"Command": ["x"]}),
    ],
)
def test_what_is_not_offered_is_refused_not_ignored(client: Any, member: str, value: Any) -> None:
    error = error_of(client.create_function, **creation(**{member: value}))
    assert error == ("InvalidParameterValueException", 400, f"sandboxd does not offer {member} yet")


@pytest.mark.parametrize("source", [{"S3Bucket": "bucket", "S3Key": "key"}, {"ImageUri": "registry/image:tag"}])
def test_code_comes_as_a_zip_only(client: Any, source: dict[str, str]) -> None:
    code, status, message = error_of(client.create_function, **creation(Code=source))
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert message.startswith(f"sandboxd does not offer {next(iter(source))} as a source of code")


def test_every_member_of_create_function_is_honoured_or_refused() -> None:
    """A botocore with a new member fails here, not in silence."""
    from sandboxd.api.configuration import _STANDING
    from sandboxd.api.kept_members import _MERGES

    members = set()
    for operation in ("CreateFunction", "UpdateFunctionConfiguration"):
        shape = ServiceModel.load({operation}).operations[operation].input
        assert shape is not None
        members |= set(shape.members)
    honoured = {"FunctionName", "Runtime", "Role", "Handler", "Code", "Description", "Timeout", "MemorySize", "Tags"}
    honoured |= {"Environment", "EphemeralStorage", "Architectures", "RevisionId", "Publish", "CodeSigningConfigArn"}
    honoured |= {"Layers"} | _MERGES.keys()
    assert members == honoured | set(_STANDING)


def test_every_member_of_every_operation_is_known_here(endpoint: Endpoint) -> None:
    """By its name or its header's; what the code does not even know it cannot but ignore."""
    model = ServiceModel.load(endpoint.api.offered)
    source = "".join(path.read_text() for path in (Path(sandboxd.__file__).parent / "api").glob("*.py"))
    unknown = {
        member.name
        for operation in model.operations.values()
        for member in (operation.input.members.values() if operation.input else ())
        if f'"{member.name}"' not in source and f'"{member.wire_name.lower()}"' not in source
    }
    assert unknown == {"Payload"}


def test_packages_that_are_refused(client: Any) -> None:
    not_a_zip = "Could not unzip uploaded file. Please check your file, then try to upload again."
    escaping = io.BytesIO()
    with zipfile.ZipFile(escaping, "w") as archive:
        archive.writestr("../evil.py", "")
    crowded = io.BytesIO()
    with zipfile.ZipFile(crowded, "w") as archive:
        for number in range(65_536):
            archive.writestr(f"f{number}", "")
    for data, reason in (
        (b"no zip", ""),
        (escaping.getvalue(), " Reason: an entry has .. in its name."),
        (crowded.getvalue(), " Reason: it has more than 65535 entries."),
    ):
        error = error_of(client.create_function, **creation(Code={"ZipFile": data}))
        assert error == ("InvalidParameterValueException", 400, not_a_zip + reason)


def test_a_full_disk(endpoint: Endpoint, client: Any) -> None:
    """A limit on the size of files is what a test can give this process in place of a full disk."""
    import errno
    import resource
    import signal

    from sandboxd.api.packages import package_error

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    try:
        large = creation("large", Code={"ZipFile": bytes(2_000_000)})
        code, status, _ = error_of(client.create_function, **large)
        assert (code, status) == ("ServiceException", 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list((endpoint.config.service_dir / "zips").iterdir())
    assert package_error(OSError(errno.ENOSPC, ""), endpoint.config.limits).code == "CodeStorageExceededException"


def test_the_name_is_taken(endpoint: Endpoint, client: Any) -> None:
    endpoint.create("taken")
    expected = ("ResourceConflictException", 409, "Function already exist: taken")
    assert error_of(client.create_function, **creation("taken")) == expected


def test_limits_are_the_configured_ones(make_endpoint: Callable[..., Endpoint]) -> None:
    from sandboxd.model.limits import PROFILES

    endpoint = make_endpoint(limits=PROFILES["current"])
    made = endpoint.create("large", MemorySize=10_239)
    assert made["MemorySize"] == 10_239


def test_operations_that_are_not_offered(client: Any) -> None:
    for call, members in (
        (client.list_capacity_providers, {}),
        (client.invoke_async, {"FunctionName": "f", "InvokeArgs": b"{}"}),
    ):
        code, status, message = error_of(call, **members)
        assert (code, status) == ("NotImplementedException", 501)
        assert message.startswith("sandboxd does not offer the operation ")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/2015-03-31/nothing"),
        ("PATCH", f"{FUNCTIONS}/x"),
        ("POST", f"{FUNCTIONS}/x/invocations/more"),
        ("GET", "/../../etc/passwd"),
        ("GET", "/sandboxd/code/nothing"),
    ],
)
def test_paths_that_are_none(endpoint: Endpoint, method: str, path: str) -> None:
    status, headers, _ = endpoint.unix(method, path)
    assert (status, headers["x-amzn-errortype"]) == (403, "AccessDeniedException")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"text"', b"\xff", b"NaN", b"[" * 100_000, b'{"Timeout": ' + b"9" * 5000 + b"}"]
)
def test_bodies_that_are_no_request(endpoint: Endpoint, body: bytes) -> None:
    status, headers, _ = endpoint.unix("POST", FUNCTIONS, body)
    assert (status, headers["x-amzn-errortype"]) == (400, "SerializationException")


def test_request_ids_are_on_every_answer(endpoint: Endpoint) -> None:
    for path in (FUNCTIONS, "/nothing", "/sandboxd/v1/status", "/sandboxd/v1/nothing", f"{FUNCTIONS}/nope"):
        assert len(endpoint.unix("GET", path)[1]["x-amzn-requestid"]) == 36


# anything at all

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
MEMBERS = (
    "FunctionName Runtime Role Handler Code Description Timeout MemorySize Publish VpcConfig PackageType Environment "
    "TracingConfig Tags Layers FileSystemConfigs ImageConfig Architectures EphemeralStorage SnapStart LoggingConfig "
    "KMSKeyArn DeadLetterConfig ZipFile RevisionId DryRun S3Bucket"
)
member_values = documents | st.sampled_from(
    [
        {"ZipFile": base64.b64encode(package()).decode()},
        {"Variables": {"AA": "\0"}},
        {"Variables": None},
        {"Size": 512},
        [{"Arn": None}],
        [None],
        ROLE,
        "hello",
        "python3.12",
        128,
    ]
)
requests = st.dictionaries(st.sampled_from(MEMBERS.split()), member_values, max_size=8)
TARGETS = [
    ("POST", FUNCTIONS),
    ("PUT", f"{FUNCTIONS}/hello/code"),
    ("PUT", f"{FUNCTIONS}/hello/configuration"),
    ("POST", f"{FUNCTIONS}/hello/invocations"),
    ("PUT", "/sandboxd/v1/functions/hello/policy"),
    ("POST", "/sandboxd/v1/keys"),
    ("POST", "/sandboxd/v1/users"),
    ("PUT", "/sandboxd/v1/users/admin/policies"),
    ("POST", f"{FUNCTIONS}/hello/policy"),
]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(TARGETS), requests | documents | st.binary(max_size=40))
def test_no_body_breaks_the_api(endpoint: Endpoint, target: tuple[str, str], request: Any) -> None:
    status, headers, answer = endpoint.unix(*target, request)
    assert status < 500, (request, answer)
    assert status < 400 or json.loads(answer).get("message", json.loads(answer).get("Message")), answer
    assert status < 400 or headers["x-amzn-errortype"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.sampled_from(["", "/x/invocations", "/x/configuration", "/x", "/x/code"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=30),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=30),
)
def test_no_path_breaks_the_api(endpoint: Endpoint, method: str, form: str, name: str, query: str) -> None:
    target = FUNCTIONS + form.replace("x", name) + (f"?{query}" if query else "")
    status, _, answer = endpoint.unix(method, target)
    assert status < 500 or status == 501, (target, answer)
