"""The kinds of event sources: what a mapping of each may say, what it says where its owner does not, what is refused.

Room: service. May: words.
Source: https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html and the pages of the parameters
of each source that it names
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandboxd.api.errors import invalid_parameter, not_offered_member
from sandboxd.errors import ApiError
from sandboxd.model.event_filter import Pattern
from sandboxd.model.queue_batch import FIFO

KIND = "EventSourceMapping"  # of the documents
PREFIX = "event-source-mapping:"  # of their keys: with a colon a key is no function's name
POSITIONS = ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")  # in AWS's order, which is not the model's
_FILTERS = 5
_BATCH_WITHOUT_WINDOW = 10
# What is kept nowhere: it would say of what is kept that it is encrypted, measured or logged.
_NOT_OFFERED = ("KMSKeyArn", "LoggingConfig", "MetricsConfig")
_STREAM = {
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "DestinationConfig": {"OnFailure": {}},
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
    "MaximumRetryAttempts": -1,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
}
_KAFKA = {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 0, "DestinationConfig": {"OnFailure": {}}}
_KAFKA_MEMBERS = frozenset(
    (
        "BisectBatchOnFunctionError",
        "FilterCriteria",
        "FunctionResponseTypes",
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "ProvisionedPollerConfig",
        "SourceAccessConfigurations",
        "StartingPosition",
        "StartingPositionTimestamp",
        "Topics",
    )
)
_QUEUE = re.compile(r"arn:aws[a-z-]*:sqs:([a-z0-9-]+):(\d{12}):[A-Za-z0-9_-]{1,80}(?:\.fifo)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of source. `name` is how it is refused; `members` are those beside the ones that it has by default."""

    name: str
    defaults: Mapping[str, Any]
    members: frozenset[str]
    positions: tuple[str, ...] = ()  # where it may begin; it has to say where
    required: Mapping[str, str] = field(default_factory=dict)  # further members, and AWS's name of each
    reason: str = "USER_INITIATED"
    processed: bool = True  # it says how processing went


SQS = Kind(
    "Amazon SQS",
    {"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []},
    frozenset(("FilterCriteria", "ScalingConfig")),
    processed=False,
)
_IN_STREAM = frozenset(("FilterCriteria", "StartingPosition", "StartingPositionTimestamp"))
_BY_SERVICE = {
    "sqs": SQS,
    "kinesis": Kind("Amazon Kinesis", _STREAM, _IN_STREAM, POSITIONS, reason="User action"),
    "dynamodb": Kind("DynamoDB Streams", _STREAM, _IN_STREAM, ("LATEST", "TRIM_HORIZON"), reason="User action"),
    "kafka": Kind(
        "Amazon MSK",
        _KAFKA,
        _KAFKA_MEMBERS | {"AmazonManagedKafkaEventSourceConfig"},
        POSITIONS,
        {"Topics": "topics"},
    ),
    "mq": Kind(
        "Amazon MQ",
        {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 0},
        frozenset(("FilterCriteria", "Queues", "SourceAccessConfigurations")),
        required={"Queues": "queues", "SourceAccessConfigurations": "sourceAccessConfigurations"},
    ),
    "rds": Kind(
        "Amazon DocumentDB",
        {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 0},
        frozenset(
            (
                "DocumentDBEventSourceConfig",
                "SourceAccessConfigurations",
                "StartingPosition",
                "StartingPositionTimestamp",
            )
        ),
        POSITIONS,
        {"SourceAccessConfigurations": "sourceAccessConfigurations"},
    ),
}
_SELF_MANAGED = Kind(
    "self-managed Apache Kafka",
    _KAFKA,
    _KAFKA_MEMBERS | {"SelfManagedEventSource", "SelfManagedKafkaEventSourceConfig"},
    POSITIONS,
    {"SourceAccessConfigurations": "sourceAccessConfigurations", "Topics": "topics"},
)


def kind_of(settings: Mapping[str, Any]) -> Kind:
    """The kind of source that a mapping names. Raises ApiError."""
    if "SelfManagedEventSource" in settings:
        return _SELF_MANAGED
    arn = settings.get("EventSourceArn", "")
    kind = _BY_SERVICE.get(arn.split(":")[2]) if arn else None
    if kind is None or (kind is SQS and not _QUEUE.fullmatch(arn)):
        raise invalid_parameter("Unrecognized event source.")
    return kind


def check_settings(kind: Kind, settings: Mapping[str, Any]) -> None:
    """Raise ApiError, in AWS's words and order, where a mapping of a kind cannot be so."""
    for member in _NOT_OFFERED:
        if member in settings:
            raise not_offered_member(member)
    if "OnSuccess" in settings.get("DestinationConfig", {}):
        raise _unsupported("DestinationConfig")
    if kind is SQS and ("StartingPosition" in settings or "StartingPositionTimestamp" in settings):
        raise invalid_parameter("StartingPosition is not valid for SQS event sources.")
    if kind is SQS and "ProvisionedPollerConfig" in settings:
        raise not_offered_member("ProvisionedPollerConfig")
    for member, name in kind.required.items():
        if not settings.get(member):
            raise invalid_parameter(f"Required '{name}' parameter is missing.")
    for member in settings:
        if member != "EventSourceArn" and member not in kind.defaults and member not in kind.members:
            raise _unsupported(member)
    _check_position(kind, settings)
    if kind is SQS:
        _check_batch(settings)
    parse_filters(settings)


def check_queue_is_here(arn: str, region: str, account: str) -> None:
    """Raise ApiError where a queue is another account's, or elsewhere."""
    match = _QUEUE.fullmatch(arn)
    if match is None or match.groups() != (region, account):
        raise not_offered_member("queues of another account or region as event sources")


def parse_filters(settings: Mapping[str, Any]) -> tuple[Pattern, ...]:
    """The patterns of a mapping. Raises ApiError."""
    filters = settings.get("FilterCriteria", {}).get("Filters", [])
    if len(filters) > _FILTERS:
        raise invalid_parameter(f"A mapping has no more than {_FILTERS} filters.")
    try:
        return tuple(Pattern.parse(each.get("Pattern", "")) for each in filters)
    except ValueError:
        raise invalid_parameter("Invalid filter pattern definition.") from None


def _check_position(kind: Kind, settings: Mapping[str, Any]) -> None:
    if not kind.positions:
        return
    position = settings.get("StartingPosition")
    if position is None:
        raise invalid_parameter(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
            "Member must not be null."
        )
    if "StartingPositionTimestamp" in settings and position != "AT_TIMESTAMP":
        raise invalid_parameter("Timestamp only valid with StartingPosition AT_TIMESTAMP")
    if position not in kind.positions:
        raise invalid_parameter(f"Unsupported starting position for arn type: {settings['EventSourceArn']}")


def _check_batch(settings: Mapping[str, Any]) -> None:
    size, window = settings["BatchSize"], settings["MaximumBatchingWindowInSeconds"]
    if settings["EventSourceArn"].endswith(FIFO):
        if window:
            raise invalid_parameter("Batching window is not supported for FIFO queues")
        if size > _BATCH_WITHOUT_WINDOW:
            raise invalid_parameter(f"Maximum batch size for FIFO queues is {_BATCH_WITHOUT_WINDOW}")
    if size > _BATCH_WITHOUT_WINDOW and not window:
        raise invalid_parameter(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )


def _unsupported(member: str) -> ApiError:
    return invalid_parameter(f"Unsupported {member} parameter for given event source mapping type.")
