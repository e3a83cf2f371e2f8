"""The function of an event source mapping, as its poller runs it.

Room: service. May: read the store's maps, run invocations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sandboxd.api.authorize import Authorizer
from sandboxd.api.errors import function_not_found, in_state
from sandboxd.api.invoke import new_request_id, new_trace_id
from sandboxd.model.arn import parse_function_reference
from sandboxd.model.function import FunctionVersion
from sandboxd.model.invocation import Invocation, InvocationResult
from sandboxd.store.store import Store

Run = Callable[[Invocation], Awaitable[InvocationResult]]

# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html, "Setting up Lambda permissions"
QUEUE_ACTIONS = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")


class SourceTarget:
    """A function, version or alias, by its ARN, and the queue that its role has to allow."""

    def __init__(self, store: Store, authorizer: Authorizer, run: Run, arn: str, queue: str) -> None:
        self._store, self._authorizer, self._run, self._arn, self._queue = store, authorizer, run, arn, queue
        reference = parse_function_reference(arn)
        assert reference is not None
        self._name, self._qualifier = reference.name, reference.qualifier

    def problem(self) -> str:
        """Why nothing can be run now, or nothing."""
        number = self._store.aliases.version(self._name, self._qualifier) if self._qualifier else None
        version = self._store.functions.resolve(self._name, number or self._qualifier)
        if version is None:
            return "Function not found"
        if version.state != "Active":
            return f"The function is in the state {version.state}"
        reserved = self._store.settings.get("Concurrency", self._name) or {}
        if reserved.get("ReservedConcurrentExecutions") == 0:
            return "The function's reserved concurrency is 0"
        for action in QUEUE_ACTIONS:
            if not self._authorizer.may(version, f"sqs:{action}", self._queue):
                return f"The execution role does not have permissions to call {action} on SQS"
        return ""

    async def run(self, payload: bytes) -> InvocationResult:
        """Run it once. Raises ApiError where it did not run."""
        version = self._version()
        if version.state != "Active":
            raise in_state(version.state)
        return await self._run(Invocation(new_request_id(), version, self._arn, payload, trace_id=new_trace_id(None)))

    def _version(self) -> FunctionVersion:
        """The version that runs this time, drawn by an alias's weights. Raises ApiError."""
        number = self._store.aliases.draw(self._name, self._qualifier) if self._qualifier else None
        version = self._store.functions.resolve(self._name, number or self._qualifier)
        if version is None:
            raise function_not_found(self._arn)
        return version
