"""Asynchronous invocations of real functions: nothing accepted is lost, whatever is killed, and failures are told."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import packages
from tests.support.daemon import Answer, Daemon, free_port
from tests.support.places import TIME_FACTOR

QUEUE = "arn:aws:sqs:us-east-1:000000000000:failed"
TOPIC = "arn:aws:sns:us-east-1:000000000000:done"
CONFIG = "/2019-09-25/functions/{}/event-invoke-config"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted; the first post is refused."""

    records: list[tuple[str, Any]]
    refused: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.refused:
            self.refused.append(self.path)
            self.send_response(503)
        else:
            self.records.append((self.path, json.loads(body)))
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[int, type[Receiver]]]:
    handler = type("Handler", (Receiver,), {"records": [], "refused": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def eventful(machine: None, receiver: tuple[int, type[Receiver]]) -> Iterator[Daemon]:
    settings = {
        "events.retry_waits": [0.1, 0.1],
        "events.backoff": [0.1, 0.5],
        "events.concurrency": 4,
        f'destinations."{QUEUE}"': "file:failed",
        f'destinations."{TOPIC}"': f"http://127.0.0.1:{receiver[0]}/done",
    }
    with Daemon(**settings) as running:
        yield running


def send(daemon: Daemon, name: str, payload: Any) -> str:
    """Invoke as an event; its request id."""
    answer = daemon.invoke(name, payload, X_Amz_Invocation_Type="Event")
    assert (answer.status, answer.body) == (202, b""), answer
    return answer.headers["x-amzn-requestid"]


def configure(daemon: Daemon, name: str, **members: Any) -> Answer:
    answer = daemon.request("PUT", CONFIG.format(name), members)
    assert answer.status == 200, answer
    return answer


def spooled(daemon: Daemon, spool: str = "failed") -> list[dict[str, Any]]:
    files = (daemon.data_dir / "service" / "spool" / spool).glob("*.json")
    return [json.loads(file.read_text()) for file in files]


def until(happened: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60 * TIME_FACTOR
    while not (found := happened()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def ran(daemon: Daemon, name: str) -> list[str]:
    """The request ids of the invocations that a function's log has the end of."""
    text = daemon.admin("GET", f"/functions/{name}/logs?offset=0").json["Data"]
    return [line.split()[2] for line in text.splitlines() if line.startswith("END RequestId:")]


def test_success_is_posted_and_passed_on(eventful: Daemon, receiver: tuple[int, type[Receiver]]) -> None:
    name = eventful.deploy(packages.load("echo"), "succeeds")
    following = eventful.deploy(packages.load("echo"), "following")
    configure(eventful, name, DestinationConfig={"OnSuccess": {"Destination": TOPIC}})
    sent = send(eventful, name, {"n": 1})
    ((path, record),) = until(lambda: receiver[1].records)
    assert path == "/done" and receiver[1].refused == ["/done"]
    assert record["requestContext"]["requestId"] == sent
    assert (record["requestContext"]["condition"], record["requestPayload"]) == ("Success", {"n": 1})
    function = f"arn:aws:lambda:us-east-1:000000000000:function:{following}"
    configure(eventful, name, DestinationConfig={"OnSuccess": {"Destination": function}})
    send(eventful, name, {"n": 2})
    until(lambda: ran(eventful, following))


def test_failure_is_tried_three_times_and_kept(eventful: Daemon) -> None:
    name = eventful.deploy(packages.load("raises"), "fails", DeadLetterConfig={"TargetArn": QUEUE})
    configure(eventful, name, DestinationConfig={"OnFailure": {"Destination": QUEUE}})
    sent = send(eventful, name, {"n": 1})
    until(lambda: len(spooled(eventful)) == 2)
    (record,) = (letter for letter in spooled(eventful) if "version" in letter)
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"]["errorType"]
    assert ran(eventful, name) == [sent] * 3
    assert f"AsyncEventsDropped: request {sent}" in eventful.log()


def told(daemon: Daemon) -> list[str]:
    """The request ids of the events whose success was told. A log's end can be lost by kill -9, a record cannot."""
    contexts = [letter["requestContext"] for letter in spooled(daemon) if "version" in letter]
    return [context["requestId"] for context in contexts if context["condition"] == "Success"]


@pytest.mark.parametrize("room", ["service", "builder", "keeper"])
def test_nothing_accepted_is_lost(eventful: Daemon, room: str) -> None:
    name = eventful.deploy(packages.load("sleeps"), f"killed-{room}", Timeout=30)
    configure(eventful, name, DestinationConfig={"OnSuccess": {"Destination": QUEUE}})
    sent = {send(eventful, name, {"seconds": 0.2}) for _ in range(20)}
    until(lambda: sent & set(told(eventful)))
    eventful.kill(room)
    assert not sent <= set(told(eventful))
    if room == "keeper":
        eventful.start()
    else:
        eventful.wait_ready()
    until(lambda: sent <= set(told(eventful)))


def test_a_stop_lets_what_runs_end_and_keeps_the_rest(eventful: Daemon) -> None:
    name = eventful.deploy(packages.load("sleeps"), "stopped", Timeout=30)
    configure(eventful, name, DestinationConfig={"OnSuccess": {"Destination": QUEUE}})
    sent = {send(eventful, name, {"seconds": 0.3}) for _ in range(20)}
    until(lambda: eventful.environments(name))
    eventful.stop()
    assert not sent <= set(told(eventful))
    eventful.start()
    until(lambda: sent <= set(told(eventful)))
    assert sorted(ran(eventful, name)) == sorted(sent)
