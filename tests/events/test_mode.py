"""What becomes of an accepted event: attempts, waits, ends; and that no function is held up by another."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from sandboxd.errors import ApiError
from sandboxd.model.event import Event
from sandboxd.model.function import Alias
from sandboxd.model.invocation import Invocation, InvocationResult
from tests.events.world import BASE, FAILED, OK, QUEUE, World, version

THROTTLED = ApiError("TooManyRequestsException", "Rate Exceeded.", 429)
BROKEN = ApiError("ServiceException", "No execution environment", 500, fault="Service")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def failing(times: int, error: Exception | None = None) -> Any:
    """Answers with an error of the function, or raises, so many times; then succeeds."""
    left = times

    async def answer(invocation: Invocation) -> InvocationResult:
        nonlocal left
        left -= 1
        if left < 0:
            return OK
        if error is not None:
            raise error
        return FAILED

    return answer


def test_an_error_of_the_function_is_retried_twice_after_the_waits(world: World) -> None:
    async def main() -> None:
        async with world.open("f"):
            fail, times = failing(9), []

            async def timed(invocation: Invocation) -> InvocationResult:
                times.append(asyncio.get_running_loop().time())
                return await fail(invocation)

            world.answer = timed
            sent = await world.send("f", 1)
            await world.drained()
            assert [i.request_id for i in world.runs] == [sent] * 3
            assert [i.payload for i in world.runs] == [b"1"] * 3
            assert times[1] - times[0] >= 0.02 and times[2] - times[1] >= 0.04
            assert world.mode.counts["AsyncEventsDropped:RetriesExhausted"] == 1

    asyncio.run(main())


def test_what_fails_is_told_to_destination_and_dead_letter_queue(world: World) -> None:
    async def main() -> None:
        async with world.open():
            config = json.dumps({"TargetArn": QUEUE})
            await world.store.functions.create(version("f", settings=(("DeadLetterConfig", config),)))
            await world.set("f", MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": QUEUE}})
            world.answer = failing(2)
            sent = await world.send("f", {"n": 1})
            letters = await world.until(lambda: len(world.spooled()) == 2 and world.spooled())
            record = next(letter for letter in letters if "version" in letter)
            letter = next(letter for letter in letters if "version" not in letter)
            assert len(record.pop("timestamp")) == len("2026-01-01T00:00:00.000Z")
            assert record == {
                "version": "1.0",
                "requestContext": {
                    "requestId": sent,
                    "functionArn": BASE + "f:$LATEST",
                    "condition": "RetriesExhausted",
                    "approximateInvokeCount": 2,
                },
                "requestPayload": {"n": 1},
                "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
                "responsePayload": {"errorMessage": "no", "errorType": "E"},
            }
            assert letter["Body"] == '{"n": 1}'
            attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
            assert attributes == {"RequestID": sent, "ErrorCode": "200", "ErrorMessage": "no"}

    asyncio.run(main())


def test_success_is_told_to_another_function(world: World) -> None:
    async def main() -> None:
        async with world.open("f", "next"):
            await world.set("f", DestinationConfig={"OnSuccess": {"Destination": BASE + "next"}})
            sent = await world.send("f", 7)
            await world.drained()
            first, second = world.runs
            assert (first.function.name, second.function.name) == ("f", "next")
            assert second.request_id != sent and second.invoked_arn == BASE + "next"
            record = json.loads(second.payload)
            assert record["requestContext"]["requestId"] == sent
            assert record["requestContext"]["condition"] == "Success"
            assert (record["requestPayload"], record["responsePayload"]) == (7, {"done": True})
            assert world.mode.counts["AsyncEventsDropped"] == 0

    asyncio.run(main())


def test_nobody_is_told_whom_the_role_may_not_tell(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with world.open("f", "next"):
            world.forbidden.add(("f", BASE + "next"))
            await world.set("f", DestinationConfig={"OnSuccess": {"Destination": BASE + "next"}})
            await world.send("f", 7)
            await world.drained()
            assert [i.function.name for i in world.runs] == ["f"]
            assert world.mode.counts["DestinationDeliveryFailures"] == 1

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert f"request request-f-7: its function's role may not tell {BASE}next" in caplog.text


def test_throttled_events_stay_as_they_are_and_keep_their_order(world: World) -> None:
    async def main() -> None:
        async with world.open("f"):
            world.answer = failing(100, THROTTLED)
            for number in range(20):
                await world.send("f", number)
            await world.until(lambda: len(world.runs) > 20)
            assert world.store.events.held[BASE + "f"].events == 20
            world.answer = world.succeed
            before = len(world.runs)
            await world.drained()
            assert [int(i.payload) for i in world.runs[before:]] == list(range(20))
            assert world.mode.counts["AsyncEventsDropped"] == 0

    asyncio.run(main())


def test_what_gets_through_beside_throttles_is_not_paused(tmp_path: Path) -> None:
    world = World(tmp_path, event_backoff=(60, 60))

    async def main() -> None:
        async with world.open("f"):
            running = 0

            async def two_at_a_time(_: Invocation) -> InvocationResult:
                nonlocal running
                if running == 2:
                    raise THROTTLED
                running += 1
                await asyncio.sleep(0.01)
                running -= 1
                return OK

            world.answer = two_at_a_time
            for number in range(60):
                await world.send("f", number)
            await world.drained()
            assert len(world.runs) > 60

    asyncio.run(main())


def test_what_the_system_fails_at_lets_the_next_go_first(world: World) -> None:
    async def main() -> None:
        async with world.open("f"):

            async def answer(invocation: Invocation) -> InvocationResult:
                if invocation.payload == b"0" and len(world.runs) < 12:
                    raise BROKEN
                return OK

            world.answer = answer
            for number in range(10):
                await world.send("f", number)
            await world.drained()
            assert world.runs[-1].payload == b"0" and len(world.runs) >= 12

    asyncio.run(main())


def test_too_old(world: World) -> None:
    async def main() -> None:
        async with world.open("f"):
            await world.set("f", MaximumEventAgeInSeconds=0.1, DestinationConfig={"OnFailure": {"Destination": QUEUE}})
            world.answer = failing(10_000, THROTTLED)
            await world.send("f", 1)
            (record,) = await world.until(world.spooled)
            assert record["requestContext"]["condition"] == "EventAgeExceeded"
            assert record["requestContext"]["approximateInvokeCount"] == 0
            assert not {"responseContext", "responsePayload"} & record.keys()
            # A retry that would come too late is not waited for.
            await world.set("f", MaximumEventAgeInSeconds=0.01)
            world.answer = failing(1)
            before = len(world.runs)
            await world.send("f", 2)
            await world.drained()
            assert len(world.runs) <= before + 1
            assert world.mode.counts["AsyncEventsDropped:EventAgeExceeded"] == 2

    asyncio.run(main())


def test_reserved_concurrency_of_zero(world: World) -> None:
    async def main() -> None:
        async with world.open("f"):
            await world.set("f", DestinationConfig={"OnFailure": {"Destination": QUEUE}})
            await world.store.settings.put("Concurrency", "f", {"ReservedConcurrentExecutions": 0})
            await world.send("f", 1)
            (record,) = await world.until(world.spooled)
            assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
            assert world.runs == []

    asyncio.run(main())


def test_each_attempt_finds_its_version_anew(world: World) -> None:
    async def main() -> None:
        async with world.open("f"):
            for number in ("1", "2"):
                latest = world.store.functions.described("f")
                assert latest is not None
                await world.store.functions.publish(latest, version("f", number))
            await world.store.aliases.create(Alias("f", "live", "1", "", ""))

            async def answer(invocation: Invocation) -> InvocationResult:
                await world.store.aliases.update(Alias("f", "live", "2", "", ""))
                return FAILED if len(world.runs) == 1 else OK

            world.answer = answer
            sent = await world.send("f", 1, "live")
            await world.drained()
            assert [(i.function.version, i.request_id) for i in world.runs] == [("1", sent), ("2", sent)]
            assert world.runs[0].invoked_arn == BASE + "f:live"

    asyncio.run(main())


def test_nobody_waits_for_another(world: World) -> None:
    async def main() -> None:
        async with world.open("stuck", "throttled", "quick"):
            never = asyncio.Event()

            async def answer(invocation: Invocation) -> InvocationResult:
                if invocation.function.name == "stuck":
                    await never.wait()
                if invocation.function.name == "throttled":
                    raise THROTTLED
                return OK

            world.answer = answer
            for number in range(100):
                await world.send("stuck", number)
                await world.send("throttled", number)
            await world.send("quick", 1)
            await world.until(lambda: BASE + "quick" not in world.store.events.held)
            assert sum(i.function.name == "stuck" for i in world.runs) == world.config.event_concurrency
            never.set()

    asyncio.run(main())


def test_all_together_hold_a_bounded_number_and_each_at_least_one(world: World) -> None:
    async def main() -> None:
        names = [f"f{number}" for number in range(12)]
        async with world.open(*names, "late"):
            never = asyncio.Event()

            async def answer(_: Invocation) -> InvocationResult:
                await never.wait()
                return OK

            world.answer = answer
            for name in names:
                for number in range(20):
                    await world.send(name, number)
            await world.until(lambda: len({i.function.name for i in world.runs}) == len(names))
            await asyncio.sleep(0.05)
            assert 128 <= len(world.runs) <= 128 + len(names)
            await world.send("late", 1)
            await world.until(lambda: world.runs[-1].function.name == "late")
            never.set()
            await world.drained()
            assert len(world.runs) == len(names) * 20 + 1

    asyncio.run(main())


def test_a_full_queue_lets_the_oldest_of_the_largest_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path, event_queue=1, event_backoff=(60, 60))

    async def main() -> None:
        async with world.open("flood", "small"):
            world.answer = failing(10_000, THROTTLED)
            await world.send("small", 1)
            for number in range(40):
                await world.send("flood", f"{number:050000}")
            assert world.store.events.size <= 1 << 20
            assert world.store.events.held[BASE + "small"].events == 1
            left = world.store.events.held[BASE + "flood"].events
            assert world.mode.counts["AsyncEventsDropped:QueueFull"] == 40 - left > 0
            rows: Any = world.store.events._database.read("SELECT payload FROM events ORDER BY id")
            assert [int(str(json.loads(payload))[-3:]) for (payload,) in rows] == [1, *range(40 - left, 40)]

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert f"AsyncEventsDropped: the oldest 1 for {BASE}flood: QueueFull" in caplog.text


def test_the_account_that_has_most_makes_room(tmp_path: Path) -> None:
    """However its events are spread over functions, of which another account's single one is the largest."""
    world, theirs = World(tmp_path, event_queue=1, event_backoff=(60, 60)), "222222222222"

    async def main() -> None:
        async with world.open("one"):
            world.answer = failing(10_000, THROTTLED)
            store = await world.stores.create(theirs)
            for number in range(20):
                arn = BASE.replace("0" * 12, theirs) + f"f{number}"
                function = version(f"f{number}", arn=arn)
                await store.functions.create(function, None)
                await world.mode.accept(Invocation(f"{number}", function, arn, json.dumps("x" * 40_000).encode()))
            for number in range(8):
                await world.send("one", f"{number:050000}")
            assert world.store.events.held[BASE + "one"].events == 8
            assert 0 < sum(theirs in target for target in world.store.events.held) < 20

    asyncio.run(main())


def test_events_run_in_their_account(tmp_path: Path) -> None:
    world, theirs = World(tmp_path), "222222222222"

    async def main() -> None:
        async with world.open("same"):
            store = await world.stores.create(theirs)
            arn = BASE.replace("0" * 12, theirs) + "same"
            await store.functions.create(version("same", arn=arn), None)
            for target in (arn, BASE + "same", BASE.replace("0" * 12, "3" * 12) + "same"):
                await world.mode.accept(Invocation(target, version("same", arn=target), target, b"1"))
            await world.drained()
            assert {(run.request_id, run.function.arn) for run in world.runs} == {
                (arn, arn), (BASE + "same", BASE + "same")
            }  # fmt: skip
            assert world.mode.counts["AsyncEventsDropped:FunctionNotFound"] == 1

    asyncio.run(main())


def test_a_function_that_is_gone_takes_its_events_along(world: World) -> None:
    async def main() -> None:
        async with world.open("f", "f2"):
            world.answer = failing(10_000, THROTTLED)
            for qualifier in ("", "$LATEST", "live"):
                await world.send("f", 1, qualifier)
            await world.send("f2", 1)
            await world.store.delete_function("f")
            assert list(world.store.events.held) == [BASE + "f2"]

    asyncio.run(main())


def test_what_was_running_runs_again_after_a_sudden_end(tmp_path: Path) -> None:
    async def end_suddenly() -> None:
        world = World(tmp_path)
        async with world.open("f"):

            async def answer(_: Invocation) -> InvocationResult:
                await asyncio.Event().wait()
                return OK

            world.answer = answer
            await world.send("f", 1)
            await world.until(lambda: world.runs)

    async def begin_again() -> None:
        world = World(tmp_path)
        async with world.open():
            await world.drained()
            assert [i.request_id for i in world.runs] == ["request-f-1"]

    asyncio.run(end_suddenly())
    asyncio.run(begin_again())


def test_a_clock_that_was_set_back_holds_nothing_up(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        async with world.open("f"):
            far = 1e10
            await world.store.events.add(Event(BASE + "f", far, far, "r", b"1"))
        again = World(tmp_path)
        async with again.open():
            await again.drained()
            assert [i.request_id for i in again.runs] == ["r"]

    asyncio.run(main())


def test_what_cannot_be_written_is_not_made_again(world: World) -> None:
    async def main() -> None:
        async with world.open("f"):
            full = asyncio.Event()
            write = world.store.events._database.write

            async def refusing(work: Any) -> Any:
                if full.is_set():
                    raise OSError(28, "No space left on device")
                return await write(work)

            world.store.events._database.write = refusing  # type: ignore[method-assign]

            async def answer(_: Invocation) -> InvocationResult:
                full.set()
                asyncio.get_running_loop().call_later(0.1, full.clear)
                return OK

            world.answer = answer
            await world.send("f", 1)
            await world.drained()
            assert len(world.runs) == 1

    asyncio.run(main())
