"""Pollers over a queue in memory that keeps SQS's promises: hidden while taken, shown again, groups in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandboxd.config import Config
from sandboxd.errors import ApiError
from sandboxd.events.poller import Bounds, Poller
from sandboxd.events.sources import Sources
from sandboxd.model.event_filter import Pattern
from sandboxd.model.invocation import InvocationResult, Outcome
from sandboxd.model.queue_batch import QueueSource

ARN = "arn:aws:sqs:us-east-1:111111111111:jobs"
OK = InvocationResult(Outcome.OK, b"null")
FAILED = InvocationResult(Outcome.HANDLED, b"{}", function_error="Unhandled")
BUSY = ApiError("TooManyRequestsException", "Rate Exceeded.", 429)


class Queue:
    """One queue. `visibility` in seconds; `down` is what it raises instead of an answer."""

    def __init__(self, visibility: float = 5.0, fifo: bool = False) -> None:
        self.visibility, self.fifo = visibility, fifo
        self.messages: dict[str, dict[str, Any]] = {}
        self.hidden: dict[str, float] = {}
        self.down: Exception | None = None
        self.receives = 0
        self._numbers = itertools.count()

    def send(self, body: Any, group: str = "") -> str:
        """Put a message in; its id."""
        number = f"m{next(self._numbers)}"
        text = body if isinstance(body, str) else json.dumps(body)
        self.messages[number] = {"MessageId": number, "Body": text, "Attributes": {"MessageGroupId": group}}
        return number

    async def attributes(self, arn: str) -> Mapping[str, str]:
        await self._answer()
        return {"VisibilityTimeout": str(self.visibility)}

    async def receive(self, arn: str, limit: int, wait: int) -> Sequence[Mapping[str, Any]]:
        self.receives += 1
        for _ in range(3):  # a long poll
            await self._answer()
            if found := self._take(limit):
                return found
            await asyncio.sleep(0.01)
        return []

    async def delete(self, arn: str, receipts: Sequence[str]) -> Sequence[str]:
        await self._answer()
        for receipt in receipts:
            self.messages.pop(receipt.partition("-")[0], None)
        return []

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down

    def _take(self, limit: int) -> list[Mapping[str, Any]]:
        now = time.monotonic()
        found: list[Mapping[str, Any]] = []
        taken = {n for n, until in self.hidden.items() if until > now and n in self.messages}
        blocked = {self.messages[n]["Attributes"]["MessageGroupId"] for n in taken} if self.fifo else set()
        for number, message in self.messages.items():
            if len(found) < limit and number not in taken and message["Attributes"]["MessageGroupId"] not in blocked:
                self.hidden[number] = now + self.visibility
                found.append(message | {"ReceiptHandle": f"{number}-{now}"})
        return found


class Function:
    """Remembers the bodies of each event; `answer` decides what comes of one."""

    def __init__(self) -> None:
        self.events: list[list[Any]] = []
        self.running = self.most = 0
        self.prevented = ""
        self.answer: Callable[[list[dict[str, Any]]], Awaitable[InvocationResult]] = self.succeed

    def problem(self) -> str:
        return self.prevented

    async def succeed(self, records: list[dict[str, Any]]) -> InvocationResult:
        await asyncio.sleep(0.005)
        return OK

    async def run(self, payload: bytes) -> InvocationResult:
        records = json.loads(payload)["Records"]
        self.events.append([record["body"] for record in records])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.answer(records)
        finally:
            self.running -= 1

    @property
    def bodies(self) -> list[Any]:
        return [body for event in self.events for body in event]


@contextlib.asynccontextmanager
async def polling(queue: Queue, function: Function, limit: int = 6 << 20, **source: Any) -> AsyncIterator[Poller]:
    """A poller that runs."""
    with ThreadPoolExecutor(1) as sorter:
        bounds = Bounds(limit, (0.01, 0.05), lambda: False, sorter)
        arn = ARN + (".fifo" if queue.fifo else "")
        poller = Poller(QueueSource(arn, **{"batch": 10, "concurrency": 4} | source), queue, function, bounds)
        poller.begin()
        try:
            yield poller
        finally:
            await poller.cut_off()


async def until(happened: Callable[[], Any]) -> None:
    """Return when it is so."""
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.005)


def test_messages_are_run_in_batches_and_removed() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()
        for number in range(25):
            queue.send(f"b{number}")
        async with polling(queue, function):
            await until(lambda: not queue.messages)
        assert sorted(map(len, function.events)) == [5, 10, 10]
        assert sorted(function.bodies) == sorted(f"b{number}" for number in range(25))

    asyncio.run(go())


def test_no_more_batches_run_at_one_time_than_asked_for() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()
        for number in range(20):
            queue.send(number)
        async with polling(queue, function, batch=1, concurrency=2):
            await until(lambda: not queue.messages)
        assert function.most == 2

    asyncio.run(go())


def test_a_large_batch_is_gathered_from_many_requests_until_its_window_is_over() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()
        for number in range(35):
            queue.send(number)
        async with polling(queue, function, batch=30, window=60):
            await until(lambda: len(queue.messages) == 5)
            assert function.events[0] == [str(number) for number in range(30)]
        async with polling(queue := Queue(), function := Function(), batch=30, window=0.1):
            queue.send("a")
            await until(lambda: not queue.messages)

    asyncio.run(go())


def test_an_event_is_no_larger_than_a_function_takes() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()
        for body in ("a" * 400, "b" * 400, "c" * 3_000, "d"):
            queue.send(body)
        async with polling(queue, function, limit=1_500) as poller:
            await until(lambda: len(queue.messages) == 1)
            await until(lambda: "larger" in poller.problem)
        assert {body[0] for body in function.bodies} == {"a", "b", "d"}
        assert len(function.events) > 1

    asyncio.run(go())


def test_what_failed_comes_again_when_its_time_is_over() -> None:
    async def go() -> None:
        queue, function = Queue(visibility=0.1), Function()
        queue.visibility = 1.0

        async def once(records: list[dict[str, Any]]) -> InvocationResult:
            return FAILED if len(function.events) == 1 else OK

        function.answer = once
        queue.send("a")
        async with polling(queue, function):
            await until(lambda: not queue.messages)
        assert function.events == [["a"], ["a"]]

    asyncio.run(go())


def test_only_what_a_function_names_comes_again() -> None:
    async def go() -> None:
        queue, function = Queue(visibility=1.0), Function()
        ids = [queue.send(body) for body in ("a", "b", "c")]

        async def but_b(records: list[dict[str, Any]]) -> InvocationResult:
            failures = [{"itemIdentifier": r["messageId"]} for r in records if len(function.events) == 1][1:2]
            return InvocationResult(Outcome.OK, json.dumps({"batchItemFailures": failures}).encode())

        function.answer = but_b
        async with polling(queue, function, partial=True):
            await until(lambda: list(queue.messages) == [ids[1]])
            await until(lambda: not queue.messages)
        assert function.events == [["a", "b", "c"], ["b"]]

    asyncio.run(go())


def test_without_partial_responses_what_a_function_says_is_not_heeded() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()

        async def all_failed(records: list[dict[str, Any]]) -> InvocationResult:
            return InvocationResult(Outcome.OK, b'{"batchItemFailures": [{"itemIdentifier": ""}]}')

        function.answer = all_failed
        queue.send("a")
        async with polling(queue, function):
            await until(lambda: not queue.messages)

    asyncio.run(go())


def test_messages_that_no_pattern_wants_are_removed_unseen() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()
        for body in ({"a": 1}, {"a": 2}, "text"):
            queue.send(body)
        async with polling(queue, function, patterns=(Pattern.parse('{"body": {"a": [1]}}'),)):
            await until(lambda: not queue.messages)
        assert function.bodies == ['{"a": 1}']

    asyncio.run(go())


def test_a_throttled_batch_waits_and_no_other_is_asked_for_meanwhile() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()

        async def refuse(records: list[dict[str, Any]]) -> InvocationResult:
            if len(function.events) < 5:
                raise BUSY
            return OK

        function.answer = refuse
        queue.send("first")
        async with polling(queue, function, batch=1) as poller:
            await until(lambda: function.events)
            for number in range(8):
                queue.send(number)
            await until(lambda: not queue.messages)
            await until(lambda: not poller.problem)
        assert len(set(function.bodies[:5])) <= 2  # one request was under way when the first was refused
        assert len(set(function.bodies)) == 9

    asyncio.run(go())


def test_nothing_is_begun_with_messages_whose_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        queue, function = Queue(visibility=1.0), Function()
        function.answer = _refuse
        queue.send("a")
        async with polling(queue, function):
            await until(lambda: "visibility" in caplog.text)
            function.answer = function.succeed
            await until(lambda: not queue.messages)

    asyncio.run(go())


async def _refuse(records: list[dict[str, Any]]) -> InvocationResult:
    raise BUSY


@pytest.mark.parametrize("error", [OSError(111, "refused"), ValueError("no number"), RuntimeError("a bug")])
def test_a_queue_that_does_not_answer_is_asked_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        queue, function = Queue(), Function()
        queue.down = error
        async with polling(queue, function) as poller:
            await until(lambda: poller.problem)
            queue.down = None
            queue.send("a")
            await until(lambda: not queue.messages)
            await until(lambda: not poller.problem)

    asyncio.run(go())


def test_what_could_not_be_removed_comes_again() -> None:
    async def go() -> None:
        queue, function = Queue(visibility=1.0), Function()

        async def then_down(records: list[dict[str, Any]]) -> InvocationResult:
            queue.down = OSError(111, "refused") if len(function.events) == 1 else None
            return OK

        function.answer = then_down
        queue.send("a")
        async with polling(queue, function) as poller:
            await until(lambda: "refused" in poller.problem and not poller.batches)
            queue.down = None
            await until(lambda: not queue.messages)
        assert function.events == [["a"], ["a"]]

    asyncio.run(go())


def test_nothing_is_taken_that_could_not_be_run() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()
        function.prevented = "Function not found"
        queue.send("a")
        async with polling(queue, function) as poller:
            await until(lambda: poller.problem == "Function not found")
            assert not queue.receives
            function.prevented = ""
            await until(lambda: not queue.messages)

    asyncio.run(go())


def test_a_group_of_a_fifo_queue_stays_in_order_and_waits_for_what_failed() -> None:
    async def go() -> None:
        queue, function = Queue(visibility=1.0, fifo=True), Function()
        for number in range(12):
            queue.send(f"{number % 3}-{number}", group=str(number % 3))
        failed_once: set[str] = set()

        async def fails_once(records: list[dict[str, Any]]) -> InvocationResult:
            await asyncio.sleep(0.002)
            begin = next((i for i, r in enumerate(records) if r["body"] not in failed_once), None)
            if begin is not None and int(records[begin]["body"][2:]) % 4 == 1:
                failed_once.add(records[begin]["body"])
                failures = [{"itemIdentifier": r["messageId"]} for r in records[begin:]]
                seen.extend(r["body"] for r in records[:begin])
                return InvocationResult(Outcome.OK, json.dumps({"batchItemFailures": failures}).encode())
            seen.extend(r["body"] for r in records)
            return OK

        seen: list[str] = []
        function.answer = fails_once
        async with polling(queue, function, batch=2, partial=True):
            await until(lambda: not queue.messages)
        for group in "012":
            numbers = [int(body[2:]) for body in seen if body[0] == group]
            assert numbers == sorted(set(numbers))
        assert len(seen) == 12

    asyncio.run(go())


def test_pieces_of_a_fifo_batch_follow_each_other_and_end_with_the_first_failure() -> None:
    async def go() -> None:
        queue, function = Queue(visibility=60, fifo=True), Function()
        for body in "abc":
            queue.send(body * 400, group="g")

        async def second_fails(records: list[dict[str, Any]]) -> InvocationResult:
            return FAILED if records[0]["body"][0] == "b" else OK

        function.answer = second_fails
        async with polling(queue, function, limit=900) as poller:
            await until(lambda: len(function.events) == 2 and not poller.batches)
        assert [body[0] for body in function.bodies] == ["a", "b"]
        assert len(queue.messages) == 2

    asyncio.run(go())


def test_a_server_without_long_polls_is_not_asked_all_the_time() -> None:
    async def go() -> None:
        queue, function = Queue(), Function()

        async def nothing(arn: str, limit: int, wait: int) -> list[Any]:
            queue.receives += 1
            return []

        queue.receive = nothing  # type: ignore[method-assign]
        async with polling(queue, function):
            await asyncio.sleep(0.3)
        assert queue.receives == 1

    asyncio.run(go())


def test_a_message_that_is_none_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        queue, function = Queue(visibility=60), Function()
        bad = queue.send("\ud800")
        worse = queue.send("x")
        queue.messages[worse]["MessageAttributes"] = {"a": 1}
        queue.send("good")
        dear = queue.send({"a": list(range(100_000))})
        pattern = Pattern.parse('{"body": [{"exists": true}]}')
        dearer = Pattern.parse(json.dumps({"body": {"a": [{"numeric": ["<", -n]} for n in range(1, 9)]}}))
        async with polling(queue, function, patterns=(dearer, pattern)):
            await until(lambda: len(queue.messages) == 3)
            await until(lambda: "too many values" in caplog.text)
        assert list(queue.messages) == [bad, worse, dear]
        assert function.bodies == ["good"]

    asyncio.run(go())


# several


def test_a_mapping_that_changes_goes_on_when_what_ran_is_over(tmp_path: Path) -> None:
    async def go() -> None:
        queue, before, after = Queue(), Function(), Function()
        free = asyncio.Event()

        async def wait(records: list[dict[str, Any]]) -> InvocationResult:
            await free.wait()
            return OK

        before.answer = wait
        sources = Sources(replace(Config(), event_backoff=(0.01, 0.05)), queue)
        source = QueueSource(ARN, 1, concurrency=1)
        try:
            queue.send("a")
            sources.poll("u", source, before)
            await until(lambda: before.events)
            queue.send("b")
            for _ in range(3):
                sources.poll("u", source, after)
            assert sources.settling("u") and sources.polls("u")
            await asyncio.sleep(0.05)
            assert not after.events
            free.set()
            await until(lambda: not queue.messages)
            assert (before.bodies, after.bodies) == (["a"], ["b"])
            await until(lambda: not sources.settling("u"))
            sources.stop("u")
            await sources.ended("u")
            queue.send("c")
            received = queue.receives
            await asyncio.sleep(0.05)
            assert queue.receives == received
        finally:
            await sources.close()

    asyncio.run(go())


def test_what_runs_when_all_is_closed_is_not_removed(tmp_path: Path) -> None:
    async def go() -> None:
        queue, function = Queue(), Function()

        async def for_ever(records: list[dict[str, Any]]) -> InvocationResult:
            await asyncio.Event().wait()
            return OK

        function.answer = for_ever
        sources = Sources(Config(), queue)
        queue.send("a")
        sources.poll("u", QueueSource(ARN, 1), function)
        await until(lambda: function.events)
        await sources.close()
        assert len(queue.messages) == 1

    asyncio.run(go())
