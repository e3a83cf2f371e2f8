"""Queues of a moto server as event sources of real functions: in batches, in order, and again after a kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.test_events import until
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.moto import ACCOUNT, Moto

PARTIAL = ["ReportBatchItemFailures"]


@pytest.fixture(scope="module")
def polling(machine: None, moto: Moto) -> Iterator[Daemon]:
    settings = {"account_id": ACCOUNT, "services.endpoint_url": moto.url, "events.backoff": [0.1, 0.5]}
    with Daemon(**settings) as running:
        yield running
        assert "Traceback" not in running.log()


def feed(moto: Moto, arn: str, *messages: dict[str, Any]) -> None:
    """Put messages into a queue; `group` is a FIFO queue's."""
    client = moto.client("sqs")
    url = client.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    for message in messages:
        body = json.dumps({name: value for name, value in message.items() if name != "group"})
        fifo = {"MessageGroupId": message["group"], "MessageDeduplicationId": body} if "group" in message else {}
        client.send_message(QueueUrl=url, MessageBody=body, **fifo)
    client.close()


def left(moto: Moto, arn: str) -> int:
    """How many messages a queue has, whether anybody has taken them or not."""
    client = moto.client("sqs")
    url = client.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    counts = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    client.close()
    return sum(int(counts[name]) for name in counts if name.startswith("ApproximateNumberOfMessages"))


def seen(daemon: Daemon, name: str) -> list[tuple[int, str, int, int]]:
    """Number, group, count of receipts and size of the batch of each message that the function printed."""
    text = daemon.admin("GET", f"/functions/{name}/logs?offset=0").json["Data"]
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith("MESSAGE ")]
    return [(int(n), group, int(received), int(size)) for n, group, received, size in rows]


def test_batches_run_and_what_failed_comes_again(polling: Daemon, moto: Moto) -> None:
    name = polling.deploy(packages.load("worker"), "takes-batches")
    arn = moto.queue("e2e-batches", VisibilityTimeout="5")
    feed(moto, arn, *({"n": n, "fails": int(n == 7)} for n in range(12)))
    done = polling.cli("event-source", "create", name, arn, "--batch", "5", "--partial", "-o", "json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    listed = json.loads(polling.aws("list-event-source-mappings", "--function-name", name).stdout)
    assert listed["EventSourceMappings"][0]["UUID"] == made["UUID"]
    until(lambda: not left(moto, arn))
    until(lambda: len(seen(polling, name)) >= 13)
    rows = seen(polling, name)
    assert {n for n, *_ in rows} == set(range(12))
    assert max(size for *_, size in rows) <= 5
    assert max(received for n, _, received, _ in rows if n == 7) >= 2
    assert polling.cli("event-source", "delete", made["UUID"]).returncode == 0
    until(lambda: not polling.lambda_client.list_event_source_mappings()["EventSourceMappings"])


def test_groups_of_a_fifo_queue_stay_in_order(polling: Daemon, moto: Moto) -> None:
    name = polling.deploy(packages.load("worker"), "in-order")
    arn = moto.queue("e2e-order.fifo", FifoQueue="true", VisibilityTimeout="3")
    feed(moto, arn, *({"n": n, "group": "ab"[n % 2], "fails": int(n == 2)} for n in range(6)))
    polling.lambda_client.create_event_source_mapping(
        FunctionName=name, EventSourceArn=arn, BatchSize=3, FunctionResponseTypes=PARTIAL
    )
    until(lambda: not left(moto, arn))
    until(lambda: {n for n, *_ in seen(polling, name)} == set(range(6)))
    rows = seen(polling, name)
    for group in "ab":
        last = {n: index for index, (n, of, *_) in enumerate(rows) if of == group}
        assert list(last) == sorted(last), rows
        assert sorted(last, key=last.__getitem__) == sorted(last), rows


@pytest.mark.parametrize("room", ["service", "builder"])
def test_a_message_that_ran_when_all_was_killed_runs_again(polling: Daemon, moto: Moto, room: str) -> None:
    name = polling.deploy(packages.load("worker"), f"killed-{room}")
    arn = moto.queue(f"e2e-killed-{room}", VisibilityTimeout="5")
    polling.lambda_client.create_event_source_mapping(FunctionName=name, EventSourceArn=arn)
    feed(moto, arn, {"n": 1, "seconds": 2})
    until(lambda: polling.environments(name) and seen(polling, name))
    polling.kill(room)
    polling.wait_ready()
    assert left(moto, arn) == 1
    until(lambda: not left(moto, arn))
    assert until(lambda: [row for row in seen(polling, name) if row[2] >= 2])
