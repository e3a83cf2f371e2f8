"""Neighbouring services: code out of a bucket, records into queues and topics, and an endpoint behind TLS, all by the
unprivileged service; and where functions find them."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_events import Receiver, configure, send, until
from tests.support import packages
from tests.support.certificates import self_signed
from tests.support.daemon import FUNCTIONS, Daemon, free_port
from tests.support.moto import ACCOUNT, Moto

ROLE = f"arn:aws:iam::{ACCOUNT}:role/lambda"
TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:by-tls"
ELSEWHERE = "http://10.0.0.1:4566"


class Willing(Receiver):
    """A receiver that refuses nothing."""

    records: list[tuple[str, Any]] = []  # noqa: RUF012
    refused = ["nothing"]  # noqa: RUF012


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """An endpoint that speaks TLS: its port, and the certificates that it is checked by, in a directory of root's."""
    directory = tmp_path_factory.mktemp("certificates")
    certificate, key = self_signed(directory)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Willing)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    directory.chmod(0o700)
    yield server.server_address[1], certificate
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def neighbourly(machine: None, moto: Moto, secured: tuple[int, Path]) -> Iterator[Daemon]:
    settings = {
        "account_id": ACCOUNT,
        "services.endpoint_url": f"http://localhost:{moto.port}",
        "services.function_endpoint_url": ELSEWHERE,
        "ca_file": str(secured[1]),
        "events.retry_waits": [0.1, 0.1],
        "events.backoff": [0.1, 0.5],
        f'destinations."{TOPIC}"': f"https://localhost:{secured[0]}/in",
    }
    with Daemon(**settings) as running:
        yield running
        assert "Traceback" not in running.log()


def create(daemon: Daemon, name: str, code: dict[str, str], **members: Any) -> None:
    request = {"FunctionName": name, "Runtime": "python3.13", "Handler": "handler.handler", "Role": ROLE, "Code": code}
    answer = daemon.request("POST", FUNCTIONS, request | members)
    assert answer.status == 201, answer
    until(lambda: daemon.request("GET", f"{FUNCTIONS}/{name}/configuration").json["State"] == "Active")


def test_code_out_of_a_bucket_runs(neighbourly: Daemon, moto: Moto) -> None:
    source = "import os\ndef handler(event, context):\n    return os.environ['AWS_ENDPOINT_URL']\n"
    s3 = moto.client("s3")
    s3.create_bucket(Bucket="end-to-end")
    s3.put_object(Bucket="end-to-end", Key="code.zip", Body=packages.zip_of({"handler.py": source.encode()}))
    s3.close()
    create(neighbourly, "of-a-bucket", {"S3Bucket": "end-to-end", "S3Key": "code.zip"})
    answer = neighbourly.invoke("of-a-bucket", {})
    assert (answer.status, answer.json) == (200, ELSEWHERE), answer
    missing = neighbourly.request(
        "PUT", f"{FUNCTIONS}/of-a-bucket/code", {"S3Bucket": "end-to-end", "S3Key": "none.zip"}
    )
    assert (missing.code, "NoSuchKey" in missing.message) == ("InvalidParameterValueException", True)


def test_queues_are_told(neighbourly: Daemon, moto: Moto) -> None:
    failed, dead = moto.queue("e2e-failed"), moto.queue("e2e-dead")
    name = neighbourly.deploy(packages.load("raises"), "fails", DeadLetterConfig={"TargetArn": dead})
    configure(neighbourly, name, DestinationConfig={"OnFailure": {"Destination": failed}})
    sent = send(neighbourly, name, {"n": 1})
    (record,) = until(lambda: moto.messages(failed))
    context = json.loads(record["Body"])["requestContext"]
    assert (context["requestId"], context["condition"]) == (sent, "RetriesExhausted")
    (letter,) = until(lambda: moto.messages(dead))
    attributes = {key: value["StringValue"] for key, value in letter["MessageAttributes"].items()}
    assert json.loads(letter["Body"]) == {"n": 1}
    assert (attributes["RequestID"], attributes["ErrorCode"]) == (sent, "200") and attributes["ErrorMessage"]


def test_a_record_by_tls_to_a_host_name(neighbourly: Daemon) -> None:
    name = neighbourly.deploy(packages.load("echo"), "succeeds")
    configure(neighbourly, name, DestinationConfig={"OnSuccess": {"Destination": TOPIC}})
    sent = send(neighbourly, name, {"n": 2})
    ((path, record),) = until(lambda: Willing.records)
    assert (path, record["requestContext"]["requestId"]) == ("/in", sent)
