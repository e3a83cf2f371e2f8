"""Access keys: made by the command line, used by clients, shown without their secret, gone when deleted."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.support.daemon import Daemon


def test_made_used_listed_deleted(daemon: Daemon) -> None:
    done = daemon.cli("key", "create", "--output", "json")
    assert done.returncode == 0, done.stderr
    key = json.loads(done.stdout)
    client = daemon.boto3(key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    client.list_functions()
    listed = daemon.cli("key", "list", "--output", "json").stdout
    assert key["AccessKeyId"] in listed and key["SecretAccessKey"] not in listed
    assert key["SecretAccessKey"] not in daemon.log()
    assert daemon.cli("key", "delete", key["AccessKeyId"]).returncode == 0
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        client.list_functions()
    assert key["AccessKeyId"] not in daemon.cli("key", "list").stdout


def test_deleting_a_key_that_is_not_there(daemon: Daemon) -> None:
    done = daemon.cli("key", "delete", "AKIAXXXXXXXXXXXXXXXX")
    assert done.returncode == 1 and "Traceback" not in done.stderr
