"""S3, SQS and SNS against a real server of them: what boto3 put there comes, and the other way around."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from sandboxd.config import Config
from sandboxd.model.endpoint import parse
from sandboxd.services import Neighbours
from sandboxd.services.s3 import S3, S3Object
from sandboxd.services.signed import ServiceError
from sandboxd.services.sns import Sns
from sandboxd.services.sqs import Sqs
from tests.support.moto import ACCOUNT, Moto

REGION = "eu-central-1"


def neighbours(moto: Moto, region: str = "us-east-1") -> tuple[S3, Sqs, Sns]:
    found = Neighbours(Config(services_endpoint=parse(moto.url), region=region))
    assert found.s3 is not None and found.sqs is not None and found.sns is not None
    return found.s3, found.sqs, found.sns


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(main())


async def fetch(s3: S3, wanted: S3Object) -> tuple[str, bytes]:
    async with s3.get(wanted) as answer:
        return answer.headers["content-length"], b"".join([piece async for piece in answer.pieces()])


@pytest.fixture(scope="module")
def bucket(moto: Moto) -> str:
    client = moto.client("s3")
    client.create_bucket(Bucket="objects")
    client.put_bucket_versioning(Bucket="objects", VersioningConfiguration={"Status": "Enabled"})
    client.close()
    return "objects"


@pytest.mark.parametrize("key", ["code.zip", "a/b c/ü+%2F?x=1&y#z.zip", "~._-!*'()", "a//b", "..a/b../..."])
def test_an_object_of_any_name(moto: Moto, bucket: str, key: str) -> None:
    client = moto.client("s3")
    client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    client.close()
    assert run(fetch(neighbours(moto)[0], S3Object(bucket, key))) == (str(len(key.encode())), key.encode())


def test_a_large_object_comes_in_pieces(moto: Moto, bucket: str) -> None:
    body = hashlib.shake_128(b"large").digest(5_000_000)
    client = moto.client("s3")
    client.put_object(Bucket=bucket, Key="large", Body=body)
    client.close()

    async def sizes() -> list[int]:
        async with neighbours(moto)[0].get(S3Object(bucket, "large")) as answer:
            return [len(piece) async for piece in answer.pieces()]

    found = run(sizes())
    assert sum(found) == len(body) and max(found) <= 65_536


def test_a_version_of_an_object(moto: Moto, bucket: str) -> None:
    client = moto.client("s3")
    versions = [client.put_object(Bucket=bucket, Key="v", Body=body)["VersionId"] for body in (b"one", b"two")]
    client.close()
    s3 = neighbours(moto)[0]
    found = [run(fetch(s3, S3Object(bucket, "v", version)))[1] for version in (*versions, None)]
    assert found == [b"one", b"two", b"two"]


@pytest.mark.parametrize(
    ("wanted", "code", "message"),
    [
        (S3Object("no-such-bucket", "k"), "NoSuchBucket", "The specified bucket does not exist"),
        (S3Object("objects", "none"), "NoSuchKey", "The specified key does not exist."),
    ],
)
def test_what_is_not_there(moto: Moto, bucket: str, wanted: S3Object, code: str, message: str) -> None:
    with pytest.raises(ServiceError) as raised:
        run(fetch(neighbours(moto)[0], wanted))
    assert (raised.value.code, raised.value.message, raised.value.status) == (code, message, 404)


@pytest.mark.parametrize("key", ["../other/key", "a/../../other/key", "a/./b", "..", "."])
def test_a_key_that_leads_elsewhere_is_not_asked_for(key: str) -> None:
    with pytest.raises(ValueError, match="segment"):
        S3Object("objects", key).target  # noqa: B018


def test_queues_by_their_arn_in_any_region(moto: Moto) -> None:
    arn = moto.queue("there", REGION)
    sqs = neighbours(moto)[1]
    attributes = {"RequestID": {"DataType": "String", "StringValue": "1"}}
    assert run(sqs.send(arn, '{"a": "ü"}', attributes))
    (message,) = run(sqs.receive(arn, wait=0))
    assert message["Body"] == '{"a": "ü"}'
    assert message["MessageAttributes"]["RequestID"]["StringValue"] == "1"
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert run(sqs.receive(arn, wait=0)) == []
    assert run(sqs.hide(arn, [message["ReceiptHandle"]], 0)) == []
    (again,) = run(sqs.receive(arn, wait=0, visibility=100))
    assert run(sqs.delete(arn, [again["ReceiptHandle"], "none of theirs"])) == ["none of theirs"]
    assert run(sqs.attributes(arn))["ApproximateNumberOfMessages"] == "0"
    assert run(sqs.delete(arn, [])) == []


def test_a_queue_that_was_made_anew_is_found_again(moto: Moto) -> None:
    sqs, client = neighbours(moto)[1], moto.client("sqs")

    async def send(arn: str) -> None:
        await sqs.send(arn, "1")
        client.delete_queue(QueueUrl=f"{moto.url}/{ACCOUNT}/anew")
        with pytest.raises(ServiceError, match="QueueDoesNotExist"):
            await sqs.send(arn, "2")
        moto.queue("anew")
        await sqs.send(arn, "3")

    arn = moto.queue("anew")
    run(send(arn))
    client.close()
    assert [message["Body"] for message in moto.messages(arn)] == ["3"]


def test_a_queue_of_another_account_is_not_taken_for_it(moto: Moto) -> None:
    arn = moto.queue("somebody-s").replace(ACCOUNT, "210987654321")
    with pytest.raises(OSError, match="no queue somebody-s of the account 210987654321"):
        run(neighbours(moto)[1].send(arn, "1"))


def test_a_topic(moto: Moto) -> None:
    queue, client = moto.queue("subscribed"), moto.client("sns")
    topic = client.create_topic(Name="topic")["TopicArn"]
    client.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    client.close()
    sns = neighbours(moto)[2]
    run(sns.publish(topic, '{"a": "ü&=+"}', {"ErrorCode": {"DataType": "Number", "StringValue": "200"}}))
    (message,) = moto.messages(queue)
    told = json.loads(message["Body"])
    assert told["Message"] == '{"a": "ü&=+"}' and told["MessageAttributes"]["ErrorCode"]["Value"] == "200"
    with pytest.raises(ServiceError, match="NotFound"):
        run(sns.publish(topic + "-none", "1"))


def test_without_an_endpoint_there_are_none(tmp_path: Path) -> None:
    found = Neighbours(Config())
    assert (found.s3, found.sqs, found.sns) == (None, None, None)
