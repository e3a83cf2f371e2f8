"""Who may call: users, their keys and policies, and what answers tell those who may not."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config as ClientConfig

from sandboxd.api.authorize import ANY_RESOURCE, Authorizer
from sandboxd.api.service_model import ServiceModel
from sandboxd.errors import ApiError
from sandboxd.http import Request, Response
from tests.api.conftest import ROLE, Endpoint
from tests.api.test_lifecycle import error_of
from tests.api.test_requests import creation

ACCOUNT, OTHER = "111111111111", "222222222222"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"
USERS = "/sandboxd/v1/users"
ALICE = f"arn:aws:iam::{ACCOUNT}:user/alice"


def named(account: str) -> dict[str, str]:
    """The header that names an account; none: the configuration's."""
    return {"x_sandboxd_account": account} if account else {}


class Users:
    """Users of an endpoint, each with a key and a client; of another account where one is named."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._clients: list[Any] = []

    def add(self, name: str, *statements: dict[str, Any], account: str = "") -> Any:
        """A new user's client."""
        assert self._endpoint.unix("POST", USERS, {"UserName": name}, **named(account))[0] == 201
        if statements:
            self.permit(name, *statements, account=account)
        return self.client(name, account)

    def client(self, name: str, account: str = "") -> Any:
        """A client with another key of a user."""
        body = {"UserName": name}
        status, _, answer = self._endpoint.unix("POST", "/sandboxd/v1/keys", body, **named(account))
        assert status == 201, answer
        key = json.loads(answer)
        self._clients.append(self._endpoint.boto3(key["AccessKeyId"], key["SecretAccessKey"]))
        return self._clients[-1]

    def permit(self, name: str, *statements: dict[str, Any], policy: str = "p", account: str = "") -> None:
        """Give a user a policy."""
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        body = {"PolicyName": policy, "PolicyDocument": document}
        path = f"{USERS}/{name}/policies"
        status, _, answer = self._endpoint.unix("PUT", path, body, **named(account))
        assert status == 204, answer

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def users(endpoint: Endpoint) -> Iterator[Users]:
    """Users of the endpoint that has the function hello."""
    endpoint.create()
    made = Users(endpoint)
    yield made
    made.close()


def allow(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def denied(action: str, resource: str, reason: str = "", user: str = ALICE) -> tuple[str, int, str]:
    reason = reason or f"because no identity-based policy allows the {action} action"
    return (
        "AccessDeniedException",
        403,
        f"User: {user} is not authorized to perform: {action} on resource: {resource} {reason}",
    )


def test_a_user_may_do_nothing_that_no_policy_allows(users: Users) -> None:
    alice = users.add("alice")
    for name in ("hello", "none", ARN + "hello"):
        shown = ARN + name.removeprefix(ARN)
        assert error_of(alice.invoke, FunctionName=name) == denied("lambda:InvokeFunction", shown)
        assert error_of(alice.get_function, FunctionName=name) == denied("lambda:GetFunction", shown)
    assert error_of(alice.list_functions) == denied("lambda:ListFunctions", "*")
    assert error_of(alice.delete_function, FunctionName="hello") == denied("lambda:DeleteFunction", ARN + "hello")
    made = error_of(alice.create_function, **creation("new"))
    assert made == denied("lambda:CreateFunction", ARN + "new")
    qualified = error_of(alice.invoke, FunctionName="hello", Qualifier="live")
    assert qualified == denied("lambda:InvokeFunction", ARN + "hello:live")


def test_policies_count_from_the_moment_they_are_put(endpoint: Endpoint, users: Users) -> None:
    alice = users.add("alice", allow("lambda:Invoke*", ARN + "hello"))
    assert alice.invoke(FunctionName="hello", Payload=b"1")["Payload"].read() == b"1"
    assert alice.invoke(FunctionName="hello", Payload=b"2")["StatusCode"] == 200
    assert error_of(alice.invoke, FunctionName="hello:1") == denied("lambda:InvokeFunction", ARN + "hello:1")
    users.permit("alice", allow("*") | {"Effect": "Deny"}, policy="q")
    explicit = "with an explicit deny in an identity-based policy"
    assert error_of(alice.invoke, FunctionName="hello") == denied("lambda:InvokeFunction", ARN + "hello", explicit)
    assert endpoint.unix("DELETE", f"{USERS}/alice/policies?name=q")[0] == 204
    alice.invoke(FunctionName="hello")
    assert endpoint.unix("DELETE", f"{USERS}/alice/policies?name=p")[0] == 204
    assert error_of(alice.invoke, FunctionName="hello") == denied("lambda:InvokeFunction", ARN + "hello")
    assert len(endpoint.scheduler.invocations) == 3


def test_the_query_names_no_other_function(endpoint: Endpoint, users: Users) -> None:
    alice = users.add("alice", allow("lambda:*", ARN + "mine"))
    key_id = alice._request_signer._credentials.access_key
    authorizer, request = Authorizer(endpoint.stores, "us-east-1"), Request("POST", "", {})
    authorizer.check_invoke(key_id, ("mine", ""), request)
    for query in ("FunctionName=mine", "UUID=x", "LayerName=x", f"Resource={ARN}mine", "Qualifier=mine"):
        with pytest.raises(ApiError, match="AccessDeniedException"):
            authorizer.check_invoke(key_id, ("hello", query), request)


def test_a_resource_policy_permits_what_it_names(endpoint: Endpoint, users: Users) -> None:
    assert endpoint.unix("POST", "/sandboxd/v1/accounts", {"AccountId": OTHER})[0] == 201
    admin, alice, bob = endpoint.boto3(), users.add("alice"), users.add("bob", account=OTHER)
    admin.publish_version(FunctionName="hello")
    hello = {"FunctionName": "hello", "Action": "lambda:InvokeFunction"}
    admin.add_permission(StatementId="alice", Principal=ALICE, **hello)
    alice.invoke(FunctionName="hello")
    for qualified in ("hello:1", "hello:$LATEST"):
        assert error_of(alice.invoke, FunctionName=qualified)[0] == "AccessDeniedException"
    admin.add_permission(StatementId="alice", Principal=ALICE, Qualifier="1", **hello)
    assert alice.invoke(FunctionName="hello:1")["ExecutedVersion"] == "1"
    admin.remove_permission(FunctionName="hello", StatementId="alice")
    assert error_of(alice.invoke, FunctionName="hello")[0] == "AccessDeniedException"
    # Across accounts both have to allow it.
    admin.add_permission(StatementId="bob", Principal=OTHER, **hello)
    who = f"arn:aws:iam::{OTHER}:user/bob"
    assert error_of(bob.invoke, FunctionName=ARN + "hello") == denied(
        "lambda:InvokeFunction", ARN + "hello", user=who
    )  # fmt: skip
    users.permit("bob", allow("lambda:*"), account=OTHER)
    bob.invoke(FunctionName=ARN + "hello")
    bob.invoke(FunctionName=f"{ACCOUNT}:function:hello")
    reason = "because no resource-based policy allows the lambda:GetFunction action"
    assert error_of(bob.get_function, FunctionName=ARN + "hello") == denied(
        "lambda:GetFunction", ARN + "hello", reason, who
    )
    assert error_of(bob.invoke, FunctionName="hello") == (
        "ResourceNotFoundException",
        404,
        f"Function not found: arn:aws:lambda:us-east-1:{OTHER}:function:hello:$LATEST",
    )  # fmt: skip
    assert bob.list_functions()["Functions"] == []
    admin.delete_function(FunctionName="hello")
    endpoint.create()
    assert error_of(bob.invoke, FunctionName=ARN + "hello")[0] == "AccessDeniedException"
    elsewhere = f"arn:aws:lambda:us-east-1:{OTHER}:function:hello"
    reason = "because no resource-based policy allows the lambda:InvokeFunction action"
    root = f"arn:aws:iam::{ACCOUNT}:user/admin"
    assert error_of(admin.invoke, FunctionName=elsewhere) == denied("lambda:InvokeFunction", elsewhere, reason, root)


def test_creating_takes_what_else_it_uses(endpoint: Endpoint, users: Users) -> None:
    alice = users.add("alice", allow("lambda:CreateFunction"))
    passing = error_of(alice.create_function, **creation("new"))
    assert passing == denied("iam:PassRole", ROLE)
    to_lambda = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    users.permit("alice", allow("lambda:CreateFunction"), allow("iam:PassRole", ROLE, Condition=to_lambda))
    tagged = error_of(alice.create_function, **creation("new", Tags={"a": "b"}))
    assert tagged == denied("lambda:TagResource", ARN + "new")
    alice.create_function(**creation("new"))


def test_conditions_on_what_a_request_says(endpoint: Endpoint, users: Users) -> None:
    own = {"StringEquals": {"lambda:Principal": "s3.amazonaws.com"}}
    alice = users.add(
        "alice",
        allow("lambda:AddPermission", Condition=own),
        allow("lambda:InvokeFunction", Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}),
        allow("lambda:GetFunction", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
        allow("lambda:GetFunctionConfiguration", ARN + "${aws:username}-*"),
    )
    add = {"FunctionName": "hello", "Action": "lambda:InvokeFunction", "StatementId": "s"}
    assert error_of(alice.add_permission, Principal="*", **add)[0] == "AccessDeniedException"
    alice.add_permission(Principal="s3.amazonaws.com", **add)
    alice.invoke(FunctionName="hello")
    assert error_of(alice.get_function, FunctionName="hello")[0] == "AccessDeniedException"
    assert error_of(alice.get_function_configuration, FunctionName="alice-1")[0] == "ResourceNotFoundException"
    assert error_of(alice.get_function_configuration, FunctionName="hello")[0] == "AccessDeniedException"


def test_what_depends_on_the_moment_is_decided_each_time(endpoint: Endpoint, users: Users) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    alice = users.add("alice", allow("lambda:*", Condition={"DateLessThan": {"aws:CurrentTime": until}}))
    alice.invoke(FunctionName="hello")
    time.sleep(4)
    assert error_of(alice.invoke, FunctionName="hello")[0] == "AccessDeniedException"


def test_users_of_the_administration(endpoint: Endpoint, users: Users) -> None:
    alice = users.add("alice", allow("lambda:*"))
    alice.list_functions()
    shown = json.loads(endpoint.unix("GET", USERS)[2])["Users"]
    assert [(user["UserName"], user["Arn"], user["Policies"]) for user in shown] == [
        ("admin", f"arn:aws:iam::{ACCOUNT}:user/admin", ["AdministratorAccess"]),
        ("alice", ALICE, ["p"]),
    ]
    keys = json.loads(endpoint.unix("GET", "/sandboxd/v1/keys")[2])["Keys"]
    assert sorted(key["UserName"] for key in keys) == ["admin", "alice"]
    document = json.loads(endpoint.unix("GET", f"{USERS}/alice")[2])["PolicyDocuments"]["p"]
    assert document["Statement"] == [allow("lambda:*")]
    for method, path, body, status in (
        ("POST", USERS, {"UserName": "alice"}, 409),
        ("POST", USERS, {"UserName": "a b"}, 400),
        ("POST", USERS, {"UserName": "bob", "AccountId": "1"}, 400),
        ("POST", USERS, {"UserName": 1}, 400),
        ("POST", USERS, {"Name": "bob"}, 400),
        ("POST", "/sandboxd/v1/keys", {"UserName": "bob"}, 404),
        ("POST", "/sandboxd/v1/keys", {"UserName": 1}, 400),
        ("GET", f"{USERS}/bob", b"", 404),
        ("DELETE", f"{USERS}/bob", b"", 404),
        ("DELETE", f"{USERS}/admin", b"", 400),
        ("DELETE", f"{USERS}/alice/policies?name=q", b"", 404),
        ("PUT", f"{USERS}/alice/policies", {"PolicyName": "q", "PolicyDocument": "{}"}, 400),
        ("PUT", f"{USERS}/alice/policies", {"PolicyName": "", "PolicyDocument": document}, 400),
        ("PUT", f"{USERS}/bob/policies", {"PolicyName": "q", "PolicyDocument": json.dumps(document)}, 404),
    ):
        assert endpoint.unix(method, path, body)[0] == status, (method, path, body)
    for number in range(9):
        users.permit("alice", allow("lambda:*"), policy=f"p{number}")
    more = {"PolicyName": "more", "PolicyDocument": json.dumps(document)}
    assert endpoint.unix("PUT", f"{USERS}/alice/policies", more)[0] == 409
    assert endpoint.unix("DELETE", f"{USERS}/alice")[0] == 204
    assert error_of(alice.list_functions)[:2] == ("UnrecognizedClientException", 403)
    users.add("alice")
    assert error_of(alice.list_functions)[:2] == ("UnrecognizedClientException", 403)


def test_users_survive_a_restart(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint()
    endpoint.create()
    users = Users(endpoint)
    alice = users.add("alice", allow("lambda:InvokeFunction", ARN + "hello"))
    credentials = alice._request_signer._credentials
    endpoint = make_endpoint()
    again = endpoint.boto3(credentials.access_key, credentials.secret_key)
    again.invoke(FunctionName="hello")
    assert error_of(again.get_function, FunctionName="hello") == denied("lambda:GetFunction", ARN + "hello")
    users.close()
    again.close()


def test_a_role_that_is_kept_decides_at_the_door(endpoint: Endpoint) -> None:
    endpoint.create()
    function = endpoint.store.functions.resolve("hello")
    assert function is not None
    paths = {name: f"/2015-03-31/functions/{name}/invocations" for name in ("hello", "other", "hello:1")}

    def ask(name: str) -> int:
        answer = endpoint.api.handle_invoke_door(function, Request("POST", paths[name], {}, b"1"))
        return answer.status if isinstance(answer, Response) else int(endpoint.run(answer).status)

    assert [ask(name) for name in paths] == [200, 404, 404]
    roles = "/sandboxd/v1/roles"
    assert endpoint.unix("POST", roles, {"RoleName": "lambda"})[0] == 201
    assert [ask(name) for name in paths] == [403, 403, 403]
    own = {"ArnLike": {"lambda:SourceFunctionArn": ARN + "hello"}}
    statement = allow("lambda:InvokeFunction", ARN + "hello", Condition=own)
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    body = {"PolicyName": "p", "PolicyDocument": document}
    assert endpoint.unix("PUT", f"{roles}/lambda/policies", body)[0] == 204
    assert [ask(name) for name in paths] == [200, 403, 403]
    foreign = dataclasses.replace(function, role=f"arn:aws:iam::{OTHER}:role/lambda")
    answer = endpoint.api.handle_invoke_door(foreign, Request("POST", paths["other"], {}, b"1"))
    assert not isinstance(answer, Response) and endpoint.run(answer).status == 404
    for bad in ({"RoleName": "lambda"}, {"RoleName": "x", "AccountId": OTHER}):
        assert endpoint.unix("POST", roles, bad)[0] in (400, 409)
    assert endpoint.unix("DELETE", f"{roles}/lambda")[0] == 204
    assert ask("other") == 404


def test_temporary_credentials_of_a_function(endpoint: Endpoint) -> None:
    endpoint.create()
    function = endpoint.store.functions.resolve("hello")
    assert function is not None
    assert endpoint.api.credentials(function) == {}, "its role is not kept here"
    roles = "/sandboxd/v1/roles"
    assert endpoint.unix("POST", roles, {"RoleName": "lambda"})[0] == 201
    now = [time.time()]
    endpoint.api._sessions._now = lambda: now[0]
    made = endpoint.api.credentials(function)
    assert made["AWS_ACCESS_KEY_ID"].startswith("ASIA") and len(made["AWS_ACCESS_KEY_ID"]) == 20
    assert len(made["AWS_SECRET_ACCESS_KEY"]) == 40

    def client(**changed: str) -> Any:
        keys = made | changed
        return boto3.client(
            "lambda",
            endpoint_url=endpoint.url,
            region_name="us-east-1",
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys["AWS_SESSION_TOKEN"] or None,
            config=ClientConfig(retries={"max_attempts": 0}),
        )

    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/lambda/hello"
    own = client()
    for call in (own.invoke, own.get_function):
        action = "lambda:InvokeFunction" if call == own.invoke else "lambda:GetFunction"
        assert error_of(call, FunctionName="hello") == denied(action, ARN + "hello", user=session)
    document = json.dumps({"Version": "2012-10-17", "Statement": allow("lambda:Get*", ARN + "hello")})
    assert endpoint.unix("PUT", f"{roles}/lambda/policies", {"PolicyName": "p", "PolicyDocument": document})[0] == 204
    own.get_function(FunctionName="hello")

    async def renew() -> None:
        endpoint.api.renew_credentials()

    endpoint.run(renew())
    assert endpoint.scheduler.retired == ["hello:$LATEST"] * 2, "when the role came, and now"
    head, _, code = made["AWS_SESSION_TOKEN"].partition(".")
    for changed in (
        {"AWS_SESSION_TOKEN": ""},
        {"AWS_SESSION_TOKEN": "x"},
        {"AWS_SESSION_TOKEN": f"{head}.{code[::-1]}"},
        {"AWS_SESSION_TOKEN": f"{head}."},
        {"AWS_ACCESS_KEY_ID": "ASIA" + "A" * 16},
        {"AWS_ACCESS_KEY_ID": endpoint.key.id, "AWS_SECRET_ACCESS_KEY": endpoint.key.secret},
    ):
        assert error_of(client(**changed).get_function, FunctionName="hello")[0] == "UnrecognizedClientException"
    wrong = client(AWS_SECRET_ACCESS_KEY="x" * 40)
    assert error_of(wrong.get_function, FunctionName="hello")[0] == "InvalidSignatureException"
    now[0] += 12 * 3600 + 1
    text = "The security token included in the request is expired"
    assert error_of(own.get_function, FunctionName="hello") == ("ExpiredTokenException", 403, text)
    now[0] -= 3600
    own.get_function(FunctionName="hello")
    assert endpoint.unix("DELETE", f"{roles}/lambda")[0] == 204
    assert error_of(own.get_function, FunctionName="hello")[0] == "UnrecognizedClientException"


def test_every_operation_has_its_resource(endpoint: Endpoint) -> None:
    authorizer = Authorizer(endpoint.stores, "us-east-1")
    model = ServiceModel.load({"Invoke"})
    offered = endpoint.api._accounts.own.operations.keys() | {"Invoke"}
    assert model.operations.keys() >= ANY_RESOURCE
    for operation in offered:
        shape = ServiceModel.load({operation}).operations[operation].input
        assert shape is not None
        members = {name: f"arn:aws:lambda:us-east-1:{ACCOUNT}:x:{name}" for name in shape.required}
        resource = authorizer.resource(operation, members, ACCOUNT)
        assert (resource == "*") == (operation in ANY_RESOURCE), operation


def test_a_mapping_is_judged_by_the_function_that_it_has_and_that_it_shall_have(
    endpoint: Endpoint, client: Any, users: Users
) -> None:
    endpoint.create("other")
    mappings = [
        client.create_event_source_mapping(
            FunctionName=name, EventSourceArn=f"arn:aws:sqs:us-east-1:{ACCOUNT}:q", Enabled=False, Tags={"Of": name}
        )["UUID"]
        for name in ("hello", "other")
    ]
    actions = [f"lambda:{verb}EventSourceMapping" for verb in ("Create", "Update", "Delete")]
    own = {"ArnEquals": {"lambda:FunctionArn": f"{ARN}hello"}}
    tagged = {"StringEquals": {"aws:ResourceTag/Of": "hello"}}
    alice = users.add("alice", allow(actions, Condition=own), allow("lambda:GetEventSourceMapping", Condition=tagged))
    alice.get_event_source_mapping(UUID=mappings[0])
    alice.update_event_source_mapping(UUID=mappings[0], BatchSize=5)
    for call, members in (
        (alice.get_event_source_mapping, {"UUID": mappings[1]}),
        (alice.update_event_source_mapping, {"UUID": mappings[1], "BatchSize": 5}),
        (alice.update_event_source_mapping, {"UUID": mappings[1], "FunctionName": "hello"}),
        (alice.update_event_source_mapping, {"UUID": mappings[0], "FunctionName": "other"}),
        (alice.delete_event_source_mapping, {"UUID": mappings[1]}),
        (alice.create_event_source_mapping, {"FunctionName": "other", "Enabled": False}),
    ):
        assert error_of(call, **members)[:2] == ("AccessDeniedException", 403)
    alice.delete_event_source_mapping(UUID=mappings[0])


def test_a_code_signing_configuration_is_judged_by_its_tags(endpoint: Endpoint, client: Any, users: Users) -> None:
    publishers = {"SigningProfileVersionArns": [f"arn:aws:signer:us-east-1:{ACCOUNT}:/signing-profiles/p/0123456789"]}
    mine, another = (
        client.create_code_signing_config(AllowedPublishers=publishers, Tags={"Of": who})["CodeSigningConfig"]
        for who in ("alice", "bob")
    )
    tagged = {"StringEquals": {"aws:ResourceTag/Of": "alice"}}
    alice = users.add("alice", allow(["lambda:GetCodeSigningConfig", "lambda:ListTags"], Condition=tagged))
    alice.get_code_signing_config(CodeSigningConfigArn=mine["CodeSigningConfigArn"])
    assert alice.list_tags(Resource=mine["CodeSigningConfigArn"])["Tags"] == {"Of": "alice"}
    for call, members in (
        (alice.get_code_signing_config, {"CodeSigningConfigArn": another["CodeSigningConfigArn"]}),
        (alice.list_tags, {"Resource": another["CodeSigningConfigArn"]}),
    ):
        assert error_of(call, **members)[:2] == ("AccessDeniedException", 403)
