"""Code and layers out of buckets, and queues as destinations: AWS's words, S3's words within them, and bounds."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sandboxd.api import packages as module
from sandboxd.model.endpoint import parse
from sandboxd.model.limits import Limits
from tests.api.conftest import Endpoint, package
from tests.api.test_authorization import Users, allow
from tests.api.test_event_invoke import until
from tests.api.test_lifecycle import error_of
from tests.api.test_requests import creation
from tests.support.moto import ACCOUNT, Moto

BUCKET = "packages"
LIMITS = Limits(zip_bytes=20_000, unzipped_bytes=3_000_000)
INVALID, NOT_A_ZIP = "InvalidParameterValueException", "Could not unzip uploaded file."


@pytest.fixture(scope="module")
def s3(moto: Moto) -> Iterator[Any]:
    client = moto.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    client.close()


def started(directory: Path, url: str, **settings: Any) -> Endpoint:
    endpoint = Endpoint(directory, services_endpoint=parse(url), account_id=ACCOUNT, **settings)
    endpoint.start()
    return endpoint


@pytest.fixture(scope="module")
def shared(moto: Moto, s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    endpoint = started(tmp_path_factory.mktemp("services"), moto.url, limits=LIMITS, event_retry_waits=(0.01, 0.01))
    yield endpoint
    endpoint.stop()


@pytest.fixture
def endpoint(shared: Endpoint) -> Iterator[Endpoint]:
    """The module's endpoint, without functions and half-written packages."""
    yield shared
    client = shared.boto3()
    for function in client.list_functions()["Functions"]:
        shared.settled(function["FunctionName"])
        client.delete_function(FunctionName=function["FunctionName"])
    client.close()
    until(lambda: not [name for name in zips(shared) if not name.endswith(".zip")])


def zips(endpoint: Endpoint) -> set[str]:
    return {path.name for path in (endpoint.config.service_dir / "zips").iterdir()}


def put(s3: Any, key: str, body: bytes) -> dict[str, str]:
    """A new version of an object, as the source of code."""
    version = s3.put_object(Bucket=BUCKET, Key=key, Body=body)["VersionId"]
    return {"S3Bucket": BUCKET, "S3Key": key, "S3ObjectVersion": version}


def sha(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def noise(size: int) -> bytes:
    """A zip with so much that does not shrink."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("noise", hashlib.shake_128(b"noise").digest(size))
    return target.getvalue()


def test_a_function_from_versions_of_an_object(endpoint: Endpoint, client: Any, s3: Any) -> None:
    one, two = package("a = 1\n"), package("a = 2\n")
    first, second = put(s3, "a/versions.zip", one), put(s3, "a/versions.zip", two)
    made = client.create_function(**creation("f", Code=first))
    assert (made["CodeSha256"], made["CodeSize"], made["State"]) == (sha(one), len(one), "Pending")
    endpoint.settled("f")
    newest = {name: second[name] for name in ("S3Bucket", "S3Key")}
    changed = client.update_function_code(FunctionName="f", Publish=True, **newest)
    assert (changed["CodeSha256"], changed["CodeSize"], changed["Version"]) == (sha(two), len(two), "1")
    endpoint.settled("f")
    tried = client.update_function_code(FunctionName="f", DryRun=True, **first)
    assert tried["CodeSha256"] == sha(one)
    assert endpoint.settled("f")["CodeSha256"] == sha(two)
    client.update_function_code(FunctionName="f", ZipFile=two)  # the same package, of another source
    assert endpoint.settled("f")["CodeSha256"] == sha(two)


def test_a_layer(endpoint: Endpoint, client: Any, s3: Any) -> None:
    body = package("layer = 1\n")
    content = client.publish_layer_version(LayerName="l", Content=put(s3, "layer.zip", body))["Content"]
    assert (content["CodeSha256"], content["CodeSize"]) == (sha(body), len(body))


def test_the_limits(endpoint: Endpoint, client: Any, s3: Any) -> None:
    """What is too large for a request is not too large for a bucket; what is too large unpacked is, for both."""
    large = noise(2_500_000)
    assert error_of(client.create_function, **creation("f", Code={"ZipFile": large}))[:2] == (
        "RequestEntityTooLargeException",
        413,
    )
    client.create_function(**creation("f", Code=put(s3, "large.zip", large)))
    assert endpoint.settled("f")["CodeSize"] == len(large)
    too_large = f"Unzipped size must be smaller than {LIMITS.unzipped_bytes} bytes"
    for size in (3_500_000, 20_000_000):  # seen when it is unpacked; and by what the endpoint says of it
        code = put(s3, "too-large.zip", noise(size))
        assert error_of(client.create_function, **creation("g", Code=code)) == (INVALID, 400, too_large)


def test_a_large_package_goes_back_in_pieces(endpoint: Endpoint, client: Any, s3: Any) -> None:
    large = noise(2_900_000)
    client.create_function(**creation("f", Code=put(s3, "back.zip", large)))
    endpoint.settled("f")
    location = client.get_function(FunctionName="f")["Code"]["Location"]
    with urllib.request.urlopen(location) as answer:
        assert answer.read() == large
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):  # who leaves early leaves nothing open
        with urllib.request.urlopen(location) as answer:
            assert answer.read(10) == large[:10]
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_the_errors(endpoint: Endpoint, client: Any, s3: Any) -> None:
    endpoint.create("f")
    good = put(s3, "good.zip", package())
    got = "Error occurred while GetObject. S3 Error Code:"
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"S3Bucket": BUCKET, "S3Key": "none"},
            f"{got} NoSuchKey. S3 Error Message: The specified key does not exist.",
        ),
        ({"S3Bucket": "none-such", "S3Key": "k"}, f"{got} NoSuchBucket. S3 Error Message: The specified bucket does"),
        (good | {"S3ObjectVersion": "none"}, got),
        ({"S3Bucket": BUCKET}, "Please provide a source for function code."),
        (
            good | {"ZipFile": package()},
            "Please do not provide other FunctionCode parameters when providing a ZipFile.",
        ),
        ({"S3Bucket": BUCKET, "S3Key": "a/../../other/k"}, "sandboxd does not offer a name with a segment . or .."),
        ({"S3Bucket": BUCKET, "S3Key": "\ud800"}, ""),
        (put(s3, "no-zip", b"no zip"), NOT_A_ZIP),
        (put(s3, "empty", b""), NOT_A_ZIP),
    ]
    for code, words in cases:
        for found in (
            error_of(client.create_function, **creation("g", Code=code)),
            error_of(client.update_function_code, FunctionName="f", **code),
            error_of(client.publish_layer_version, LayerName="l", Content=code),
        ):
            assert found[1] == 400 and found[2].startswith(words), (code, found)
    assert endpoint.settled("f")["CodeSha256"] == sha(package())


def test_the_caller_needs_the_right_to_the_object(endpoint: Endpoint, s3: Any) -> None:
    code = put(s3, "team-a/code.zip", package("of_a = 1\n"))
    unversioned = {name: code[name] for name in ("S3Bucket", "S3Key")}
    users = Users(endpoint)
    passing = allow(["lambda:CreateFunction", "iam:PassRole", "lambda:PublishLayerVersion"])
    mine = f"arn:aws:s3:::{BUCKET}/team-a/*"
    alice = users.add("alice", passing, allow("s3:GetObject", mine))
    bob = users.add("bob", passing, allow("s3:*", f"arn:aws:s3:::{BUCKET}/team-b/*"))
    denied = (
        f"Your access has been denied by S3, please make sure your request credentials have permission to GetObject "
        f"for {BUCKET}/team-a/code.zip. S3 Error Code: AccessDenied. S3 Error Message: Access Denied"
    )
    try:
        assert error_of(bob.create_function, **creation("f", Code=unversioned)) == (
            "AccessDeniedException",
            403,
            denied,
        )
        assert error_of(bob.publish_layer_version, LayerName="l", Content=unversioned)[2] == denied
        assert error_of(alice.create_function, **creation("f", Code=code))[0] == "AccessDeniedException"
        alice.create_function(**creation("f", Code=unversioned))
        assert endpoint.settled("f")["State"] == "Active"
    finally:
        users.close()


class Hostile(http.server.BaseHTTPRequestHandler):
    """An S3 that answers as it is told."""

    def do_GET(self) -> None:
        head, piece, pause = self.server.answer  # type: ignore[attr-defined]
        try:
            self.wfile.write(head)
            while piece:
                self.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoint, Any]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    endpoint = started(tmp_path_factory.mktemp("hostile"), url, limits=LIMITS)
    yield endpoint, server
    endpoint.stop()
    server.shutdown()
    thread.join()
    server.server_close()


NO_ANSWER = "Error occurred while GetObject: the endpoint of S3 gave no answer, or not all of it."


@pytest.mark.parametrize(
    ("head", "piece", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536, (INVALID, 400, "Unzipped size must be smaller than 3000000 bytes")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900000000000\r\n\r\nx", b"", (INVALID, 400, "Unzipped size")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nx", b"", ("ServiceException", 500, NO_ANSWER)),
        (b"no HTTP\r\n\r\n", b"", ("ServiceException", 500, NO_ANSWER)),
        (b"HTTP/1.1 503 No\r\n\r\n<Code>SlowDown</Code><Message>Reduce it.</Message>", b"",
         ("ServiceException", 500, "Error occurred while GetObject. S3 Error Code: SlowDown. S3 Error Message: ")),
        (b"HTTP/1.1 403 No\r\n\r\n<Code>AccessDenied</Code><Message>Access Denied</Message>", b"",
         ("AccessDeniedException", 403, "Your access has been denied by S3, please make sure your request credentials "
          "have permission to GetObject for bucket/key. S3 Error Code: AccessDenied. S3 Error Message: Access Denied")),
        (b"HTTP/1.1 301 No\r\nLocation: http://127.0.0.1:1/\r\n\r\n<Code>PermanentRedirect</Code><Message>m</Message>",
         b"", (INVALID, 400, "Error occurred while GetObject. S3 Error Code: PermanentRedirect. S3 Error Message: m")),
    ],
)  # fmt: skip
def test_a_hostile_endpoint(hostile: tuple[Endpoint, Any], head: bytes, piece: bytes, expected: Any) -> None:
    endpoint, server = hostile
    server.answer = head, piece, 0
    client = endpoint.boto3()
    found = error_of(client.create_function, **creation("f", Code={"S3Bucket": "bucket", "S3Key": "key"}))
    client.close()
    assert found[:2] == expected[:2] and found[2].startswith(expected[2]), found
    assert zips(endpoint) == set()


def test_an_object_that_drips_is_not_waited_for(hostile: tuple[Endpoint, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FETCH_SECONDS", 0.5)
    endpoint, server = hostile
    server.answer = b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05
    client = endpoint.boto3()
    found = error_of(client.create_function, **creation("f", Code={"S3Bucket": "bucket", "S3Key": "key"}))
    client.close()
    assert found == ("ServiceException", 500, NO_ANSWER)
    assert zips(endpoint) == set()


def test_without_an_endpoint_all_of_it_is_refused_by_name(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint()
    endpoint.create("f")
    client, queue = endpoint.boto3(), "arn:aws:sqs:us-east-1:111111111111:q"
    code = error_of(client.create_function, **creation("g", Code={"S3Bucket": "bucket", "S3Key": "k"}))
    letters = error_of(client.create_function, **creation("g", DeadLetterConfig={"TargetArn": queue}))
    config = {"OnFailure": {"Destination": queue}}
    told = error_of(client.put_function_event_invoke_config, FunctionName="f", DestinationConfig=config)
    client.close()
    for found in (code, letters, told):
        assert found[:2] == (INVALID, 400) and "endpoint_url" in found[2], found


def test_queues_and_topics_of_the_function_s_account(endpoint: Endpoint, client: Any, moto: Moto) -> None:
    endpoint.create("f")
    good = f"arn:aws:sqs:us-east-1:{ACCOUNT}:there"
    for arn in (
        good + ".fifo",
        good.replace(ACCOUNT, "210987654321"),
        good.replace("us-east-1", "eu-west-1"),
        f"arn:aws:s3:::{BUCKET}",
    ):
        config = {"OnFailure": {"Destination": arn}}
        found = error_of(client.put_function_event_invoke_config, FunctionName="f", DestinationConfig=config)
        assert found[:2] == (INVALID, 400) and "only standard queues and topics" in found[2], found
    for arn in (good, good.replace("sqs", "sns")):
        config = {"OnFailure": {"Destination": arn}}
        client.put_function_event_invoke_config(FunctionName="f", DestinationConfig=config)
        client.update_function_configuration(FunctionName="f", DeadLetterConfig={"TargetArn": arn})
        assert endpoint.settled("f")["DeadLetterConfig"] == {"TargetArn": arn}


def test_an_event_s_record_comes_to_its_queue(endpoint: Endpoint, client: Any, moto: Moto) -> None:
    arn = moto.queue("api-records")
    endpoint.create("f")
    client.put_function_event_invoke_config(FunctionName="f", DestinationConfig={"OnSuccess": {"Destination": arn}})
    client.invoke(FunctionName="f", InvocationType="Event", Payload=b'{"n": 1}')
    (message,) = until(lambda: moto.messages(arn))
    record = json.loads(message["Body"])
    assert record["requestContext"]["condition"] == "Success"
    assert (record["requestPayload"], record["responsePayload"]) == ({"n": 1}, {"n": 1})
