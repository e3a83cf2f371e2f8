"""A moto server on loopback: S3, SQS and SNS for the tests of neighbouring services."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any

import boto3
from botocore.config import Config as ClientConfig

from tests.support.places import TIME_FACTOR

ACCOUNT = "123456789012"  # whose everything at a moto server is


class Moto:
    """One server, in a process of its own; ends with the block."""

    def __enter__(self) -> Moto:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60 * TIME_FACTOR
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "moto does not start"
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """boto3's client of one of its services."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=ClientConfig(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
        )

    def queue(self, name: str, region: str = "us-east-1", **attributes: str) -> str:
        """The ARN of a new queue."""
        client = self.client("sqs", region)
        client.create_queue(QueueName=name, Attributes=attributes)
        client.close()
        return f"arn:aws:sqs:{region}:{ACCOUNT}:{name}"

    def messages(self, arn: str) -> list[dict[str, Any]]:
        """What waits in a queue, taken out of it."""
        _, _, _, region, _, name = arn.split(":")
        client = self.client("sqs", region)
        url = client.get_queue_url(QueueName=name)["QueueUrl"]
        found: list[dict[str, Any]] = []
        while rows := client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        ).get("Messages"):
            found += rows
            for row in rows:
                client.delete_message(QueueUrl=url, ReceiptHandle=row["ReceiptHandle"])
        client.close()
        return found

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/moto-api/data.json")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
