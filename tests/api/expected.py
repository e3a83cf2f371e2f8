"""What a machine of hypothesis says that there is, and whether the API and the disk show just that."""

from __future__ import annotations

import http.client
import json
import random
import socket
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypothesis.stateful import RuleBasedStateMachine, invariant

from sandboxd.store.aliases import Aliases
from sandboxd.store.database import Database
from sandboxd.store.functions import Functions
from sandboxd.store.generation import Generation
from sandboxd.store.layers import Layers
from sandboxd.store.settings import Settings
from tests.api.conftest import Endpoint

ARN = "arn:aws:lambda:us-east-1:111111111111:"
FUNCTIONS, LAYERS = "/2015-03-31/functions", "/2018-10-31/layers"
LATEST = "$LATEST"
_NUMBERS = count()

NOT_FOUND, CONFLICT = (404, "ResourceNotFoundException"), (409, "ResourceConflictException")
INVALID, STALE = (400, "InvalidParameterValueException"), (412, "PreconditionFailedException")
Refusal = tuple[int, str] | None


@dataclass
class Alias:
    """What the model knows of an alias."""

    version: str
    weights: dict[str, float]
    description: str


@dataclass
class Function:
    """What the model knows of a function: `content` is what its code and configuration are made of."""

    content: dict[str, Any]
    published: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)  # content, description, by number
    last: int = 0
    aliases: dict[str, Alias] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    reserved: int | None = None
    events: dict[str, dict[str, int]] = field(default_factory=dict)  # by qualifier
    policies: dict[str, list[str]] = field(default_factory=dict)  # the statements' ids, by qualifier
    recursion: str = "Terminate"
    urls: dict[str, str] = field(default_factory=dict)  # who may, by qualifier

    def has(self, qualifier: str) -> bool:
        """Whether there is this version or alias."""
        return qualifier in ("", LATEST) or qualifier in self.published or qualifier in self.aliases

    def drop(self, qualifier: str) -> None:
        """A version or an alias goes with all that is its own."""
        for held in (self.published, self.aliases, self.events, self.policies, self.urls):
            held.pop(qualifier, None)


class Door:
    """Requests over the unix socket of an endpoint, on one connection for as long as it stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, target: str, document: Any = None) -> tuple[int, str, dict[str, Any]]:
        """Status, error code and document of an answer."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("sandboxd", timeout=60)
            self._connection.sock = socket.socket(socket.AF_UNIX)
            self._connection.sock.connect(str(self._path))
        self._connection.request(method, target, b"" if document is None else json.dumps(document).encode())
        answer = self._connection.getresponse()
        body = answer.read()
        return answer.status, answer.headers.get("x-amzn-errortype", ""), json.loads(body) if body else {}

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Expected(RuleBasedStateMachine):
    """What is expected after every step. One endpoint serves all runs; a run takes away what it made."""

    endpoint: Endpoint
    door: Door

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[str, Function] = {}
        self.layers: dict[str, list[int]] = {}
        self.layer_names = {name: f"{name}-{next(_NUMBERS)}" for name in ("x", "y")}  # no number is given twice
        self.layer_last: dict[str, int] = {}
        self.revisions: dict[str, str] = {}  # by ARN
        self.spent: set[str] = set()  # RevisionIds of before
        self.renewed: set[str] = set()  # the ARNs whose RevisionId the step had to renew
        self.random = random.Random(5)
        self.restarts = 0

    # how a step asks, and what it expects

    def ask(self, method: str, target: str, document: Any = None, refusal: Refusal = None) -> dict[str, Any]:
        status, code, answer = self.door(method, target, document)
        if refusal is None:
            assert status < 300, (method, target, document, status, answer)
        else:
            assert (status, code) == refusal, (method, target, document, status, code, answer)
        return answer

    def settle(self, name: str) -> None:
        while True:
            shown = self.ask("GET", f"{FUNCTIONS}/{name}/configuration")
            if shown["State"] != "Pending" and shown["LastUpdateStatus"] != "InProgress":
                return

    def path(self, name: str, rest: str = "", qualifier: str = "") -> str:
        return f"{FUNCTIONS}/{name}{rest}" + (f"?Qualifier={quote(qualifier)}" if qualifier else "")

    def renew(self, name: str, qualifier: str = "") -> None:
        self.renewed.add(arn(name, qualifier))

    @invariant()
    def shows_what_the_model_says(self) -> None:
        rows = self.pages(f"{FUNCTIONS}/", "Functions")
        assert [row["FunctionName"] for row in rows] == sorted(self.functions)
        every = self.pages(f"{FUNCTIONS}/?FunctionVersion=ALL", "Functions")
        assert [(row["FunctionName"], row["Version"]) for row in every] == [
            (name, number) for name in sorted(self.functions) for number in (LATEST, *self.functions[name].published)
        ]
        for row, shown in ((row, self.functions[row["FunctionName"]]) for row in rows):
            self.shows_function(row["FunctionName"], shown)
        for name in {"a", "b"} - self.functions.keys():
            self.shows_nothing(name)
        ours = {self.layer_names[layer]: numbers for layer, numbers in self.layers.items() if numbers}
        assert [row["LayerName"] for row in self.pages(LAYERS, "Layers")] == sorted(ours)
        for layer, numbers in ours.items():
            listed = self.pages(f"{LAYERS}/{layer}/versions", "LayerVersions")
            assert [row["Version"] for row in listed] == sorted(numbers, reverse=True)
        self.renewed.clear()

    def shows_function(self, name: str, function: Function) -> None:
        listed = self.pages(self.path(name, "/versions"), "Versions")
        contents = {LATEST: (function.content, function.content["description"]), **function.published}
        assert [row["Version"] for row in listed] == list(contents)
        for row in listed:
            content, description = contents[row["Version"]]
            digests = [one["Arn"] for one in row.get("Layers", ())]
            assert (row["Description"], row["MemorySize"], digests) == (
                description, content["memory"], content["layers"],
            )  # fmt: skip
            self.shows_revision(arn(name, "" if row["Version"] == LATEST else row["Version"]), row["RevisionId"])
        rows = self.pages(self.path(name, "/aliases"), "Aliases")
        assert [row["Name"] for row in rows] == sorted(function.aliases)
        for row in rows:
            alias = function.aliases[row["Name"]]
            routing = row.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
            assert (row["FunctionVersion"], row["Description"], routing) == (
                alias.version, alias.description, alias.weights,
            )  # fmt: skip
            self.shows_revision(arn(name, row["Name"]), row["RevisionId"])
        shown = self.ask("GET", self.path(name))
        assert shown.get("Tags", {}) == function.tags
        assert shown.get("Concurrency", {}).get("ReservedConcurrentExecutions") == function.reserved
        target = f"/2019-09-25/functions/{name}/event-invoke-config/list"
        configs = {
            row["FunctionArn"].split(":", 7)[7]: {member: row[member] for member in row if member.startswith("Max")}
            for row in self.pages(target, "FunctionEventInvokeConfigs")
        }
        assert configs == function.events
        for qualifier in {"", *function.published, *function.aliases}:
            wanted = function.policies.get(qualifier)
            policy = self.ask("GET", self.path(name, "/policy", qualifier), refusal=None if wanted else NOT_FOUND)
            if wanted:
                assert [row["Sid"] for row in json.loads(policy["Policy"])["Statement"]] == wanted
        urls = self.pages(f"/2021-10-31/functions/{name}/urls", "FunctionUrlConfigs")
        assert [(row["FunctionArn"], row["AuthType"]) for row in urls] == [
            (arn(name, qualifier), auth) for qualifier, auth in sorted(function.urls.items())
        ]
        for row in urls:
            found = self.endpoint.api._urls._places.find(row["FunctionUrl"].removeprefix("http://").partition(".")[0])
            assert found is not None and found[1].function == name
        kept = self.ask("GET", f"/2024-08-31/functions/{name}/recursion-config")
        assert kept["RecursiveLoop"] == function.recursion

    def shows_nothing(self, name: str) -> None:
        """Nothing at all of what is deleted."""
        events = f"/2019-09-25/functions/{name}/event-invoke-config"
        own = ("", "/configuration", "/versions", "/aliases", "/policy", "/aliases/blue", "/policy?Qualifier=1")
        for target in (
            *(self.path(name, rest) for rest in own),
            f"/2019-09-30/functions/{name}/concurrency",
            f"/2024-08-31/functions/{name}/recursion-config",
            f"/2017-03-31/tags/{quote(arn(name), safe='')}",
            events,
            f"{events}/list",
        ):
            self.ask("GET", target, refusal=NOT_FOUND)

    def shows_revision(self, of: str, revision: str) -> None:
        """Another one exactly where the step changed something, and none that ever was."""
        before = self.revisions.get(of)
        if before is not None:
            assert (revision != before) == (of in self.renewed), (of, before, revision)
        if revision != before:
            assert revision not in self.spent
            self.spent.update({before} if before else ())
            self.revisions[of] = revision

    def pages(self, target: str, member: str) -> list[dict[str, Any]]:
        """A list, by pages of any size, none of which is empty but a last one."""
        rows: list[dict[str, Any]] = []
        marker, size = "", self.random.randint(1, 5)
        while True:
            query = f"MaxItems={size}" + (f"&Marker={quote(marker, safe='')}" if marker else "")
            answer = self.ask("GET", target + ("&" if "?" in target else "?") + query)
            assert len(answer[member]) <= size
            rows += answer[member]
            if "NextMarker" not in answer:
                return rows
            marker = answer["NextMarker"]
            assert len(answer[member]) == size

    @invariant()
    def is_on_disk(self) -> None:
        store = self.endpoint.store
        beside = Database(self.endpoint.config.service_dir / "sandboxd.db")
        try:
            functions, kept, settings = Functions(beside), Aliases(beside), Settings(beside, Generation())
            assert functions._described == store.functions._described == functions._serving
            assert store.functions._serving == functions._serving
            assert functions._published == store.functions._published
            assert functions._packages == store.functions._packages
            assert whole(kept._aliases) == whole(store.aliases._aliases)
            assert kept._decks.keys() == store.aliases._decks.keys()
            assert whole(settings._documents) == whole(store.settings._documents)
            assert whole(Layers(beside)._versions) == whole(store.layers._versions)
        finally:
            beside.close()

    def missing(self, name: str) -> Refusal:
        return None if name in self.functions else NOT_FOUND

    def layer_arn(self, layer: str, number: int) -> str:
        return f"{ARN}layer:{self.layer_names[layer]}:{number}"

    def teardown(self) -> None:
        for name in ("a", "b"):
            self.door("DELETE", self.path(name))
        for layer, numbers in self.layers.items():
            for number in numbers:
                self.door("DELETE", f"{LAYERS}/{self.layer_names[layer]}/versions/{number}")


def arn(name: str, qualifier: str = "") -> str:
    return f"{ARN}function:{name}" + (f":{qualifier}" if qualifier else "")


def whole(held: Any) -> Any:
    """Without the maps that have become empty, all the way down."""
    if not isinstance(held, dict):
        return held
    return {key: inner for key, inner in ((key, whole(value)) for key, value in held.items()) if inner != {}}
