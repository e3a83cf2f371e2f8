"""Functions, versions, aliases, layers and all that is a function's own, in any order, against a simple model.

After every step the API shows what the model says, in pages of any size; a RevisionId is another one exactly where
something changed; and a store that is opened beside the one that runs finds on disk what that one has in memory.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tests.api.conftest import ROLE, Endpoint, package
from tests.api.expected import (
    CONFLICT,
    FUNCTIONS,
    INVALID,
    LATEST,
    LAYERS,
    NOT_FOUND,
    STALE,
    Alias,
    Door,
    Expected,
    Function,
    Refusal,
    arn,
)

PACKAGES = [base64.b64encode(package(f"x = {number}\n")).decode() for number in range(3)]
names = st.sampled_from(("a", "b"))
aliases = st.sampled_from(("blue", "green"))
numbers = st.sampled_from(("1", "2", "3"))
versions = st.just(LATEST) | numbers
qualifiers = st.sampled_from(("", LATEST, "1", "2", "blue", "green"))
policed = st.sampled_from(("", "1", "2", "blue", "green"))
words = st.sampled_from(("", "one", "two"))
codes = st.sampled_from(PACKAGES)
weights = st.none() | st.just({}) | st.dictionaries(numbers, st.sampled_from((0.0, 0.25, 1.0)), max_size=1)
tags = st.dictionaries(st.sampled_from(("k", "l", "ü /+")), words, max_size=2)


class Machine(Expected):
    """What can be done, and what comes of it."""

    @initialize()
    def begin(self) -> None:
        """A function with two versions and a layer, which leaves more steps for what is harder to come by."""
        self.create_function("a", PACKAGES[0], "", True, {})
        self.update_code("a", PACKAGES[1], True, False)
        self.publish_layer("x", PACKAGES[2])

    # functions and versions

    def published(self, function: Function, description: str) -> str | None:
        """The number of the version that publishing makes; None: of the one that there is."""
        if function.published:
            number = max(function.published, key=int)
            if function.published[number][0] == function.content:
                return None
        function.last += 1
        function.published[str(function.last)] = (dict(function.content), description)
        return str(function.last)

    @rule(name=names, code=codes, description=words, publish=st.booleans(), given=tags)
    def create_function(self, name: str, code: str, description: str, publish: bool, given: dict[str, str]) -> None:
        request = {"FunctionName": name, "Runtime": "python3.12", "Handler": "h.h", "Role": ROLE, "Tags": given}
        request |= {"Code": {"ZipFile": code}, "Description": description, "Publish": publish}
        refusal = CONFLICT if name in self.functions else None
        self.ask("POST", FUNCTIONS, request, refusal)
        if refusal is None:
            content = {"code": code, "description": description, "memory": 128, "layers": []}
            self.functions[name] = function = Function(content, tags=dict(given))
            self.settle(name)
            if publish:
                self.published(function, description)

    @rule(name=names)
    def delete_function(self, name: str) -> None:
        self.ask("DELETE", self.path(name), refusal=self.missing(name))
        self.functions.pop(name, None)
        self.revisions = {of: kept for of, kept in self.revisions.items() if of.split(":")[6] != name}

    @rule(name=names, code=codes, publish=st.booleans(), dry=st.booleans())
    def update_code(self, name: str, code: str, publish: bool, dry: bool) -> None:
        request = {"ZipFile": code, "Publish": publish, "DryRun": dry}
        self.ask("PUT", self.path(name, "/code"), request, self.missing(name))
        if name in self.functions and not dry:
            function = self.functions[name]
            self.settle(name)
            function.content["code"] = code
            self.renew(name)
            if publish:
                self.published(function, function.content["description"])

    @rule(name=names, description=st.none() | words, memory=st.none() | st.sampled_from((128, 192, 100)))
    def update_configuration(self, name: str, description: str | None, memory: int | None) -> None:
        given = {"Description": description, "MemorySize": memory}
        request = {member: value for member, value in given.items() if value is not None}
        refusal = (400, "ValidationException") if memory == 100 else self.missing(name)
        self.ask("PUT", self.path(name, "/configuration"), request, refusal)
        if refusal is None:
            content = self.functions[name].content
            self.settle(name)
            content["description"] = content["description"] if description is None else description
            content["memory"] = memory or content["memory"]
            self.renew(name)

    @rule(name=names, wanted=st.lists(st.tuples(st.sampled_from(("x", "y")), st.integers(1, 3)), max_size=2))
    def attach_layers(self, name: str, wanted: list[tuple[str, int]]) -> None:
        refusal = self.missing(name)
        there = all(number in self.layers.get(layer, ()) for layer, number in wanted)
        if refusal is None and not (there and len({layer for layer, _ in wanted}) == len(wanted)):
            refusal = INVALID
        arns = [self.layer_arn(layer, number) for layer, number in wanted]
        self.ask("PUT", self.path(name, "/configuration"), {"Layers": arns}, refusal)
        if refusal is None:
            self.settle(name)
            self.functions[name].content["layers"] = arns
            self.renew(name)

    @rule(name=names, description=st.none() | words)
    def publish_version(self, name: str, description: str | None) -> None:
        request = {} if description is None else {"Description": description}
        answer = self.ask("POST", self.path(name, "/versions"), request, self.missing(name))
        if name in self.functions:
            function = self.functions[name]
            text = function.content["description"] if description is None else description
            number = self.published(function, text)
            assert answer["Version"] == (number or max(function.published, key=int))
            assert answer["Description"] == function.published[answer["Version"]][1]
            if number is not None:
                self.renew(name)

    @rule(name=names, number=versions)
    def delete_version(self, name: str, number: str) -> None:
        function, refusal = self.functions.get(name), self.missing(name)
        if number == LATEST:
            refusal = INVALID
        elif function and any(number in (one.version, *one.weights) for one in function.aliases.values()):
            refusal = CONFLICT
        self.ask("DELETE", self.path(name, qualifier=number), refusal=refusal)
        if function and refusal is None:
            function.drop(number)
            self.revisions.pop(arn(name, number), None)

    @rule(name=names, which=st.integers(0, 99))
    @precondition(lambda self: bool(self.spent))
    def update_what_is_no_more(self, name: str, which: int) -> None:
        """A RevisionId of before is refused wherever one can be given."""
        stale = sorted(self.spent)[which % len(self.spent)]
        if name in self.functions:
            request: dict[str, Any] = {"RevisionId": stale}
            self.ask("PUT", self.path(name, "/configuration"), request | {"Timeout": 9}, STALE)
            self.ask("PUT", self.path(name, "/code"), request | {"ZipFile": PACKAGES[0]}, STALE)
            self.ask("POST", self.path(name, "/versions"), request, STALE)
            for alias in self.functions[name].aliases:
                self.ask("PUT", self.path(name, f"/aliases/{alias}"), request | {"Description": "!"}, STALE)

    # aliases

    def routing(self, name: str, version: str, wanted: dict[str, float]) -> Refusal:
        """What is wrong with an alias of these versions."""
        if version in wanted or (wanted and version == LATEST):
            return INVALID
        if name not in self.functions:
            return NOT_FOUND
        there = all(one == LATEST or one in self.functions[name].published for one in (version, *wanted))
        return None if there else NOT_FOUND

    @rule(name=names, alias=aliases, version=versions, wanted=weights, description=words)
    def create_alias(
        self, name: str, alias: str, version: str, wanted: dict[str, float] | None, description: str
    ) -> None:
        request: dict[str, Any] = {"Name": alias, "FunctionVersion": version, "Description": description}
        if wanted is not None:
            request["RoutingConfig"] = {"AdditionalVersionWeights": wanted}
        refusal = self.routing(name, version, wanted or {})
        if refusal is None and alias in self.functions[name].aliases:
            refusal = CONFLICT
        self.ask("POST", self.path(name, "/aliases"), request, refusal)
        if refusal is None:
            self.functions[name].aliases[alias] = Alias(version, wanted or {}, description)

    @rule(name=names, alias=aliases, version=st.none() | versions, wanted=weights, description=st.none() | words)
    def update_alias(
        self, name: str, alias: str, version: str | None, wanted: dict[str, float] | None, description: str | None
    ) -> None:
        given = {"FunctionVersion": version, "Description": description}
        request: dict[str, Any] = {member: value for member, value in given.items() if value is not None}
        if wanted is not None:
            request["RoutingConfig"] = {"AdditionalVersionWeights": wanted}
        refusal: Refusal = NOT_FOUND
        present = self.functions[name].aliases.get(alias) if name in self.functions else None
        if present is not None:
            after = Alias(
                present.version if version is None else version,
                present.weights if wanted is None else wanted,
                present.description if description is None else description,
            )
            refusal = self.routing(name, after.version, after.weights)
        self.ask("PUT", self.path(name, f"/aliases/{alias}"), request, refusal)
        if refusal is None:
            self.functions[name].aliases[alias] = after
            self.renew(name, alias)

    @rule(name=names, alias=aliases)
    def delete_alias(self, name: str, alias: str) -> None:
        self.ask("DELETE", self.path(name, f"/aliases/{alias}"), refusal=self.missing(name))
        if name in self.functions:
            self.functions[name].drop(alias)
            self.revisions.pop(arn(name, alias), None)

    # what is a function's own

    @rule(name=names, wanted=st.sampled_from((0, 3, 900, 901, None)))
    def reserve(self, name: str, wanted: int | None) -> None:
        target, refusal = f"/2017-10-31/functions/{name}/concurrency", self.missing(name)
        if wanted is None:
            self.ask("DELETE", target, refusal=refusal)
        else:
            others = sum(other.reserved or 0 for of, other in self.functions.items() if of != name)
            if refusal is None and 1000 - others - wanted < 100:
                refusal = INVALID
            self.ask("PUT", target, {"ReservedConcurrentExecutions": wanted}, refusal)
        if refusal is None:
            self.functions[name].reserved = wanted

    @rule(
        name=names, qualifier=qualifiers, method=st.sampled_from(("PUT", "POST", "DELETE")),
        retries=st.none() | st.integers(0, 2), age=st.none() | st.sampled_from((60, 21600)),
    )  # fmt: skip
    def event_invoke_config(self, name: str, qualifier: str, method: str, retries: int | None, age: int | None) -> None:
        given = {"MaximumRetryAttempts": retries, "MaximumEventAgeInSeconds": age}
        request = {member: value for member, value in given.items() if value is not None}
        function, key = self.functions.get(name), qualifier or LATEST
        there = function is not None and function.has(qualifier)
        refusal = None
        if method != "DELETE" and not request:
            refusal = INVALID
        elif not there or (method != "PUT" and function and key not in function.events):
            refusal = NOT_FOUND
        target = f"/2019-09-25/functions/{name}/event-invoke-config"
        target += f"?Qualifier={quote(qualifier)}" if qualifier else ""
        self.ask(method, target, None if method == "DELETE" else request, refusal)
        if refusal is None and function:
            before = function.events.pop(key, {}) if method != "PUT" else {}
            if method != "DELETE":
                function.events[key] = before | request

    @rule(name=names, given=tags)
    def tag(self, name: str, given: dict[str, str]) -> None:
        target = f"/2017-03-31/tags/{quote(arn(name), safe='')}"
        self.ask("POST", target, {"Tags": given}, self.missing(name))
        if name in self.functions:
            self.functions[name].tags |= given

    @rule(name=names, keys=st.lists(st.sampled_from(("k", "l", "ü /+", "m")), min_size=1, max_size=2))
    def untag(self, name: str, keys: list[str]) -> None:
        query = "&".join(f"tagKeys={quote(key, safe='')}" for key in keys)
        self.ask("DELETE", f"/2017-03-31/tags/{quote(arn(name), safe='')}?{query}", refusal=self.missing(name))
        for key in keys if name in self.functions else ():
            self.functions[name].tags.pop(key, None)

    @rule(name=names, qualifier=policed, sid=st.sampled_from(("s", "t")))
    def add_permission(self, name: str, qualifier: str, sid: str) -> None:
        function = self.functions.get(name)
        refusal: Refusal = None if function and function.has(qualifier) else NOT_FOUND
        if function and sid in function.policies.get(qualifier, ()):
            refusal = CONFLICT
        request = {"StatementId": sid, "Action": "lambda:InvokeFunction", "Principal": "*"}
        self.ask("POST", self.path(name, "/policy", qualifier), request, refusal)
        if function and refusal is None:
            function.policies.setdefault(qualifier, []).append(sid)
            self.renew(name, qualifier)

    @rule(name=names, qualifier=policed, sid=st.sampled_from(("s", "t")))
    def remove_permission(self, name: str, qualifier: str, sid: str) -> None:
        function = self.functions.get(name)
        there = function is not None and sid in function.policies.get(qualifier, ())
        self.ask(
            "DELETE", self.path(name, f"/policy/{sid}", qualifier), refusal=None if there else NOT_FOUND
        )  # fmt: skip
        if function and there:
            function.policies[qualifier].remove(sid)
            self.renew(name, qualifier)

    @rule(
        name=names, qualifier=st.just("") | aliases, method=st.sampled_from(("POST", "PUT", "DELETE")),
        auth=st.sampled_from(("NONE", "AWS_IAM")),
    )  # fmt: skip
    def url(self, name: str, qualifier: str, method: str, auth: str) -> None:
        function = self.functions.get(name)
        refusal: Refusal = None
        if not function or not function.has(qualifier) or (method != "POST" and qualifier not in function.urls):
            refusal = NOT_FOUND
        elif method == "POST" and qualifier in function.urls:
            refusal = CONFLICT
        target = f"/2021-10-31/functions/{name}/url" + (f"?Qualifier={qualifier}" if qualifier else "")
        self.ask(method, target, None if method == "DELETE" else {"AuthType": auth}, refusal)
        if function and refusal is None:
            if method == "DELETE":
                del function.urls[qualifier]
            else:
                function.urls[qualifier] = auth

    @rule(name=names, loops=st.sampled_from(("Allow", "Terminate")))
    def recursion(self, name: str, loops: str) -> None:
        target = f"/2024-08-31/functions/{name}/recursion-config"
        self.ask("PUT", target, {"RecursiveLoop": loops}, self.missing(name))
        if name in self.functions:
            self.functions[name].recursion = loops

    # layers

    @rule(layer=st.sampled_from(("x", "y")), code=codes)
    def publish_layer(self, layer: str, code: str) -> None:
        answer = self.ask("POST", f"{LAYERS}/{self.layer_names[layer]}/versions", {"Content": {"ZipFile": code}})
        self.layer_last[layer] = number = self.layer_last.get(layer, 0) + 1
        assert answer["Version"] == number
        self.layers.setdefault(layer, []).append(number)

    @rule(layer=st.sampled_from(("x", "y")), number=st.integers(1, 3))
    def delete_layer(self, layer: str, number: int) -> None:
        """Functions that have it keep it."""
        self.ask("DELETE", f"{LAYERS}/{self.layer_names[layer]}/versions/{number}")
        if number in self.layers.get(layer, ()):
            self.layers[layer].remove(number)

    # everything else

    @rule()
    @precondition(lambda self: self.restarts < 2)
    def restart(self) -> None:
        """Whatever was kept is there again, and no RevisionId is another one."""
        self.restarts += 1
        self.door.close()
        self.endpoint.run(self.endpoint._stop())
        self.endpoint.run(self.endpoint._start())


@pytest.fixture
def machine(endpoint: Endpoint) -> Iterator[type[Machine]]:
    Machine.endpoint, Machine.door = endpoint, Door(endpoint.config.api_socket)
    yield Machine
    Machine.door.close()


def test_any_order_of_changes(machine: type[Machine], pytestconfig: pytest.Config) -> None:
    cases = int(pytestconfig.getoption("--fuzz-cases", default=0) or 0)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(20, cases // 40), stateful_step_count=30, deadline=None, database=None,
            derandomize=not cases, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    assert not machine.endpoint.store.functions._packages
