"""What a function's settings say of its events: how long and how often they are tried, and who is told how they ended.

Room: service. May: read the store's maps.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from sandboxd.config import Config
from sandboxd.events.records import MESSAGE_BYTES, Condition, Ending, dead_letter, destination_record
from sandboxd.model.arn import LATEST, parse_function_reference
from sandboxd.model.event import Event
from sandboxd.model.function import FunctionVersion
from sandboxd.store.store import Store

# https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionEventInvokeConfig.html
_LONGEST_AGE = 21_600.0
_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Trying:
    """For how many seconds an event is tried, and how often again after an error of its function."""

    age: float
    retries: int


class Endings:
    """The settings of functions, which are in their account's store, as far as events are concerned."""

    longest_age = _LONGEST_AGE

    def __init__(self, config: Config) -> None:
        self._config = config

    def policy(self, store: Store, name: str, qualifier: str | None) -> Trying:
        """How long and how often what was asked for by this qualifier is tried."""
        settings = _settings(store, name, qualifier)
        age, retries = settings.get("MaximumEventAgeInSeconds"), settings.get("MaximumRetryAttempts")
        return Trying(_LONGEST_AGE if age is None else age, _RETRIES if retries is None else retries)

    def reserves_nothing(self, store: Store, name: str) -> bool:
        """Whether the function has a reserved concurrency of 0: nothing of it runs, and nothing waits for it."""
        document = store.settings.get("Concurrency", name) or {}
        return document.get("ReservedConcurrentExecutions") == 0

    def followers(
        self, store: Store, event: Event, version: FunctionVersion, ending: Ending, now: float
    ) -> list[Event]:
        """The events by which destination and dead-letter queue learn of an ending."""
        reference = parse_function_reference(event.target)
        assert reference is not None
        success = ending.condition is Condition.SUCCESS
        destinations = _settings(store, reference.name, reference.qualifier).get("DestinationConfig", {})
        arn = destinations.get("OnSuccess" if success else "OnFailure", {}).get("Destination")
        found = []
        if arn:
            found.append(_event(arn, destination_record(event, ending, now, self._limit(arn)), now, event.trace_id))
        if not success:
            queue = json.loads(dict(version.settings).get("DeadLetterConfig", "{}")).get("TargetArn")
            if queue:
                found.append(_event(queue, dead_letter(event, ending), now, event.trace_id))
        return found

    def _limit(self, arn: str) -> int | None:
        """The largest record that a destination takes, in bytes; None: any."""
        if parse_function_reference(arn):
            return self._config.limits.async_payload_bytes
        return None if arn in self._config.destinations else MESSAGE_BYTES.get(arn.split(":")[2])


def _settings(store: Store, name: str, qualifier: str | None) -> dict[str, Any]:
    return store.settings.get("EventInvokeConfig", name, qualifier or LATEST) or {}


def _event(target: str, payload: bytes, now: float, trace_id: str) -> Event:
    return Event(target, now, now, str(uuid.uuid4()), payload, trace_id=trace_id)
