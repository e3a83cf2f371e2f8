"""Plays scenarios: asks what AWS was asked, and notes at each recorded step what became of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from tests.api.conftest import ROLE, Endpoint, package
from tests.aws.answers import Comparison, Differs, Steps
from tests.support.moto import Moto

FUNCTION = "fn"
BUCKET = "recorded-scenarios"
ARN = "arn:aws:lambda:us-east-1:111111111111:function:"
ECHO, VERSION = package(), package("def handler(event, context):\n    return context.function_version\n")


class Answer(dict[str, Any]):
    """An answer, or an error's response; what a step could not learn is known by no name."""

    def __missing__(self, name: str) -> str:
        return "unknown"


class Stage:
    """One endpoint for many scenarios. A change there is over when a scenario waits for it, not before, so that what
    AWS shows meanwhile is there to be seen.
    """

    def __init__(self, endpoint: Endpoint, moto: Moto) -> None:
        self.endpoint, self.s3 = endpoint, moto.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        self.client, self.strict = endpoint.boto3(), endpoint.boto3(parameter_validation=True)
        self._over = endpoint.run(_event())
        settle = endpoint.store.functions.settle

        async def settle_later(*versions: Any) -> None:
            await self._over.wait()
            await settle(*versions)

        endpoint.store.functions.settle = settle_later  # type: ignore[method-assign]
        for number, index in enumerate(sorted(endpoint.config.images_dir.glob("*.json"))):
            about = json.loads(index.read_text())  # each recorded runtime has a digest of its own
            index.write_text(json.dumps(about | {"digest": f"{number:064x}"}))
        endpoint.unix("POST", "/sandboxd/v1/images/refresh")

    def settle(self) -> None:
        """Every change under way comes to its end."""
        self.endpoint.run(_call(self._over.set))
        for function in self.client.list_functions()["Functions"]:
            self.endpoint.settled(function["FunctionName"])
        self.endpoint.run(_call(self._over.clear))

    def clear(self) -> None:
        """Remove every function."""
        self.settle()
        for function in self.client.list_functions()["Functions"]:
            self.client.delete_function(FunctionName=function["FunctionName"])

    def close(self) -> None:
        """Let what is under way end, and the endpoint be stopped."""
        self.endpoint.run(_call(self._over.set))
        self.client.close(), self.strict.close(), self.s3.close()


class Player:
    """One scenario's play. `outcomes` says of each recorded step how it differs; nothing, where it does not."""

    def __init__(self, stage: Stage, recorded: Steps) -> None:
        self._stage, self.recorded, self._comparison = stage, recorded, Comparison()
        self.outcomes: dict[str, str] = dict.fromkeys(recorded, "it was not asked for")

    def ask(self, operation: str, /, **members: Any) -> Answer:
        """Call an operation; an error is an answer too. With `strict` the client checks before it asks."""
        client = self._stage.strict if members.pop("strict", False) else self._stage.client
        try:
            if client.can_paginate(operation) and "PaginationConfig" in members:
                return Answer(client.get_paginator(operation).paginate(**members).build_full_result())
            return Answer(getattr(client, operation)(**members))
        except ClientError as error:
            return Answer(error.response)
        except ParamValidationError as error:
            return Answer(text=str(error))

    def step(self, step: str, operation: str, /, **members: Any) -> Answer:
        """Call an operation, and compare the answer with the one recorded under `step`."""
        answer = self.ask(operation, **members)
        self.note(step, answer.get("text", answer))
        return answer

    def note(self, step: str, answer: Any) -> None:
        """Compare what was made of an answer with what is recorded under `step`, if anything is."""
        if step not in self.recorded:
            return
        try:
            self._comparison.check(self.recorded[step], answer)
        except Differs as error:
            self.outcomes[step] = str(error)
        else:
            self.outcomes[step] = ""

    def create(self, step: str = "", name: str = FUNCTION, /, **members: Any) -> Answer:
        """CreateFunction as most scenarios do, and wait until the function is active."""
        standing = {"Handler": "handler.handler", "Timeout": 30, "Environment": {"Variables": {}}}
        return self.create_bare(step, name, **standing | members)

    def create_bare(self, step: str = "", name: str = FUNCTION, /, **members: Any) -> Answer:
        """CreateFunction with nothing that is not necessary, and wait until the function is active."""
        standing = {"Runtime": "python3.12", "Handler": "index.handler", "Role": ROLE, "Code": {"ZipFile": ECHO}}
        members = {"FunctionName": name} | standing | members
        answer = self.step(step, "create_function", **members) if step else self.ask("create_function", **members)
        self.wait()
        return answer

    def put(self, key: str, body: bytes) -> None:
        """An object in the bucket."""
        self._stage.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def wait(self) -> None:
        """Wait until nothing is being created or updated."""
        self._stage.settle()


async def _event() -> asyncio.Event:
    return asyncio.Event()


async def _call(function: Any) -> None:
    function()
