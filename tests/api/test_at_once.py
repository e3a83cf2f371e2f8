"""Any two changes of a function at once: what is left is as if one had come after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from sandboxd.api.calls import Call
from sandboxd.errors import ApiError
from sandboxd.model.arn import LATEST
from sandboxd.store.aliases import Aliases
from sandboxd.store.database import Database
from sandboxd.store.functions import Functions
from sandboxd.store.generation import Generation
from sandboxd.store.settings import Settings
from tests.api.conftest import ROLE, Endpoint, package

Operation = tuple[str, dict[str, Any]]
F = {"FunctionName": "?"}  # the run's, as what other questions there are
LIVE, TWO = {"Name": "live"}, {"FunctionVersion": "2"}
PERMIT = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "*"}
PROVISION = {"ProvisionedConcurrentExecutions": 2}
RETRY = {"MaximumRetryAttempts": 1}
TAGGED, SIGNING = {"Resource": "?"}, {"CodeSigningConfigArn": "?"}

CHANGES: dict[str, Operation] = {
    "create function": ("CreateFunction", F | {
        "Runtime": "python3.12", "Handler": "h.h", "Role": ROLE, "Code": {"ZipFile": package()}, "Tags": {"a": "b"},
        "Publish": True,
    }),
    "delete function": ("DeleteFunction", F),
    "delete version 2": ("DeleteFunction", F | {"Qualifier": "2"}),
    "update code": ("UpdateFunctionCode", F | {"ZipFile": package("third"), "Publish": True}),
    "update configuration": ("UpdateFunctionConfiguration", F | {"Timeout": 5}),
    "publish": ("PublishVersion", F),
    "create alias": ("CreateAlias", F | TWO | {"Name": "new"}),
    "move alias": ("UpdateAlias", F | LIVE | TWO),
    "weigh alias": ("UpdateAlias", F | LIVE | {"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}}),
    "delete alias": ("DeleteAlias", F | LIVE),
    "reserve": ("PutFunctionConcurrency", F | {"ReservedConcurrentExecutions": 3}),
    "provision alias": ("PutProvisionedConcurrencyConfig", F | PROVISION | {"Qualifier": "live"}),
    "provision version": ("PutProvisionedConcurrencyConfig", F | PROVISION | {"Qualifier": "2"}),
    "event config": ("PutFunctionEventInvokeConfig", F | RETRY),
    "event config of alias": ("PutFunctionEventInvokeConfig", F | RETRY | {"Qualifier": "live"}),
    "delete event config": ("DeleteFunctionEventInvokeConfig", F | {"Qualifier": "live"}),
    "tag": ("TagResource", TAGGED | {"Tags": {"k": "v"}}),
    "permit": ("AddPermission", F | PERMIT),
    "permit alias": ("AddPermission", F | PERMIT | {"Qualifier": "live"}),
    "permit nothing": ("RemovePermission", F | {"StatementId": "old", "Qualifier": "live"}),
    "loops": ("PutFunctionRecursionConfig", F | {"RecursiveLoop": "Allow"}),
    "sign": ("PutFunctionCodeSigningConfig", F | SIGNING),
    "url of alias": ("CreateFunctionUrlConfig", F | {"AuthType": "NONE", "Qualifier": "live"}),
    "sign nothing": ("DeleteFunctionCodeSigningConfig", F),
    "delete signing": ("DeleteCodeSigningConfig", SIGNING),
}  # fmt: skip


class Bench:
    """One endpoint, on which a function is made for every pair, and taken away."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.store = endpoint, endpoint.store
        self.numbers = count()
        self.name = self.signing = ""

    async def do(self, change: Operation) -> dict[str, Any] | ApiError:
        """What it answers; any exception but the API's own is a fault."""
        operation, members = change
        arn = f"arn:aws:lambda:us-east-1:111111111111:function:{self.name}"
        ours = {"FunctionName": self.name, "Resource": arn, "CodeSigningConfigArn": self.signing}
        members = {key: ours[key] if value == "?" else value for key, value in members.items()}
        try:
            return (
                await self.endpoint.api._accounts.own.operations[operation](Call(members, "http://localhost"))
            ).document or {}
        except ApiError as error:
            return error

    async def settled(self) -> None:
        while self.endpoint.api._tasks._ending:
            await asyncio.wait(self.endpoint.api._tasks._ending)

    async def begin(self) -> None:
        """A function with versions 1 and 2, the alias live, and a little of everything."""
        self.name = f"f{next(self.numbers)}"
        created = await self.do(("CreateCodeSigningConfig", {"AllowedPublishers": {"SigningProfileVersionArns": []}}))
        assert isinstance(created, dict)
        self.signing = created["CodeSigningConfig"]["CodeSigningConfigArn"]
        for change in (
            CHANGES["create function"],
            ("UpdateFunctionCode", F | {"ZipFile": package("second"), "Publish": True}),
            ("CreateAlias", F | LIVE | {"FunctionVersion": "1"}),
            ("AddPermission", F | PERMIT | {"StatementId": "old", "Qualifier": "live"}),
            ("PutFunctionEventInvokeConfig", F | {"MaximumEventAgeInSeconds": 60, "Qualifier": "live"}),
            ("PutFunctionEventInvokeConfig", F | {"MaximumEventAgeInSeconds": 60, "Qualifier": "2"}),
        ):
            answer = await self.do(change)
            assert isinstance(answer, dict), answer
            await self.settled()

    async def end(self) -> None:
        """Deleted, the function leaves nothing."""
        await self.do(CHANGES["delete function"])
        await self.do(CHANGES["delete signing"])
        assert not self.documents(self.store.settings), "documents are left"
        assert not self.store.aliases.of(self.name), "aliases are left"
        assert self.signing not in str(list(self.store.settings.every("CodeSigningConfig"))), "a configuration is left"

    def documents(self, settings: Settings) -> dict[tuple[str, str], dict[str, Any]]:
        """Of the function, by kind and qualifier."""
        kinds = list(settings._documents)
        return {(kind, qualifier): one for kind in kinds for qualifier, one in settings.of(kind, self.name)}

    def is_sound(self) -> None:
        """Nothing belongs to what is not there, and the disk has what the memory has."""
        store, name = self.store, self.name
        beside = Database(self.endpoint.config.service_dir / "sandboxd.db")
        try:
            functions, aliases, settings = Functions(beside), Aliases(beside), Settings(beside, Generation())
        finally:
            beside.close()
        present = functions.described(name) is not None
        versions = {version.version: version for version in (functions.versions(name) if present else ())}
        assert present == (store.functions.described(name) is not None)
        assert not present or list(versions.values()) == store.functions.versions(name)
        assert aliases.of(name) == store.aliases.of(name), "aliases differ from those on disk"
        documents = self.documents(settings)
        assert documents == self.documents(store.settings), "documents differ from those on disk"
        for alias in aliases.of(name):
            assert {alias.version, alias.second_version} <= {"", *versions}, alias
        known = {*versions, *(alias.name for alias in aliases.of(name))} | ({"", LATEST} if present else set())
        assert {qualifier for _, qualifier in documents} <= known, documents
        if ("CodeSigning", "") in documents:
            assert self.signing in str(list(settings.every("CodeSigningConfig"))), "the configuration in use is gone"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    endpoint = Endpoint(tmp_path_factory.mktemp("at_once"))
    endpoint.start()
    yield Bench(endpoint)
    endpoint.stop()


@pytest.mark.parametrize("first", CHANGES)
def test_any_two_at_once(bench: Bench, first: str) -> None:
    async def pair(second: str) -> str:
        await bench.begin()
        await asyncio.gather(bench.do(CHANGES[first]), bench.do(CHANGES[second]))
        await bench.settled()
        bench.is_sound()
        await bench.end()
        return ""

    faults = []
    for second in CHANGES:
        try:
            bench.endpoint.run(pair(second))
        except Exception as error:
            faults.append(f"{first}, {second}: {error!r}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "change", ["update code", "update configuration", "publish", "move alias", "permit", "permit alias"]
)
def test_of_two_with_one_revision_the_second_is_refused(bench: Bench, change: str) -> None:
    async def both() -> None:
        await bench.begin()
        await bench.do(("UpdateFunctionConfiguration", F | {"Timeout": 7}))
        await bench.settled()
        operation, members = CHANGES[change]
        shows = {"move alias": ("GetAlias", F | LIVE), "permit alias": ("GetPolicy", F | {"Qualifier": "live"})}
        shown = await bench.do(shows.get(change, ("GetFunctionConfiguration", F)))
        assert isinstance(shown, dict)
        members = members | {"RevisionId": shown["RevisionId"]}
        again = members | ({"StatementId": "t"} if "StatementId" in members else {})
        answers = await asyncio.gather(bench.do((operation, members)), bench.do((operation, again)))
        await bench.settled()
        codes = [answer.code for answer in answers if isinstance(answer, ApiError)]
        assert codes in (["PreconditionFailedException"], ["ResourceConflictException"])
        await bench.end()

    bench.endpoint.run(both())


@pytest.mark.parametrize(
    ("change", "settled"),
    [("create function", 1), ("update code", 1), ("delete function", 0), ("delete version 2", 0), ("delete alias", 0)],
)
def test_a_change_is_one_transaction(bench: Bench, change: str, settled: int) -> None:
    """What ends between two would leave the one without the other: a function without its tags, an alias's policy."""

    async def count_writes() -> list[str]:
        await bench.begin()
        operation, members = CHANGES[change]
        if operation == "CreateFunction":
            members = members | SIGNING
            await bench.do(CHANGES["delete function"])
        written: list[str] = []
        bench.store.database._connection.set_trace_callback(written.append)
        answer = await bench.do((operation, members))
        await bench.settled()
        bench.store.database._connection.set_trace_callback(None)
        assert isinstance(answer, dict), answer
        bench.is_sound()
        await bench.end()
        return [statement for statement in written if statement == "COMMIT"]

    assert len(bench.endpoint.run(count_writes())) == 1 + settled


LAYER = {"LayerName": "tools"}
ON_PACKAGES: dict[str, Operation] = {
    "attach": ("UpdateFunctionConfiguration", F | {"Layers": ["the layer"]}),
    "detach": ("UpdateFunctionConfiguration", F | {"Layers": []}),
    "delete layer": ("DeleteLayerVersion", LAYER),
    "publish layer again": ("PublishLayerVersion", LAYER | {"Content": {"ZipFile": package("layer")}}),
    "code of the layer": ("UpdateFunctionCode", F | {"ZipFile": package("layer")}),
    "other code": ("UpdateFunctionCode", F | {"ZipFile": package("second")}),
    "delete function": ("DeleteFunction", F),
}


@pytest.mark.parametrize("first", ON_PACKAGES)
def test_packages_stay_while_anything_is_made_of_them(bench: Bench, first: str) -> None:
    """Functions and layers of one content share its package; it goes with the last of them."""

    async def pair(second: str) -> None:
        bench.name = f"p{next(bench.numbers)}"
        publish = ON_PACKAGES["publish layer again"]
        layer = await bench.do(publish)
        assert isinstance(layer, dict)
        await bench.do(CHANGES["create function"])
        await bench.settled()

        def about(change: Operation) -> Operation:
            members = change[1] | ({"Layers": [layer["LayerVersionArn"]]} if change[1].get("Layers") else {})
            return change[0], members | ({"VersionNumber": layer["Version"]} if change[0].startswith("DeleteL") else {})

        await asyncio.gather(bench.do(about(ON_PACKAGES[first])), bench.do(about(ON_PACKAGES[second])))
        await bench.settled()
        used = {digest for version in bench.store.functions.every_version() for digest in version.packages}
        used |= {version.digest for version in bench.store.layers.every_version()}
        while (kept := {path.name for path in bench.endpoint.config.code_dir.iterdir()}) - used:
            await asyncio.sleep(0.01)  # it goes behind the answer
        assert kept == used
        await bench.do(CHANGES["delete function"])
        for version in list(bench.store.layers.every_version()):
            await bench.do(("DeleteLayerVersion", LAYER | {"VersionNumber": version.version}))

    for second in ON_PACKAGES:
        bench.endpoint.run(asyncio.wait_for(pair(second), 30))
