"""Several accounts: what is whose, what another is told of it (nothing), and what a grant changes."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandboxd.api.service_model import ServiceModel
from sandboxd.errors import SandboxdError
from sandboxd.http import Request, Response
from tests.api.conftest import ROLE, Endpoint, package
from tests.api.test_authorization import Users, allow, denied
from tests.api.test_lifecycle import error_of, eventually

OURS, THEIRS = "111111111111", "222222222222"
ACCOUNTS = "/sandboxd/v1/accounts"
PROFILE = f"arn:aws:signer:us-east-1:{OURS}:/signing-profiles/p/1234567890"
EVERYTHING = allow("*")


def arn(account: str, name: str = "hello", kind: str = "function") -> str:
    return f"arn:aws:lambda:us-east-1:{account}:{kind}:{name}"


class World:
    """Two accounts of one endpoint, each with a user who may do everything in it, a function, a version, an alias and a
    layer of the same names."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.users = endpoint, Users(endpoint)
        assert endpoint.unix("POST", ACCOUNTS, {"AccountId": THEIRS})[0] == 201
        self.ours = self.users.add("alice", EVERYTHING)
        self.theirs = self.users.add("alice", EVERYTHING, account=THEIRS)
        self.furnish(self.ours, "ours")
        self.furnish(self.theirs, "theirs")

    def furnish(self, client: Any, text: str) -> None:
        layer = client.publish_layer_version(LayerName="shelf", Content={"ZipFile": package(f"layer = {text!r}")})
        self.create(client, "hello", text, Layers=[layer["LayerVersionArn"]])
        client.publish_version(FunctionName="hello")
        client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")

    def create(self, client: Any, name: str, text: str, **members: Any) -> Any:
        standing = {"Runtime": "python3.12", "Handler": "handler.handler", "Role": ROLE, "Description": text}
        client.create_function(FunctionName=name, Code={"ZipFile": package(text)}, **standing | members)
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})

    def admin(self, method: str, path: str, body: Any = b"", account: str = THEIRS) -> Any:
        """A request to the administration for an account; the status where it is refused."""
        status, _, answer = self.endpoint.unix(method, f"/sandboxd/v1/{path}", body, x_sandboxd_account=account)
        return status if status >= 400 else json.loads(answer or b"{}")

    def close(self) -> None:
        self.users.close()


@pytest.fixture
def world(endpoint: Endpoint) -> Iterator[World]:
    made = World(endpoint)
    yield made
    made.close()


def test_accounts_are_made_and_removed(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint()

    def accounts() -> dict[str, tuple[bool, int]]:
        rows = json.loads(endpoint.unix("GET", ACCOUNTS)[2])["Accounts"]
        return {row["AccountId"]: (row["Default"], row["Functions"]) for row in rows}

    assert accounts() == {OURS: (True, 0)}
    assert endpoint.unix("POST", ACCOUNTS, {"AccountId": THEIRS})[0] == 201
    assert endpoint.unix("POST", ACCOUNTS, {"AccountId": THEIRS})[0] == 409
    assert endpoint.unix("POST", ACCOUNTS, {"AccountId": OURS})[0] == 409
    for bad in ("", "1", "22222222222a", "../../../etc", "2" * 13, "２" * 12):
        assert endpoint.unix("POST", ACCOUNTS, {"AccountId": bad})[0] == 400, bad
    for body in ({}, {"AccountId": 1}, {"AccountId": THEIRS, "more": ""}, []):
        assert endpoint.unix("POST", ACCOUNTS, body)[0] == 400, body
    assert endpoint.unix("DELETE", f"{ACCOUNTS}/{OURS}")[0] == 409
    assert endpoint.unix("DELETE", f"{ACCOUNTS}/333333333333")[0] == 404
    key = json.loads(endpoint.unix("POST", "/sandboxd/v1/keys", x_sandboxd_account=THEIRS)[2])
    endpoint.create("ours")
    endpoint = make_endpoint()
    assert accounts() == {OURS: (True, 1), THEIRS: (False, 0)}
    client = endpoint.boto3(key["AccessKeyId"], key["SecretAccessKey"])
    client.create_function(
        FunctionName="f", Runtime="python3.12", Handler="h.h", Role=ROLE, Code={"ZipFile": package()}
    )  # fmt: skip
    assert endpoint.unix("DELETE", f"{ACCOUNTS}/{THEIRS}")[0] == 409, "it has a function"
    client.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={"Delay": 0.05})
    client.delete_function(FunctionName="f")
    layer = client.publish_layer_version(LayerName="l", Content={"ZipFile": package("1")})
    assert endpoint.unix("DELETE", f"{ACCOUNTS}/{THEIRS}")[0] == 409, "it has a layer"
    client.delete_layer_version(LayerName="l", VersionNumber=layer["Version"])
    assert endpoint.unix("DELETE", f"{ACCOUNTS}/{THEIRS}")[0] == 204
    assert list((endpoint.config.service_dir / "accounts").iterdir()) == []
    assert error_of(client.list_functions)[0] == "UnrecognizedClientException"
    assert endpoint.unix("GET", "/sandboxd/v1/keys", x_sandboxd_account=THEIRS)[0] == 404
    assert endpoint.unix("GET", "/2015-03-31/functions/", x_sandboxd_account=THEIRS)[0] == 404
    assert endpoint.unix("POST", ACCOUNTS, {"AccountId": THEIRS})[0] == 201
    assert error_of(client.list_functions)[0] == "UnrecognizedClientException", "a key of the one before"
    client.close()


def test_functions_belong_to_their_database(make_endpoint: Callable[..., Endpoint]) -> None:
    make_endpoint().create()
    endpoint = make_endpoint(account_id="333333333333", region="eu-west-1")
    (function,) = endpoint.store.functions.all()
    assert function.arn == "arn:aws:lambda:eu-west-1:333333333333:function:hello"


def test_names_are_an_account_s_own(world: World) -> None:
    for client, account, text in ((world.ours, OURS, "ours"), (world.theirs, THEIRS, "theirs")):
        (shown,) = client.list_functions(FunctionVersion="ALL", MaxItems=1)["Functions"]
        assert (shown["FunctionArn"], shown["Description"]) == (f"{arn(account)}:$LATEST", text)
        assert len(client.list_functions(FunctionVersion="ALL")["Functions"]) == 2
        assert client.get_alias(FunctionName="hello", Name="live")["AliasArn"] == arn(account) + ":live"
        (layer,) = client.list_layers()["Layers"]
        assert layer["LatestMatchingVersion"]["LayerVersionArn"] == arn(account, "shelf:1", "layer")
        assert client.get_account_settings()["AccountUsage"]["FunctionCount"] == 1
        client.invoke(FunctionName="hello")
        client.invoke(FunctionName="hello:live")
        client.invoke(FunctionName=arn(account) + ":1")
        client.tag_resource(Resource=arn(account), Tags={"of": text})
        assert client.list_tags(Resource=arn(account))["Tags"] == {"of": text}
        client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=900)
        assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 100
    ran = [one.function.arn for one in world.endpoint.scheduler.invocations]
    assert ran == [arn(OURS)] * 3 + [arn(THEIRS)] * 3
    world.theirs.delete_function(FunctionName="hello")
    assert world.theirs.list_functions()["Functions"] == []
    assert world.ours.get_function(FunctionName="hello")["Tags"] == {"of": "ours"}
    assert len(world.ours.list_aliases(FunctionName="hello")["Aliases"]) == 1


def test_what_is_administered_is_an_account_s_own(world: World) -> None:
    logs = world.endpoint.logs
    logs.texts[OURS, "hello", "$LATEST"], logs.texts[THEIRS, "hello", "$LATEST"] = b"ours", b"theirs"
    for account, text in ((OURS, "ours"), (THEIRS, "theirs")):
        assert world.admin("GET", "functions/hello/logs", account=account)["Data"] == text
        users = [user["Arn"] for user in world.admin("GET", "users", account=account)["Users"]]
        assert users == [f"arn:aws:iam::{account}:user/admin", f"arn:aws:iam::{account}:user/alice"]
    for path in ("logs", "policy"):
        assert world.admin("GET", f"functions/{arn(OURS)}/{path}") == 403
        assert world.admin("GET", f"functions/{arn(OURS, 'none')}/{path}") == 403
    world.create(world.ours, "only", "ours")
    assert world.admin("GET", "functions/only/logs") == world.admin("GET", "functions/only/policy") == 404
    (ours,) = [key for key in world.admin("GET", "keys", account=OURS)["Keys"] if key["UserName"] == "alice"]
    assert world.admin("DELETE", f"keys/{ours['AccessKeyId']}") == 404
    world.ours.list_functions()
    world.admin("POST", "roles", {"RoleName": "worker"})
    assert world.admin("GET", "roles", account=OURS)["Roles"] == []
    world.endpoint.scheduler.rows = [{"Account": OURS, "Function": "a"}, {"Account": THEIRS, "Function": "b"}]
    assert [row["Function"] for row in world.admin("GET", "environments")["Environments"]] == ["b"]
    everybody = json.loads(world.endpoint.unix("GET", "/sandboxd/v1/environments")[2])["Environments"]
    assert [row["Function"] for row in everybody] == ["a", "b"]
    world.endpoint.scheduler.rows = []
    status = world.admin("GET", "status")
    assert (status["AccountId"], status["Accounts"], status["Functions"]) == (THEIRS, 2, 1)
    world.admin("DELETE", "users/alice")
    assert error_of(world.theirs.list_functions)[0] == "UnrecognizedClientException"
    world.ours.list_functions()


def test_only_the_socket_chooses_an_account(world: World) -> None:
    def choose(request: Any, **_: Any) -> None:
        request.headers["X-Sandboxd-Account"] = THEIRS

    client = world.users.client("alice")
    client.meta.events.register("before-send.lambda", choose)
    assert client.get_function_configuration(FunctionName="hello")["FunctionArn"] == arn(OURS)
    path = "/2015-03-31/functions/hello"
    for account in (OURS, THEIRS):
        status, _, body = world.endpoint.unix("GET", path, x_sandboxd_account=account)
        assert (status, json.loads(body)["Configuration"]["FunctionArn"]) == (200, arn(account))
    for bad in ("", "333333333333", "../x", "*"):
        assert world.endpoint.unix("GET", path, x_sandboxd_account=bad)[0] == 404
        assert world.endpoint.unix("POST", f"{path}/invocations", x_sandboxd_account=bad)[0] == 404


def requests_about(account: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation that takes an ARN, asked about an account's function, layer or other resource of a name."""
    named = {
        "FunctionName": arn(account, name),
        "LayerName": arn(account, name, "layer"),
        "CodeSigningConfigArn": arn(account, "csc-0123456789abcdef0", "code-signing-config"),
        "Resource": arn(account, name),
        "Arn": arn(account, f"{name}:1", "layer"),
    }
    standing: dict[str, Any] = {
        "Action": "lambda:GetLayerVersion", "Principal": "*", "StatementId": "s", "Name": "live",
        "FunctionVersion": "1",
        "Qualifier": "live", "VersionNumber": 1, "ReservedConcurrentExecutions": 1, "TagKeys": ["a"],
        "Tags": {"a": "b"}, "ProvisionedConcurrentExecutions": 1, "MaximumRetryAttempts": 1, "RecursiveLoop": "Allow",
        "Code": {}, "UpdateRuntimeOn": "Auto", "Content": {}, "Role": ROLE, "AuthType": "NONE", "Description": "d",
        "UUID": "6ac1e9f0-0000-4000-8000-000000000000",
    }  # fmt: skip
    model = ServiceModel.load(set())
    offered = ServiceModel.load(set(model.operations))
    for operation in offered.operations.values():
        assert operation.input is not None
        members = operation.input.members
        if about := [member for member in named if member in members]:
            required = set(operation.input.required) | {"Qualifier"} & members.keys()
            asked = {member: named[member] for member in about}
            yield operation.name, asked | {m: standing[m] for m in standing if m in required and m not in asked}


def method_of(name: str) -> str:
    from botocore import xform_name

    return str(xform_name(name))


def test_no_operation_tells_whether_another_account_has_something(world: World) -> None:
    """The same words for what is there and for what is not, for an account that is here and for one that is not."""
    offered, told = world.endpoint.api.offered, dict[str, str]()
    before = world.theirs.get_function(FunctionName="hello")["Configuration"]
    there = dict(requests_about(THEIRS, "hello"))
    for other in (requests_about(THEIRS, "nothing"), requests_about("333333333333", "hello")):
        for name, members in other:
            if name not in offered:
                continue
            answers = []
            for asked in (there[name], members):
                code, status, text = error_of(getattr(world.ours, method_of(name)), **asked)
                for word in ("hello", "nothing", THEIRS, "333333333333"):
                    text = text.replace(word, "X")
                answers.append((code, status, text))
            assert answers[0] == answers[1], name
            told[name] = answers[0][0]
    assert len(told) > 55
    # The one wants a source before anything else, the other a mapping.
    expected = {
        "CreateEventSourceMapping": "InvalidParameterValueException",
        "UpdateEventSourceMapping": "ResourceNotFoundException",
    }
    assert {name: code for name, code in told.items() if code != "AccessDeniedException"} == expected
    signing = world.theirs.create_code_signing_config(AllowedPublishers={"SigningProfileVersionArns": [PROFILE]})
    theirs = signing["CodeSigningConfig"]["CodeSigningConfigArn"]
    for config in (theirs, arn(THEIRS, "csc-0123456789abcdef0", "code-signing-config")):
        put = error_of(world.ours.put_function_code_signing_config, FunctionName="hello", CodeSigningConfigArn=config)
        assert put[0] == "CodeSigningConfigNotFoundException"
        assert error_of(world.ours.get_code_signing_config, CodeSigningConfigArn=config)[0] == "AccessDeniedException"
    assert world.ours.list_code_signing_configs()["CodeSigningConfigs"] == []
    assert world.theirs.get_function(FunctionName="hello")["Configuration"] == before


def test_a_grant_counts_where_both_sides_give_it(world: World) -> None:
    theirs = arn(THEIRS)
    bob = world.users.add("bob")
    reason = "because no resource-based policy allows the lambda:InvokeFunction action"
    alice, root = f"arn:aws:iam::{OURS}:user/alice", f"arn:aws:iam::{OURS}:root"
    for name in (theirs, arn(THEIRS, "nothing"), arn("333333333333")):
        assert error_of(world.ours.invoke, FunctionName=name) == denied("lambda:InvokeFunction", name, reason, alice)
    assert world.endpoint.unix("POST", f"/2015-03-31/functions/{theirs}/invocations")[0] == 403
    add = {"FunctionName": "hello", "Action": "lambda:InvokeFunction"}
    for number, principal in enumerate((OURS, root, alice, "*")):
        world.theirs.add_permission(StatementId=f"s{number}", Principal=principal, **add)
        world.ours.invoke(FunctionName=theirs)
        world.ours.invoke(FunctionName=f"{THEIRS}:hello")
        assert error_of(bob.invoke, FunctionName=theirs) == denied(
            "lambda:InvokeFunction", theirs, user=f"arn:aws:iam::{OURS}:user/bob"
        )  # fmt: skip
        for name in (theirs + ":1", theirs + ":live", theirs + ":$LATEST"):
            assert error_of(world.ours.invoke, FunctionName=name)[0] == "AccessDeniedException"
        assert error_of(world.ours.get_function, FunctionName=theirs)[0] == "AccessDeniedException"
        world.theirs.remove_permission(FunctionName="hello", StatementId=f"s{number}")
        assert error_of(world.ours.invoke, FunctionName=theirs)[0] == "AccessDeniedException", "at once"
    assert {one.function.arn for one in world.endpoint.scheduler.invocations} == {theirs}
    # Nobody else's user of the same name, and nobody who was named before the grant.
    world.theirs.add_permission(StatementId="t", Principal=f"arn:aws:iam::{THEIRS}:user/alice", **add)
    assert error_of(world.ours.invoke, FunctionName=theirs)[0] == "AccessDeniedException"
    world.theirs.add_permission(StatementId="o", Principal=OURS, **add)
    world.ours.invoke(FunctionName=theirs)
    text = "Cross-account log access is not allowed"
    assert error_of(world.ours.invoke, FunctionName=theirs, LogType="Tail") == ("AccessDeniedException", 403, text)
    assert world.theirs.invoke(FunctionName=theirs, LogType="Tail")["LogResult"]
    world.ours.invoke(FunctionName=theirs, InvocationType="Event", Payload=b"7")
    eventually(lambda: b"7" in [one.payload for one in world.endpoint.scheduler.invocations])
    world.users.permit("alice", allow("*", theirs) | {"Effect": "Deny"}, policy="no")
    explicit = "with an explicit deny in an identity-based policy"
    assert error_of(world.ours.invoke, FunctionName=theirs) == denied("lambda:InvokeFunction", theirs, explicit, alice)


def test_a_policy_finds_out_nothing_of_another_account(world: World) -> None:
    """What a caller is told depends on policies of its own, which may ask for what is not theirs to know."""
    world.theirs.tag_resource(Resource=arn(THEIRS), Tags={"stage": "prod"})
    world.ours.tag_resource(Resource=arn(OURS), Tags={"stage": "prod"})
    tagged = {"StringEquals": {"aws:ResourceTag/stage": "prod"}}
    bob = world.users.add("bob", allow("lambda:*", Condition=tagged))
    bob.get_function(FunctionName="hello")
    who = f"arn:aws:iam::{OURS}:user/bob"
    for name in (arn(THEIRS), arn(THEIRS, "nothing"), arn("333333333333")):
        assert error_of(bob.get_function, FunctionName=name) == denied("lambda:GetFunction", name, user=who)


def test_what_may_be_granted(world: World) -> None:
    theirs = arn(THEIRS)
    for number, action in enumerate(("Get*", "List*", "UpdateFunction*", "CreateEventSourceMapping", "*")):
        action = f"lambda:{action}"
        if "*" in action and action != "lambda:*":
            assert error_of(world.theirs.add_permission, FunctionName="hello", StatementId="s", Principal=OURS,
                            Action=action)[0] == "ValidationException"  # fmt: skip
            continue
        world.theirs.add_permission(FunctionName="hello", StatementId=f"s{number}", Principal=OURS, Action=action)
    shown = world.ours.get_function(FunctionName=theirs)
    assert shown["Configuration"]["Description"] == "theirs"
    with urllib.request.urlopen(shown["Code"]["Location"]) as answer:
        assert answer.read() == package("theirs")
    assert len(world.ours.list_versions_by_function(FunctionName=theirs)["Versions"]) == 2
    assert world.ours.list_tags(Resource=theirs)["Tags"] == {}
    world.ours.tag_resource(Resource=theirs, Tags={"by": "ours"})
    assert world.theirs.list_tags(Resource=theirs)["Tags"] == {"by": "ours"}
    assert world.ours.list_tags(Resource=arn(OURS))["Tags"] == {}
    world.ours.update_function_code(FunctionName=theirs, ZipFile=package("changed"))
    world.theirs.get_waiter("function_updated_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 0.05})
    assert world.ours.publish_version(FunctionName=theirs)["FunctionArn"] == theirs + ":2"
    world.ours.create_alias(FunctionName=theirs, Name="new", FunctionVersion="2")
    # What AWS grants nobody across accounts: https://docs.aws.amazon.com/lambda/latest/dg/
    # permissions-function-cross-account.html
    for call, members in (
        (world.ours.update_function_configuration, {"Description": "mine"}),
        (world.ours.add_permission, {"StatementId": "x", "Principal": "*", "Action": "lambda:*"}),
        (world.ours.remove_permission, {"StatementId": "s4"}),
        (world.ours.put_function_event_invoke_config, {"MaximumRetryAttempts": 0}),
        (world.ours.list_function_event_invoke_configs, {}),
    ):
        assert error_of(call, FunctionName=theirs, **members)[0] == "AccessDeniedException"
    assert len(world.ours.list_functions()["Functions"]) == 1
    world.ours.delete_function(FunctionName=theirs)
    assert world.theirs.list_functions()["Functions"] == []
    world.create(world.theirs, "hello", "again")
    assert error_of(world.ours.get_function, FunctionName=theirs)[0] == "AccessDeniedException"


def test_layers_of_another_account(world: World) -> None:
    shelf = arn(THEIRS, "shelf:1", "layer")
    reason = "because no resource-based policy allows the lambda:GetLayerVersion action"
    alice = f"arn:aws:iam::{OURS}:user/alice"

    def attach(*layers: str) -> Any:
        return error_of(world.ours.update_function_configuration, FunctionName="hello", Layers=list(layers))

    for layer in (shelf, arn(THEIRS, "none:1", "layer"), arn("333333333333", "shelf:1", "layer")):
        assert attach(layer) == denied("lambda:GetLayerVersion", layer, reason, alice)
        made = {"Runtime": "python3.12", "Handler": "h.h", "Role": ROLE, "Code": {"ZipFile": package()}}
        assert error_of(world.ours.create_function, FunctionName="f", Layers=[layer], **made)[0] == (
            "AccessDeniedException"
        )  # fmt: skip
        configuration = json.dumps({"Layers": [layer]}).encode()
        path = "/2015-03-31/functions/hello/configuration"
        assert world.endpoint.unix("PUT", path, configuration)[0] == 403
    grant = {"LayerName": "shelf", "VersionNumber": 1, "Action": "lambda:GetLayerVersion", "StatementId": "s"}
    world.theirs.add_layer_version_permission(Principal="333333333333", **grant)
    assert attach(shelf)[0] == "AccessDeniedException"
    world.theirs.remove_layer_version_permission(LayerName="shelf", VersionNumber=1, StatementId="s")
    world.theirs.add_layer_version_permission(Principal="*", OrganizationId="o-0123456789", **grant)
    assert attach(shelf)[0] == "AccessDeniedException"
    world.theirs.remove_layer_version_permission(LayerName="shelf", VersionNumber=1, StatementId="s")
    for principal in ("*", OURS):
        world.theirs.add_layer_version_permission(Principal=principal, **grant)
        both = [arn(OURS, "shelf:1", "layer"), shelf]
        world.ours.update_function_configuration(FunctionName="hello", Layers=both)
        world.ours.get_waiter("function_updated_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 0.05})
        shown = world.ours.get_layer_version(LayerName=arn(THEIRS, "shelf", "layer"), VersionNumber=1)
        assert shown["LayerVersionArn"] == world.ours.get_layer_version_by_arn(Arn=shelf)["LayerVersionArn"] == shelf
        for call in (world.ours.list_layer_versions, world.ours.publish_layer_version):
            members = {"Content": {"ZipFile": package()}} if call == world.ours.publish_layer_version else {}
            assert error_of(call, LayerName=arn(THEIRS, "shelf", "layer"), **members)[0] == "AccessDeniedException"
        assert attach(arn(THEIRS, "shelf:01", "layer"), shelf)[0] == "InvalidParameterValueException", "twice"
        assert error_of(world.ours.delete_layer_version, LayerName=arn(THEIRS, "shelf", "layer"), VersionNumber=1)[
            0
        ] == ("AccessDeniedException")
        world.theirs.remove_layer_version_permission(LayerName="shelf", VersionNumber=1, StatementId="s")
    assert attach(shelf)[0] == "AccessDeniedException"
    # It stays with the function that has it, whatever becomes of grant and layer.
    world.theirs.update_function_configuration(FunctionName="hello", Layers=[])
    world.theirs.get_waiter("function_updated_v2").wait(FunctionName="hello", WaiterConfig={"Delay": 0.05})
    world.theirs.delete_function(FunctionName="hello")
    world.theirs.delete_layer_version(LayerName="shelf", VersionNumber=1)
    digest = world.endpoint.store.functions.versions("hello")[0].layers[1].digest
    assert (world.endpoint.config.code_dir / digest).exists()
    world.ours.update_function_configuration(FunctionName="hello", Layers=[])
    eventually(lambda: not (world.endpoint.config.code_dir / digest).exists())


def test_a_package_goes_when_no_account_has_it(world: World) -> None:
    for client in (world.ours, world.theirs):
        world.create(client, "same", "same")
    used = {path.name for path in world.endpoint.config.code_dir.iterdir()}
    (digest,) = {one.code_digest for store in world.endpoint.stores for one in store.functions.versions("same")}
    world.ours.delete_function(FunctionName="same")
    world.ours.publish_layer_version(LayerName="l", Content={"ZipFile": package("theirs")})
    assert digest in used and (world.endpoint.config.code_dir / digest).exists()
    with urllib.request.urlopen(world.theirs.get_function(FunctionName="same")["Code"]["Location"]) as answer:
        assert answer.read() == package("same")
    world.theirs.delete_function(FunctionName="same")
    eventually(lambda: not (world.endpoint.config.code_dir / digest).exists())


def test_a_function_reaches_its_own_account(world: World) -> None:
    function = world.endpoint.store.functions.resolve("hello")
    assert function is not None

    def ask(name: str, **changes: Any) -> int:
        path = f"/2015-03-31/functions/{name}/invocations"
        answer = world.endpoint.api.handle_invoke_door(
            dataclasses.replace(function, **changes), Request("POST", path, {"x-sandboxd-account": THEIRS}, b"1")
        )
        return answer.status if isinstance(answer, Response) else int(world.endpoint.run(answer).status)

    world.create(world.theirs, "only", "theirs")
    assert [ask(name) for name in ("hello", arn(OURS), "only", arn(THEIRS), f"{THEIRS}:hello")] == [
        200, 200, 404, 403, 403
    ]  # fmt: skip
    assert {one.function.account for one in world.endpoint.scheduler.invocations} == {OURS}
    world.theirs.add_permission(FunctionName="hello", StatementId="s", Principal=OURS, Action="lambda:InvokeFunction")
    assert ask(arn(THEIRS)) == 403, "its account has no role that allows it"
    # A role of the same name, and one that is named by the other account's ARN, are none of its own.
    document = json.dumps({"Version": "2012-10-17", "Statement": EVERYTHING})
    put = {"PolicyName": "p", "PolicyDocument": document}
    world.admin("POST", "roles", {"RoleName": "lambda"})
    world.admin("PUT", "roles/lambda/policies", put)
    assert ask(arn(THEIRS)) == 403
    foreign = f"arn:aws:iam::{THEIRS}:role/lambda"
    assert ask(arn(THEIRS), role=foreign) == 403 and ask("hello", role=foreign) == 200
    assert world.endpoint.api.credentials(dataclasses.replace(function, role=foreign)) == {}
    world.admin("POST", "roles", {"RoleName": "lambda"}, account=OURS)
    world.admin("PUT", "roles/lambda/policies", put, account=OURS)
    assert ask(arn(THEIRS)) == 200
    credentials = world.endpoint.api.credentials(function)
    token = credentials["AWS_SESSION_TOKEN"]
    session = world.endpoint.api._sessions.session(token)
    assert (session.account, session.arn) == (OURS, arn(OURS))
    authorizer = world.endpoint.api._authorizer
    assert authorizer.check_invoke(session, ("hello", ""), Request("POST", "", {})) == OURS
    anew = dataclasses.replace(session, store="of an account that is no more")
    with pytest.raises(SandboxdError, match="Unrecognized"):
        authorizer.check_invoke(anew, ("hello", ""), Request("POST", "", {}))


def test_buckets_are_the_configuration_s_account_s(world: World) -> None:
    """They are asked with the configuration's key: a policy of another account's is not enough."""
    code = {"S3Bucket": "packages", "S3Key": "one.zip"}
    members = {"FunctionName": "s3", "Runtime": "python3.12", "Handler": "h.h", "Role": ROLE, "Code": code}
    assert error_of(world.ours.create_function, **members)[0] == "InvalidParameterValueException", "no endpoint"
    refused = error_of(world.theirs.create_function, **members)
    assert refused[0] == "AccessDeniedException" and "denied by S3" in refused[2]
    assert world.endpoint.unix("POST", "/2015-03-31/functions", members, x_sandboxd_account=THEIRS)[0] == 403


def test_destinations_stay_within_an_account(make_endpoint: Callable[..., Endpoint]) -> None:
    from sandboxd.model.destination import Spool

    queues = {account: f"arn:aws:sqs:us-east-1:{account}:q" for account in (OURS, THEIRS, "333333333333")}
    bucket = "arn:aws:s3:::records"
    endpoint = make_endpoint(destinations={one: Spool("q") for one in (*queues.values(), bucket)})
    world = World(endpoint)
    world.create(world.theirs, "other", "theirs")
    world.theirs.add_permission(FunctionName="other", StatementId="s", Principal="*", Action="lambda:*")

    def put(client: Any, target: str) -> str:
        config = {"OnFailure": {"Destination": target}}
        try:
            client.put_function_event_invoke_config(FunctionName="hello", DestinationConfig=config)
        except client.exceptions.InvalidParameterValueException:
            return "refused"
        return "kept"

    for target in (arn(THEIRS, "other"), arn(THEIRS, "none"), queues[THEIRS]):
        assert put(world.ours, target) == "refused", target
    for target in (arn(OURS), queues[OURS], queues["333333333333"], bucket):
        assert put(world.theirs, target) == "refused", target
    for client, target in ((world.ours, bucket), (world.ours, queues["333333333333"]), (world.ours, queues[OURS]),
                           (world.theirs, arn(THEIRS, "other")), (world.theirs, queues[THEIRS])):  # fmt: skip
        assert put(client, target) == "kept", target
        letters = {"FunctionName": "hello", "DeadLetterConfig": {"TargetArn": target}}
        if client is world.ours:
            refused = error_of(world.theirs.update_function_configuration, **letters)
            assert refused[0] == "InvalidParameterValueException", target
    (function,) = endpoint.store.functions.all()
    assert not endpoint.api.may_send(function, queues[THEIRS]) and endpoint.api.may_send(function, queues[OURS])
    assert not endpoint.api.may_send(function, arn(THEIRS, "other"))
    world.close()
