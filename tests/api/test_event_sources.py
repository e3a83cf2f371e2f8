"""Event source mappings: their records in AWS's words, and queues of a moto server that are polled."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.model.endpoint import parse
from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of, eventually
from tests.support.moto import ACCOUNT, Moto

HERE = "111111111111"
FUNCTION = f"arn:aws:lambda:us-east-1:{HERE}:function:hello"
STREAM = f"arn:aws:kinesis:us-east-1:{HERE}:stream/s"
TABLE = f"arn:aws:dynamodb:us-east-1:{HERE}:table/t/stream/2026-01-01T00:00:00.000"
QUEUE = f"arn:aws:sqs:us-east-1:{HERE}:jobs"
CLUSTER = f"arn:aws:kafka:us-east-1:{HERE}:cluster/c/x"
BROKER = f"arn:aws:mq:us-east-1:{HERE}:broker:b:x"
OFF = {"FunctionName": "hello", "Enabled": False}
BEGINS = {"StartingPosition": "LATEST"}
SECRET = [{"Type": "BASIC_AUTH", "URI": f"arn:aws:secretsmanager:us-east-1:{HERE}:secret:s"}]
SERVERS = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a.example:9092", "b.example:9092"]}}
KAFKA = {"SelfManagedEventSource": SERVERS, "Topics": ["topic"], "SourceAccessConfigurations": SECRET} | BEGINS


def shown(answer: dict[str, Any]) -> dict[str, Any]:
    """A mapping without what differs from run to run."""
    assert answer["LastModified"].year >= 2026
    return {name: answer[name] for name in answer if name not in ("ResponseMetadata", "LastModified")}


# records


def test_a_stream_is_kept_as_aws_shows_it(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    made = client.create_event_source_mapping(EventSourceArn=STREAM, **OFF, **BEGINS)
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    expected = {
        "UUID": made["UUID"],
        "EventSourceArn": STREAM,
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:{HERE}:event-source-mapping:{made['UUID']}",
        "FunctionArn": FUNCTION,
        "BatchSize": 100,
        "BisectBatchOnFunctionError": False,
        "DestinationConfig": {"OnFailure": {}},
        "FunctionResponseTypes": [],
        "LastProcessingResult": "No records processed",
        "MaximumBatchingWindowInSeconds": 0,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "ParallelizationFactor": 1,
        "StartingPosition": "LATEST",
        "State": "Creating",
        "StateTransitionReason": "User action",
        "TumblingWindowInSeconds": 0,
    }
    assert str(uuid.UUID(made["UUID"])) == made["UUID"]
    assert shown(made) == expected
    assert shown(client.get_event_source_mapping(UUID=made["UUID"])) == expected | {"State": "Disabled"}


@pytest.mark.parametrize(
    ("source", "defaults"),
    [
        ({"EventSourceArn": QUEUE}, {"BatchSize": 10, "StateTransitionReason": "USER_INITIATED"}),
        ({"EventSourceArn": TABLE, "StartingPosition": "TRIM_HORIZON"}, {"ParallelizationFactor": 1, "BatchSize": 100}),
        ({"EventSourceArn": CLUSTER, "Topics": ["topic"]} | BEGINS, {"BatchSize": 100, "Topics": ["topic"]}),
        (KAFKA, {"SelfManagedEventSource": SERVERS}),
        (
            {"EventSourceArn": BROKER, "Queues": ["q"], "SourceAccessConfigurations": SECRET},
            {"Queues": ["q"], "BatchSize": 100},
        ),
        (
            {"EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1_700_000_000},
            {"StartingPosition": "AT_TIMESTAMP"},
        ),
    ],
)
def test_a_source_that_nobody_polls_is_kept_while_it_is_disabled(
    endpoint: Endpoint, client: Any, source: dict[str, Any], defaults: dict[str, Any]
) -> None:
    endpoint.create()
    refused = error_of(client.create_event_source_mapping, FunctionName="hello", **source)
    assert refused[:2] == ("InvalidParameterValueException", 400)
    assert "sandboxd does not offer" in refused[2]
    assert "Enabled=false" in refused[2]
    made = client.create_event_source_mapping(**OFF, **source)
    kept = client.get_event_source_mapping(UUID=made["UUID"])
    assert kept["State"] == "Disabled"
    assert defaults.items() <= kept.items()
    assert error_of(client.update_event_source_mapping, UUID=made["UUID"], Enabled=True) == refused
    if "StartingPositionTimestamp" in source:
        assert kept["StartingPositionTimestamp"].timestamp() == 1_700_000_000


def test_a_mapping_is_changed_found_and_deleted(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint()
    client = endpoint.boto3()
    endpoint.create()
    endpoint.create("other")
    members = {"FilterCriteria": {"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]}, "Tags": {"A": "b"}}
    members |= {"ScalingConfig": {"MaximumConcurrency": 2}, "FunctionResponseTypes": ["ReportBatchItemFailures"]}
    made = client.create_event_source_mapping(EventSourceArn=QUEUE, **OFF, **members)
    assert made["ScalingConfig"] == {"MaximumConcurrency": 2}
    assert made["FilterCriteria"] == members["FilterCriteria"]
    assert client.list_tags(Resource=made["EventSourceMappingArn"])["Tags"] == {"A": "b"}
    client.tag_resource(Resource=made["EventSourceMappingArn"], Tags={"C": "d"})
    client.close()
    client = make_endpoint().boto3()  # a restart
    changed = client.update_event_source_mapping(
        UUID=made["UUID"], FunctionName="other", BatchSize=5, FilterCriteria={}, ScalingConfig={}
    )
    assert (changed["State"], changed["FunctionArn"]) == ("Updating", FUNCTION.replace("hello", "other"))
    now = client.get_event_source_mapping(UUID=made["UUID"])
    assert (now["State"], now["BatchSize"]) == ("Disabled", 5)
    assert now["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert not {"FilterCriteria", "ScalingConfig"} & set(now)
    assert now["LastModified"] >= made["LastModified"]
    assert client.list_tags(Resource=made["EventSourceMappingArn"])["Tags"] == {"A": "b", "C": "d"}
    gone = client.delete_event_source_mapping(UUID=made["UUID"])
    assert (gone["State"], gone["ResponseMetadata"]["HTTPStatusCode"]) == ("Deleting", 202)
    eventually(lambda: not client.list_event_source_mappings()["EventSourceMappings"])
    nothing = ("ResourceNotFoundException", 404, "The resource you requested does not exist.")
    for call in (client.get_event_source_mapping, client.delete_event_source_mapping):
        assert error_of(call, UUID=made["UUID"]) == nothing
    assert error_of(client.update_event_source_mapping, UUID=str(uuid.uuid4())) == nothing
    assert error_of(client.list_tags, Resource=made["EventSourceMappingArn"])[:2] == nothing[:2]
    client.close()


def test_lists_are_in_pages_and_of_a_function_or_a_source(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    for number in range(5):
        client.create_event_source_mapping(EventSourceArn=f"{QUEUE}{number}", **OFF)
    client.create_event_source_mapping(EventSourceArn=f"{QUEUE}0", FunctionName="hello:live", Enabled=False)

    def listed(**members: Any) -> list[str]:
        pages = client.get_paginator("list_event_source_mappings").paginate(PaginationConfig={"PageSize": 2}, **members)
        return sorted(row["EventSourceArn"][-1] for found in pages for row in found["EventSourceMappings"])

    assert listed() == ["0", "0", "1", "2", "3", "4"]
    assert listed(FunctionName="hello") == ["0", "1", "2", "3", "4"]
    assert listed(FunctionName=f"{FUNCTION}:live") == ["0"]
    assert listed(EventSourceArn=f"{QUEUE}0") == ["0", "0"]
    assert listed(EventSourceArn=f"{QUEUE}0", FunctionName="hello") == ["0"]
    assert listed(FunctionName="none") == []


def test_a_mapping_outlives_its_function(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    made = client.create_event_source_mapping(EventSourceArn=QUEUE, **OFF)
    client.delete_function(FunctionName="hello")
    assert client.get_event_source_mapping(UUID=made["UUID"])["FunctionArn"] == FUNCTION
    client.update_event_source_mapping(UUID=made["UUID"], BatchSize=1)


def test_a_source_and_a_function_have_one_mapping(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    sources: list[tuple[dict[str, Any], str]] = [
        (
            {"EventSourceArn": QUEUE},
            f'An event source mapping with SQS arn (" {QUEUE} ") and function (" hello ") already exists. '
            "Please update or delete the existing mapping with UUID {}",
        ),
        (
            {"EventSourceArn": STREAM} | BEGINS,
            f'The event source arn (" {STREAM} ") and function (" hello ") provided mapping already exists. '
            "Please update or delete the existing mapping with UUID {}",
        ),
        (
            KAFKA,
            'An event source mapping with event source ("a.example:9092,b.example:9092"), '
            f'function ("{FUNCTION}"), topics ("topic") already exists. '
            "Please update or delete the existing mapping with UUID {}",
        ),
    ]
    for source, text in sources:
        made = client.create_event_source_mapping(**OFF, **source)
        refused = error_of(client.create_event_source_mapping, **OFF, **source)
        assert refused == ("ResourceConflictException", 409, text.format(made["UUID"]))


def test_a_mapping_that_is_being_deleted_is_left_alone_and_gone_after_a_restart(
    make_endpoint: Callable[..., Endpoint],
) -> None:
    endpoint = make_endpoint()
    client = endpoint.boto3()
    endpoint.create()
    made = client.create_event_source_mapping(EventSourceArn=QUEUE, **OFF, Tags={"A": "b"})
    settings, key = endpoint.store.settings, f"event-source-mapping:{made['UUID']}"
    document = settings.get("EventSourceMapping", key)
    assert document is not None
    endpoint.run(settings.put("EventSourceMapping", key, document | {"Deleting": True}))
    assert client.get_event_source_mapping(UUID=made["UUID"])["State"] == "Deleting"
    for call, verb in ((client.update_event_source_mapping, "update"), (client.delete_event_source_mapping, "delete")):
        text = f"Cannot {verb} the event source mapping because it is in use."
        assert error_of(call, UUID=made["UUID"]) == ("ResourceInUseException", 400, text)
    client.close()
    again = make_endpoint()
    client = again.boto3()
    eventually(lambda: not client.list_event_source_mappings()["EventSourceMappings"])
    assert again.store.settings.get("Tags", key) is None
    client.close()


UNSUPPORTED = "Unsupported {} parameter for given event source mapping type."
NO_POSITION = (
    "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
    "Member must not be null."
)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "Unrecognized event source."),
        ({"EventSourceArn": f"arn:aws:s3:us-east-1:{HERE}:b"}, "Unrecognized event source."),
        ({"EventSourceArn": f"arn:aws:sqs:us-east-1:{HERE}:a/b"}, "Unrecognized event source."),
        ({"EventSourceArn": QUEUE, "FunctionName": "none"}, "Function does not exist"),
        ({"EventSourceArn": QUEUE, "FunctionName": "hello:7"}, "Function does not exist"),
        ({"EventSourceArn": STREAM, "FunctionName": "none"}, NO_POSITION),
        ({"EventSourceArn": CLUSTER, "Topics": ["topic"]}, NO_POSITION),
        ({"EventSourceArn": CLUSTER} | BEGINS, "Required 'topics' parameter is missing."),
        (
            {"SelfManagedEventSource": SERVERS, "Topics": ["topic"]} | BEGINS,
            "Required 'sourceAccessConfigurations' parameter is missing.",
        ),
        (
            {"EventSourceArn": STREAM, "StartingPositionTimestamp": 5} | BEGINS,
            "Timestamp only valid with StartingPosition AT_TIMESTAMP",
        ),
        (
            {"EventSourceArn": TABLE, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 5},
            f"Unsupported starting position for arn type: {TABLE}",
        ),
        ({"EventSourceArn": QUEUE} | BEGINS, "StartingPosition is not valid for SQS event sources."),
        (
            {"EventSourceArn": QUEUE, "StartingPositionTimestamp": 5},
            "StartingPosition is not valid for SQS event sources.",
        ),
        ({"EventSourceArn": QUEUE, "ParallelizationFactor": 2}, UNSUPPORTED.format("ParallelizationFactor")),
        ({"EventSourceArn": QUEUE, "DestinationConfig": {"OnSuccess": {}}}, UNSUPPORTED.format("DestinationConfig")),
        ({"EventSourceArn": STREAM, "Queues": ["q"]} | BEGINS, UNSUPPORTED.format("Queues")),
        ({"EventSourceArn": STREAM, "ScalingConfig": {}} | BEGINS, UNSUPPORTED.format("ScalingConfig")),
        (
            {"EventSourceArn": QUEUE, "BatchSize": 11},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {"EventSourceArn": f"{QUEUE}.fifo", "MaximumBatchingWindowInSeconds": 1},
            "Batching window is not supported for FIFO queues",
        ),
        ({"EventSourceArn": f"{QUEUE}.fifo", "BatchSize": 11}, "Maximum batch size for FIFO queues is 10"),
        ({"EventSourceArn": QUEUE, "FilterCriteria": {"Filters": [{}]}}, "Invalid filter pattern definition."),
        (
            {"EventSourceArn": QUEUE, "FilterCriteria": {"Filters": [{"Pattern": '{"eventSource": "aws:sqs"}'}]}},
            "Invalid filter pattern definition.",
        ),
        (
            {"EventSourceArn": QUEUE, "FilterCriteria": {"Filters": [{"Pattern": '{"a": [1]}'}] * 6}},
            "A mapping has no more than 5 filters.",
        ),
        ({"EventSourceArn": QUEUE, "KMSKeyArn": "arn:aws:kms:x"}, "sandboxd does not offer KMSKeyArn yet"),
        ({"EventSourceArn": QUEUE, "MetricsConfig": {}}, "sandboxd does not offer MetricsConfig yet"),
        (
            {"EventSourceArn": QUEUE, "ProvisionedPollerConfig": {"MinimumPollers": 2}},
            "sandboxd does not offer ProvisionedPollerConfig yet",
        ),
        (
            {"EventSourceArn": QUEUE.replace(HERE, "222222222222")},
            "sandboxd does not offer queues of another account or region as event sources yet",
        ),
        (
            {"EventSourceArn": QUEUE.replace("us-east-1", "eu-west-1")},
            "sandboxd does not offer queues of another account or region as event sources yet",
        ),
        (
            {"EventSourceArn": QUEUE, "Tags": {"aws:x": "y"}},
            "aws: prefixed tag key names are not allowed for external use.",
        ),
    ],
)  # fmt: skip
def test_what_no_mapping_can_be(endpoint: Endpoint, client: Any, members: dict[str, Any], text: str) -> None:
    endpoint.create()
    refused = error_of(client.create_event_source_mapping, **OFF | members)
    assert refused == ("InvalidParameterValueException", 400, text)
    assert client.list_event_source_mappings()["EventSourceMappings"] == []


def test_values_are_listed_in_the_order_of_aws(endpoint: Endpoint, client: Any) -> None:
    refused = error_of(client.create_event_source_mapping, **OFF, EventSourceArn=STREAM, StartingPosition="0")
    assert refused == (
        "ValidationException", 400, "1 validation error detected: Value '0' at 'startingPosition' failed to satisfy "
        "constraint: Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]",
    )  # fmt: skip


def test_what_a_change_may_not_make_of_a_mapping(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    made = client.create_event_source_mapping(EventSourceArn=QUEUE, **OFF)
    for members, text in (
        ({"BatchSize": 100}, "Maximum batch window in seconds must be greater than 0"),
        ({"FunctionName": "none"}, "Function does not exist"),
        ({"ParallelizationFactor": 2}, UNSUPPORTED.format("ParallelizationFactor")),
        ({"FilterCriteria": {"Filters": [{"Pattern": "x"}]}}, "Invalid filter pattern definition."),
    ):
        code, status, message = error_of(client.update_event_source_mapping, UUID=made["UUID"], **members)
        assert (code, status) == ("InvalidParameterValueException", 400)
        assert message.startswith(text)
    assert client.get_event_source_mapping(UUID=made["UUID"])["BatchSize"] == 10


# queues


@pytest.fixture
def polling(make_endpoint: Callable[..., Endpoint], moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """An endpoint whose queues are moto's, and a function."""
    monkeypatch.setattr("sandboxd.events.poller._LONG_POLL", 1)  # a mapping that changes waits for the last one
    endpoint = make_endpoint(services_endpoint=parse(moto.url), account_id=ACCOUNT, event_backoff=(0.05, 0.2))
    endpoint.create()
    return endpoint


def _bodies(endpoint: Endpoint) -> list[str]:
    records = (record for run in endpoint.scheduler.invocations for record in json.loads(run.payload)["Records"])
    return [record["body"] for record in records]


def _send(moto: Moto, arn: str, *bodies: str) -> None:
    client = moto.client("sqs")
    url = client.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    for body in bodies:
        client.send_message(QueueUrl=url, MessageBody=body)
    client.close()


def _waiting(moto: Moto, arn: str) -> int:
    client = moto.client("sqs")
    url = client.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    counts = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    client.close()
    return sum(int(counts[name]) for name in counts if name.startswith("ApproximateNumberOfMessages"))


def test_messages_of_a_queue_reach_the_function_while_its_mapping_is_enabled(polling: Endpoint, moto: Moto) -> None:
    arn, client = moto.queue("api-enabled"), polling.boto3()
    client.publish_version(FunctionName="hello")
    client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    pattern = {"Filters": [{"Pattern": '{"body": {"wanted": [true]}}'}]}
    made = client.create_event_source_mapping(EventSourceArn=arn, FunctionName="hello:live", FilterCriteria=pattern)
    assert made["State"] == "Creating"
    assert client.get_event_source_mapping(UUID=made["UUID"])["State"] == "Enabled"
    _send(moto, arn, '{"wanted": true, "n": 1}', '{"wanted": false}', "text")
    eventually(lambda: not _waiting(moto, arn))
    assert _bodies(polling) == ['{"wanted": true, "n": 1}']
    (run,) = polling.scheduler.invocations
    assert (run.function.version, run.invoked_arn) == ("1", made["FunctionArn"])
    (record,) = json.loads(run.payload)["Records"]
    assert {"eventSource": "aws:sqs", "eventSourceARN": arn, "awsRegion": "us-east-1"}.items() <= record.items()
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert client.update_event_source_mapping(UUID=made["UUID"], Enabled=False)["State"] == "Disabling"
    eventually(lambda: client.get_event_source_mapping(UUID=made["UUID"])["State"] == "Disabled")
    _send(moto, arn, '{"wanted": true, "n": 2}')
    assert client.update_event_source_mapping(UUID=made["UUID"], Enabled=True)["State"] == "Enabling"
    eventually(lambda: len(_bodies(polling)) == 2)
    client.delete_event_source_mapping(UUID=made["UUID"])
    eventually(lambda: not client.list_event_source_mappings()["EventSourceMappings"])
    client.close()


def test_no_more_mappings_are_polled_than_there_is_room_for(
    polling: Endpoint, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxd.events.sources.MOST", 1)
    arn, other, client = moto.queue("api-room"), moto.queue("api-no-room"), polling.boto3()
    first = client.create_event_source_mapping(EventSourceArn=arn, FunctionName="hello")
    refused = error_of(client.create_event_source_mapping, EventSourceArn=other, FunctionName="hello")
    assert refused[:2] == ("InvalidParameterValueException", 400)
    assert refused[2].startswith("sandboxd polls no more event source mappings")
    assert client.update_event_source_mapping(UUID=first["UUID"], BatchSize=5)["State"] == "Updating"
    second = client.create_event_source_mapping(EventSourceArn=other, FunctionName="hello", Enabled=False)
    client.update_event_source_mapping(UUID=first["UUID"], Enabled=False)
    client.update_event_source_mapping(UUID=second["UUID"], Enabled=True)
    client.close()


def test_what_was_enabled_is_polled_after_a_restart(
    polling: Endpoint, make_endpoint: Callable[..., Endpoint], moto: Moto
) -> None:
    arn, client = moto.queue("api-restart", VisibilityTimeout="3"), polling.boto3()
    made = client.create_event_source_mapping(EventSourceArn=arn, FunctionName="hello")
    client.close()
    without = make_endpoint(account_id=ACCOUNT)
    client = without.boto3()
    shown = client.get_event_source_mapping(UUID=made["UUID"])
    assert shown["State"] == "Disabled"
    assert shown["LastProcessingResult"] == "PROBLEM: the configuration names no [services] endpoint_url any more"
    client.close()
    _send(moto, arn, "a")
    again = make_endpoint(services_endpoint=parse(moto.url), account_id=ACCOUNT)
    eventually(lambda: _bodies(again) == ["a"] and not _waiting(moto, arn))


def test_a_queue_has_to_be_there_and_to_hide_messages_for_long_enough(polling: Endpoint, moto: Moto) -> None:
    client = polling.boto3()
    create = client.create_event_source_mapping
    code, status, message = error_of(create, EventSourceArn=QUEUE.replace(HERE, ACCOUNT), FunctionName="hello")
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert message.startswith("Error occurred while ReceiveMessage. SQS Error Code: ")
    short = moto.queue("api-short", VisibilityTimeout="2")
    refused = error_of(create, EventSourceArn=short, FunctionName="hello")
    assert refused[2] == "Queue visibility timeout: 2 seconds is less than Function timeout: 3 seconds"
    client.close()


def test_a_server_that_is_not_there_keeps_nobody_from_disabling(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint(services_endpoint=parse("http://127.0.0.1:1"), event_backoff=(0.05, 0.1))
    endpoint.create()
    client = endpoint.boto3()
    refused = error_of(client.create_event_source_mapping, EventSourceArn=QUEUE, FunctionName="hello")
    assert refused[:2] == ("ServiceException", 500)
    made = client.create_event_source_mapping(EventSourceArn=QUEUE, **OFF)
    assert error_of(client.update_event_source_mapping, UUID=made["UUID"], Enabled=True) == refused
    key = f"event-source-mapping:{made['UUID']}"
    document = endpoint.store.settings.get("EventSourceMapping", key)
    assert document is not None
    endpoint.run(endpoint.store.settings.put("EventSourceMapping", key, document | {"Enabled": True}))
    client.close()
    client = make_endpoint(services_endpoint=parse("http://127.0.0.1:1"), event_backoff=(0.05, 0.1)).boto3()
    eventually(lambda: "PROBLEM" in client.get_event_source_mapping(UUID=made["UUID"]).get("LastProcessingResult", ""))
    client.update_event_source_mapping(UUID=made["UUID"], Enabled=False)
    eventually(lambda: client.get_event_source_mapping(UUID=made["UUID"])["State"] == "Disabled")
    client.close()


def test_the_execution_role_has_to_allow_it(polling: Endpoint, moto: Moto) -> None:
    arn, client = moto.queue("api-role"), polling.boto3()
    client.update_function_configuration(FunctionName="hello", Role=f"arn:aws:iam::{ACCOUNT}:role/queues")
    polling.settled("hello")
    assert polling.unix("POST", "/sandboxd/v1/roles", {"RoleName": "queues"})[0] == 201

    def allow(*actions: str) -> None:
        statement = {"Effect": "Allow", "Action": [f"sqs:{action}" for action in actions], "Resource": arn}
        document = json.dumps({"Version": "2012-10-17", "Statement": statement})
        policy = {"PolicyName": "p", "PolicyDocument": document}
        assert polling.unix("PUT", "/sandboxd/v1/roles/queues/policies", policy)[0] == 204

    needed = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
    for count, action in enumerate(needed):
        if count:
            allow(*needed[:count])
        refused = error_of(client.create_event_source_mapping, EventSourceArn=arn, FunctionName="hello")
        assert refused[2] == f"The provided execution role does not have permissions to call {action} on SQS"
    allow(*needed)
    made = client.create_event_source_mapping(EventSourceArn=arn, FunctionName="hello")
    _send(moto, arn, "a")
    eventually(lambda: _bodies(polling) == ["a"])
    client.delete_event_source_mapping(UUID=made["UUID"])
    client.close()


def test_a_function_that_is_gone_gets_nothing_and_its_messages_stay(polling: Endpoint, moto: Moto) -> None:
    arn, client = moto.queue("api-gone"), polling.boto3()
    made = client.create_event_source_mapping(EventSourceArn=arn, FunctionName="hello")
    client.delete_function(FunctionName="hello")
    client.update_event_source_mapping(UUID=made["UUID"], BatchSize=5)  # polls anew
    eventually(
        lambda: (
            client.get_event_source_mapping(UUID=made["UUID"]).get("LastProcessingResult")
            == "PROBLEM: Function not found"
        )
    )
    _send(moto, arn, "a")
    assert _waiting(moto, arn) == 1
    polling.create()
    eventually(lambda: _bodies(polling) == ["a"])
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=0)
    eventually(
        lambda: "concurrency is 0" in client.get_event_source_mapping(UUID=made["UUID"]).get("LastProcessingResult", "")
    )
    _send(moto, arn, "b")
    assert _waiting(moto, arn) == 1
    client.delete_function_concurrency(FunctionName="hello")
    eventually(lambda: _bodies(polling) == ["a", "b"])
    client.close()
