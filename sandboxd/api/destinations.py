"""Which targets a function may name for what becomes of its events: those that the configuration has a place for.

Room: service. May: words.
"""

from __future__ import annotations

from collections.abc import Collection

from sandboxd.api.errors import invalid_parameter

_QUEUES = ("sqs", "sns")


def check_named(arn: str, destinations: Collection[str]) -> None:
    """Raise InvalidParameterValueException where the configuration has no place for a target of another service."""
    if arn not in destinations:
        raise invalid_parameter(
            f"sandboxd has no destination {arn}: its configuration names none under [destinations]. "
            "Queues and topics of other services are not offered yet."
        )


def check_dead_letter_queue(arn: str, destinations: Collection[str]) -> None:
    """Raise InvalidParameterValueException where a target cannot be a dead-letter queue."""
    if arn.split(":")[2] not in _QUEUES:
        raise invalid_parameter(f"The provided target ARN {arn} is invalid: it is no SQS queue and no SNS topic.")
    check_named(arn, destinations)
