"""Event source mappings: their records, and which of them are polled.

Room: service. May: change the store, begin and end pollers.

Queues of SQS are polled where the configuration names an endpoint of services. A mapping that nobody polls is kept
while it is disabled, as its owner asked for; that it is enabled is refused, by name.
Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

from sandboxd.api.authorize import Authorizer
from sandboxd.api.calls import Call, Operations, Result
from sandboxd.api.errors import invalid_parameter, not_offered_member
from sandboxd.api.event_source_kinds import (
    KIND,
    POSITIONS,
    PREFIX,
    SQS,
    check_queue_is_here,
    check_settings,
    kind_of,
    parse_filters,
)
from sandboxd.api.event_source_target import QUEUE_ACTIONS, Run, SourceTarget
from sandboxd.api.names import Names
from sandboxd.api.pages import page, read_marker
from sandboxd.api.protocols import Sources
from sandboxd.api.service_model import ServiceModel
from sandboxd.api.tags import check_tags
from sandboxd.api.tasks import Tasks
from sandboxd.errors import ApiError, SandboxdError
from sandboxd.model.arn import parse_function_reference
from sandboxd.model.function import FunctionVersion
from sandboxd.model.queue_batch import QueueSource
from sandboxd.services.signed import ServiceError
from sandboxd.store.settings import Document
from sandboxd.store.store import Store

_LARGEST = 100  # https://docs.aws.amazon.com/lambda/latest/api/API_ListEventSourceMappings.html
_OWN = ("UUID", "FunctionName", "Enabled", "Tags")  # members that are no settings of the source's
_CLEARED_BY_NOTHING = ("FilterCriteria", "ScalingConfig")


def prepare_model(model: ServiceModel) -> None:
    """Values in AWS's order."""
    model.shape("EventSourcePosition").enum = POSITIONS


class EventSourcesApi:
    """The operations on event source mappings. `begin` polls those that were enabled before the start."""

    def __init__(
        self,
        store: Store,
        names: Names,
        authorizer: Authorizer,
        sources: Sources,
        run: Run,
        tasks: Tasks,
        concurrency: int,
    ) -> None:
        self._store, self._settings, self._names = store, store.settings, names
        self._authorizer, self._sources, self._run = authorizer, sources, run
        self._tasks, self._concurrency = tasks, concurrency
        self._changing = asyncio.Lock()

    def operations(self) -> Operations:
        """What the model's operations are done by."""
        return {
            "CreateEventSourceMapping": self.create_event_source_mapping,
            "DeleteEventSourceMapping": self.delete_event_source_mapping,
            "GetEventSourceMapping": self.get_event_source_mapping,
            "ListEventSourceMappings": self.list_event_source_mappings,
            "UpdateEventSourceMapping": self.update_event_source_mapping,
        }

    @property
    def some(self) -> bool:
        """Whether there is any."""
        return any(self._settings.every(KIND))

    def begin(self) -> None:
        """Poll what is enabled, and finish what was being deleted."""
        for _, _, document in self._settings.every(KIND):
            if document["Deleting"]:
                self._tasks.start(self._remove(document))
            else:
                self._apply(document)

    async def create_event_source_mapping(self, call: Call) -> Result:
        """CreateEventSourceMapping."""
        given = _settings(call.members)
        kind = kind_of(given)
        settings = {**kind.defaults, **given}
        check_settings(kind, settings)
        check_tags(call.members.get("Tags", {}))
        identifier = str(uuid.uuid4())
        document = {
            "UUID": identifier,
            "FunctionArn": self._function(call.members, "CreateEventSourceMapping"),
            "Enabled": call.members.get("Enabled", True),
            "Deleting": False,
            "LastModified": time.time(),
            "Settings": settings,
        }
        await self._check_source(document)
        async with self._changing:
            self._check_new(document)
            self._check_room(document)
            tags = call.members.get("Tags")
            await self._put(document, {"Tags": tags} if tags else {})
        return Result(202, self._describe(document, "Creating"))

    async def get_event_source_mapping(self, call: Call) -> Result:
        """GetEventSourceMapping."""
        return Result(200, self._describe(self._found(call.members)))

    async def list_event_source_mappings(self, call: Call) -> Result:
        """ListEventSourceMappings: of a function, version or alias, of a source, of both, or all."""
        after, source = read_marker(call.members), call.members.get("EventSourceArn")
        function = None
        if "FunctionName" in call.members:
            function = self._names.arn(
                *self._names.resolve(call.members["FunctionName"], None, "ListEventSourceMappings")
            )
        rest = (
            document
            for key, _, document in self._settings.every(KIND)
            if key > after
            and source in (None, document["Settings"].get("EventSourceArn"))
            and function in (None, document["FunctionArn"])
        )
        found, more = page(rest, call.members, lambda document: PREFIX + document["UUID"], _LARGEST)
        return Result(200, {"EventSourceMappings": [self._describe(document) for document in found]} | more)

    async def update_event_source_mapping(self, call: Call) -> Result:
        """UpdateEventSourceMapping: what the request leaves out stays."""
        changed = self._changed(call.members)
        await self._check_source(changed)
        async with self._changing:
            before, changed = self._found(call.members), self._changed(call.members)
            self._check_room(changed)
            await self._put(changed)
        if changed["Enabled"] == before["Enabled"]:
            return Result(202, self._describe(changed, "Updating"))
        return Result(202, self._describe(changed, "Enabling" if changed["Enabled"] else "Disabling"))

    async def delete_event_source_mapping(self, call: Call) -> Result:
        """DeleteEventSourceMapping: it is gone when what was taken from its source is over."""
        async with self._changing:
            document = self._found(call.members)
            if document["Deleting"]:
                raise _in_use("delete")
            document = document | {"Deleting": True, "LastModified": time.time()}
            await self._put(document)
        self._tasks.start_patient(self._remove(document))
        return Result(202, self._describe(document, "Deleting"))

    # records

    def _found(self, members: Mapping[str, Any]) -> Document:
        document = self._settings.get(KIND, PREFIX + members["UUID"])
        if document is None:
            raise ApiError("ResourceNotFoundException", "The resource you requested does not exist.", 404)
        return document

    def _changed(self, members: Mapping[str, Any]) -> Document:
        """What a mapping is to be. Raises ApiError."""
        document = self._found(members)
        if document["Deleting"]:
            raise _in_use("update")
        settings = {**document["Settings"], **_settings(members)}
        for member in _CLEARED_BY_NOTHING:
            if not any(settings.get(member, {}).values()):
                settings.pop(member, None)
        check_settings(kind_of(settings), settings)
        changed = document | {"Settings": settings, "LastModified": time.time()}
        if "FunctionName" in members:
            changed["FunctionArn"] = self._function(members, "UpdateEventSourceMapping")
        if "Enabled" in members:
            changed["Enabled"] = members["Enabled"]
        return changed

    async def _put(self, document: Document, others: Mapping[str, Document] | None = None) -> None:
        key, documents = PREFIX + document["UUID"], {KIND: document, **(others or {})}
        await self._store.database.write(lambda c: self._settings.put_rows(c, key, documents))
        self._settings.show(key, documents)
        self._apply(document)

    async def _remove(self, document: Document) -> None:
        await self._sources.ended(document["UUID"])
        key = PREFIX + document["UUID"]
        await self._store.database.write(lambda c: self._settings.delete_rows(c, key))
        self._settings.forget(key)

    def _apply(self, document: Document) -> None:
        identifier, settings = document["UUID"], document["Settings"]
        if not document["Enabled"] or document["Deleting"] or not self._sources.offered:
            self._sources.stop(identifier)
            return
        arn = settings["EventSourceArn"]
        source = QueueSource(
            arn,
            settings["BatchSize"],
            settings["MaximumBatchingWindowInSeconds"],
            settings.get("ScalingConfig", {}).get("MaximumConcurrency", self._concurrency),
            bool(settings["FunctionResponseTypes"]),
            parse_filters(settings),
        )
        target = SourceTarget(self._store, self._authorizer, self._run, document["FunctionArn"], arn)
        self._sources.poll(identifier, source, target)

    def _describe(self, document: Document, state: str = "") -> dict[str, Any]:
        """AWS's EventSourceMappingConfiguration."""
        identifier, kind = document["UUID"], kind_of(document["Settings"])
        own = {name: document[name] for name in ("UUID", "FunctionArn", "LastModified")}
        arn = f"arn:aws:lambda:{self._names.region}:{self._names.account}:{PREFIX}{identifier}"
        own |= {"EventSourceMappingArn": arn, "StateTransitionReason": kind.reason}
        problem = self._sources.problem(identifier)
        if document["Enabled"] and not self._sources.offered:
            problem = "the configuration names no [services] endpoint_url any more"
        if problem or kind.processed:
            own["LastProcessingResult"] = f"PROBLEM: {problem}" if problem else "No records processed"
        return {**document["Settings"], **own, "State": state or self._state(document)}

    def _state(self, document: Document) -> str:
        if document["Deleting"]:
            return "Deleting"
        settling = self._sources.settling(document["UUID"])
        if document["Enabled"] and self._sources.offered:
            return "Updating" if settling else "Enabled"
        return "Disabling" if settling else "Disabled"

    # checks

    def _function(self, members: Mapping[str, Any], action: str) -> str:
        """The ARN of the function, version or alias that a mapping is to have. Raises ApiError."""
        name, qualifier = self._names.resolve(members["FunctionName"], None, action)
        arn = self._names.arn(name, qualifier)
        if self._version(arn) is None:
            raise invalid_parameter("Function does not exist")
        return arn

    def _version(self, arn: str) -> FunctionVersion | None:
        reference = parse_function_reference(arn)
        assert reference is not None
        number = self._store.aliases.version(reference.name, reference.qualifier) if reference.qualifier else None
        return self._store.functions.described(reference.name, number or reference.qualifier)

    async def _check_source(self, document: Document) -> None:
        """Raise ApiError where nobody would poll what is enabled, or the function may not have it."""
        settings = document["Settings"]
        kind = kind_of(settings)
        if kind is SQS:
            check_queue_is_here(settings["EventSourceArn"], self._names.region, self._names.account)
        if not document["Enabled"]:  # that is possible whatever became of queue and function
            return
        if kind is SQS and self._sources.offered:
            await self._check_queue(settings["EventSourceArn"], self._version(document["FunctionArn"]))
        else:
            why = "without [services] endpoint_url in its configuration " if kind is SQS else ""
            raise not_offered_member(f"{why}event source mappings of {kind.name} that are enabled (Enabled=false is)")

    async def _check_queue(self, arn: str, version: FunctionVersion | None) -> None:
        if version is None:  # deleted since: what is changed now is to change that
            return
        for action in QUEUE_ACTIONS:
            if not self._authorizer.may(version, f"sqs:{action}", arn):
                text = f"The provided execution role does not have permissions to call {action} on SQS"
                raise invalid_parameter(text)
        try:
            attributes = await self._sources.attributes(arn)
            hidden = int(attributes.get("VisibilityTimeout", 30))
        except ServiceError as error:
            raise invalid_parameter(
                f"Error occurred while ReceiveMessage. SQS Error Code: {error.code}. SQS Error Message: {error.message}"
            ) from None
        except (OSError, ValueError, SandboxdError) as error:
            raise ApiError(
                "ServiceException", f"The queues' endpoint does not answer: {error}", 500, fault="Service"
            ) from None
        if hidden < version.timeout:
            raise invalid_parameter(
                f"Queue visibility timeout: {hidden} seconds is less than Function timeout: {version.timeout} seconds"
            )

    def _check_new(self, document: Document) -> None:
        """Raise ResourceConflictException where a mapping of the same source and function is there."""
        for _, _, other in self._settings.every(KIND):
            if other["FunctionArn"] == document["FunctionArn"] and _same(other["Settings"], document["Settings"]):
                raise ApiError("ResourceConflictException", _exists(other, document), 409)

    def _check_room(self, document: Document) -> None:
        polled = document["Enabled"] and self._sources.offered
        if polled and self._sources.full and not self._sources.polls(document["UUID"]):
            raise invalid_parameter("sandboxd polls no more event source mappings at one time: disable another one")


def _settings(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in _OWN}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if "EventSourceArn" in one:
        return bool(one["EventSourceArn"] == other.get("EventSourceArn"))
    return bool(_servers(one) & _servers(other)) and bool({*one["Topics"]} & {*other["Topics"]})


def _servers(settings: Mapping[str, Any]) -> set[str]:
    endpoints = settings.get("SelfManagedEventSource", {}).get("Endpoints", {})
    return set(endpoints.get("KAFKA_BOOTSTRAP_SERVERS", ()))


def _exists(other: Document, document: Document) -> str:
    """AWS words it anew for each kind."""
    settings, arn = document["Settings"], document["FunctionArn"]
    reference = parse_function_reference(arn)
    assert reference is not None
    end = f"already exists. Please update or delete the existing mapping with UUID {other['UUID']}"
    if "SelfManagedEventSource" in settings:
        servers, topics = ",".join(sorted(_servers(settings))), ",".join(settings["Topics"])
        return f'An event source mapping with event source ("{servers}"), function ("{arn}"), topics ("{topics}") {end}'
    source = settings["EventSourceArn"]
    if kind_of(settings) is SQS:
        return f'An event source mapping with SQS arn (" {source} ") and function (" {reference.name} ") {end}'
    return f'The event source arn (" {source} ") and function (" {reference.name} ") provided mapping {end}'


def _in_use(verb: str) -> ApiError:
    return ApiError("ResourceInUseException", f"Cannot {verb} the event source mapping because it is in use.")
