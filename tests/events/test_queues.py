"""Records in queues and topics of a real server: in AWS's forms, and tried again while a queue is not there."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sandboxd.model.endpoint import parse
from sandboxd.model.invocation import Invocation, InvocationResult
from tests.events.world import BASE, FAILED, World, version
from tests.support.moto import ACCOUNT, Moto


def play(moto: Moto, directory: Path, scene: Callable[[World], Coroutine[Any, Any, Any]], dead: str = "") -> Any:
    """A scene with a function `f` that fails, whose dead-letter target is `dead`."""

    async def fail(invocation: Invocation) -> InvocationResult:
        return FAILED

    async def main() -> Any:
        world = World(directory, services_endpoint=parse(moto.url))
        world.answer = fail
        async with asyncio.timeout(120), world.open("f"):
            if dead:
                latest = world.store.functions.resolve("f")
                assert latest is not None
                settings = (("DeadLetterConfig", json.dumps({"TargetArn": dead})),)
                await world.store.functions.serve(dataclasses.replace(latest, settings=settings))
            return await scene(world)

    return asyncio.run(main())


async def send(world: World, payload: Any, request_id: str = "r") -> None:
    await world.mode.accept(Invocation(request_id, version("f"), BASE + "f", json.dumps(payload).encode()))


async def taken(moto: Moto, arn: str, count: int = 1) -> list[dict[str, Any]]:
    """The messages of a queue, once there are some."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += await asyncio.to_thread(moto.messages, arn)
        await asyncio.sleep(0.05)
    return found


def test_a_record_and_a_dead_letter(moto: Moto, tmp_path: Path) -> None:
    failed, dead = moto.queue("events-failed"), moto.queue("events-dead")

    async def scene(world: World) -> tuple[Any, ...]:
        await world.set("f", DestinationConfig={"OnFailure": {"Destination": failed}}, MaximumRetryAttempts=0)
        await send(world, {"n": 12345678901234567890})
        found = await taken(moto, failed), await taken(moto, dead)
        await world.drained()
        return found

    (record,), (letter,) = play(moto, tmp_path, scene, dead)
    assert json.loads(record["Body"])["requestContext"] == {
        "requestId": "r",
        "functionArn": f"{BASE}f:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 1,
    }
    assert "MessageAttributes" not in record
    assert letter["Body"] == '{"n": 12345678901234567890}'
    assert letter["MessageAttributes"] == {
        "RequestID": {"DataType": "String", "StringValue": "r"},
        "ErrorCode": {"DataType": "Number", "StringValue": "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": "no"},
    }


def test_a_topic(moto: Moto, tmp_path: Path) -> None:
    queue, sns = moto.queue("events-subscribed"), moto.client("sns")
    topic = sns.create_topic(Name="events-topic")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    sns.close()

    async def scene(world: World) -> Any:
        await world.set("f", MaximumRetryAttempts=0)
        await send(world, 1)
        return await taken(moto, queue)

    (message,) = play(moto, tmp_path, scene, topic)
    told = json.loads(message["Body"])
    assert (told["Message"], told["MessageAttributes"]["ErrorMessage"]["Value"]) == ("1", "no")


def test_a_queue_that_comes_later(moto: Moto, tmp_path: Path) -> None:
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:events-later"

    async def scene(world: World) -> Any:
        await world.set("f", DestinationConfig={"OnFailure": {"Destination": arn}}, MaximumRetryAttempts=0)
        await send(world, 1)
        await world.until(lambda: world.mode.counts["DestinationDeliveryFailures"])
        assert moto.queue("events-later") == arn
        found = await taken(moto, arn)
        await world.drained()
        return found

    assert len(play(moto, tmp_path, scene)) == 1


def test_what_no_queue_takes_is_dropped_and_the_next_comes(moto: Moto, tmp_path: Path) -> None:
    dead = moto.queue("events-narrow", MaximumMessageSize="1024")

    async def scene(world: World) -> Any:
        await world.set("f", MaximumRetryAttempts=0)
        await send(world, "x" * 2000)  # of which the queue says so
        await send(world, "y" * 1_048_570)  # of which that is known
        await send(world, 3)
        found = await taken(moto, dead)
        await world.drained()
        return found, world.mode.counts["AsyncEventsDropped:DestinationDeliveryFailures"]

    (letter,), dropped = play(moto, tmp_path, scene, dead)
    assert (letter["Body"], dropped) == ("3", 2)


def test_a_record_that_is_too_large_goes_without_the_payloads(moto: Moto, tmp_path: Path) -> None:
    arn = moto.queue("events-large")

    async def scene(world: World) -> Any:
        await world.set("f", DestinationConfig={"OnFailure": {"Destination": arn}}, MaximumRetryAttempts=0)
        await send(world, "x" * 1_048_570)
        return await taken(moto, arn)

    (message,) = play(moto, tmp_path, scene)
    record = json.loads(message["Body"])
    assert "requestPayload" not in record and record["responseContext"]["functionError"] == "Unhandled"
