"""Roles that are kept here: who may assume them, what they permit of the network, what follows when they change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.errors import ApiError
from sandboxd.model.network import Network
from tests.api.conftest import ROLE, Endpoint
from tests.api.test_lifecycle import error_of
from tests.api.test_requests import creation

ROLES = "/sandboxd/v1/roles"
POLICY = "/sandboxd/v1/functions/hello/policy"
NETWORK = "/sandboxd/v1/functions/hello/network"
PLACES = "arn:sandboxd:network:::"
NOT_ASSUMED = "The role defined for the function cannot be assumed by Lambda."


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def connect(effect: str, *places: str, **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "sandboxd:Connect", "Resource": [PLACES + place for place in places], **more}


def trust(service: str, **more: Any) -> str:
    return document({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole", **more})


class Role:
    """The role `lambda` of an endpoint, which has the function hello with it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        endpoint.create()
        assert endpoint.unix("POST", ROLES, {"RoleName": "lambda"})[0] == 201
        endpoint.scheduler.retired.clear()

    def ask(self, method: str, path: str, body: Any = b"") -> tuple[int, Any]:
        status, _, answer = self.endpoint.unix(method, path, body)
        return status, json.loads(answer) if answer else None

    def put(self, *statements: dict[str, Any], name: str = "p") -> tuple[int, Any]:
        body = {"PolicyName": name, "PolicyDocument": document(*statements)}
        return self.ask("PUT", f"{ROLES}/lambda/policies", body)

    def network(self) -> list[str]:
        status, found = self.ask("GET", NETWORK)
        assert status == 200, found
        return [*found["Allow"], *(f"not {place}" for place in found["Deny"])]

    def retired(self) -> int:
        """How often the function's environments were, since this was asked last."""
        count = len(self.endpoint.scheduler.retired)
        self.endpoint.scheduler.retired.clear()
        return count


@pytest.fixture
def role(endpoint: Endpoint) -> Role:
    return Role(endpoint)


def test_a_role_decides_what_its_functions_may_reach(role: Role) -> None:
    assert role.network() == []
    assert role.put(connect("Allow", "10.0.0.0/8:5432", "api.example.org:443"))[0] == 204
    assert role.network() == ["10.0.0.0/8:5432", "api.example.org:443"]
    assert role.put(connect("Deny", "10.1.0.0/16"), name="q")[0] == 204
    assert role.network() == ["10.0.0.0/8:5432", "api.example.org:443", "not 10.1.0.0/16:443", "not 10.1.0.0/16:5432"]
    own = {"AllowEgress": ["0.0.0.0/0:443", "10.0.0.0/9:5432"], "AllowInvoke": False}
    assert role.ask("PUT", POLICY, own) == (200, own)
    assert role.network() == ["10.0.0.0/9:5432", "not 10.1.0.0/16:5432"], "its own setting narrows"
    assert role.ask("PUT", POLICY, {"AllowEgress": []})[0] == 200
    assert role.network() == []
    assert role.ask("PUT", POLICY, {})[0] == 200
    assert role.ask("GET", POLICY) == (200, {"AllowEgress": None, "AllowInvoke": False})
    assert len(role.network()) == 4
    assert role.ask("DELETE", f"{ROLES}/lambda")[0] == 204
    assert role.network() == []
    assert role.ask("PUT", POLICY, own)[0] == 200
    assert role.network() == ["0.0.0.0/0:443", "10.0.0.0/9:5432"], "without the role it stands alone"


def test_environments_end_when_what_they_may_reach_does(role: Role) -> None:
    allow = connect("Allow", "10.0.0.0/8:80")
    other = {"Effect": "Allow", "Action": "lambda:*", "Resource": "*"}
    changes: tuple[tuple[Callable[[], tuple[int, Any]], int], ...] = (
        (lambda: role.put(other), 0),
        (lambda: role.put(other, allow), 1),
        (lambda: role.put(allow), 0),
        (lambda: role.put(connect("Deny", "10.1.0.0/16"), name="q"), 1),
        (lambda: role.ask("DELETE", f"{ROLES}/lambda/policies?name=q"), 1),
        (lambda: role.ask("PUT", f"{ROLES}/lambda/boundary", {"PolicyDocument": document(allow)}), 1),
        (lambda: role.ask("DELETE", f"{ROLES}/lambda/boundary"), 1),
        (lambda: role.ask("PUT", f"{ROLES}/lambda/trust", {"PolicyDocument": trust("*")}), 1),
        (lambda: role.ask("DELETE", f"{ROLES}/lambda"), 1),
        (lambda: role.ask("POST", ROLES, {"RoleName": "lambda"}), 1),
        (lambda: role.ask("POST", ROLES, {"RoleName": "lambda2"}), 0),
    )
    for change, expected in changes:
        status, answer = change()
        assert status in (201, 204), answer
        assert role.retired() == expected


def test_a_boundary_bounds_the_network_too(role: Role) -> None:
    assert role.put(connect("Allow", "10.0.0.0/8:80", "8.8.8.8:53"))[0] == 204
    boundary = document(connect("Allow", "10.1.0.0/16:80"), connect("Deny", "10.1.1.0/24"))
    assert role.ask("PUT", f"{ROLES}/lambda/boundary", {"PolicyDocument": boundary})[0] == 204
    assert role.network() == ["10.1.0.0/16:80", "not 10.1.1.0/24:80"]
    status, shown = role.ask("GET", f"{ROLES}/lambda")
    assert status == 200 and shown["PermissionsBoundary"] == json.loads(boundary)
    assert role.ask("DELETE", f"{ROLES}/lambda/boundary")[0] == 204
    assert role.ask("DELETE", f"{ROLES}/lambda/boundary")[0] == 404


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (connect("Allow", "10.0.0.0/33:80"), "Statement 1: arn:sandboxd:network:::10.0.0.0/33:80: "),
        (connect("Allow", "8.8.8.8:53", Condition={"Bool": {"aws:SecureTransport": "true"}}), "Statement 1: it covers"),
        (connect("Allow", "10.0.0.0/8"), "The network destinations of a role's policies: 65535 ports"),
    ],
)
def test_what_the_router_cannot_judge_is_refused(role: Role, statement: dict[str, Any], words: str) -> None:
    status, answer = role.put(statement)
    assert status == 400 and answer["message"].startswith(words), answer
    if words.startswith("Statement"):
        boundary = {"PolicyDocument": document(statement)}
        status, answer = role.ask("PUT", f"{ROLES}/lambda/boundary", boundary)
        assert status == 400 and answer["message"].startswith(words), answer
    assert role.network() == [] and role.retired() == 0


def test_role_and_function_together_have_a_bound(role: Role) -> None:
    """Each fits; what they have in common is a thousand rules of a port each."""
    client = role.endpoint.boto3()
    own = {"AllowEgress": [f"10.{number}.0.0/16:1-16" for number in range(60)]}
    assert role.ask("PUT", POLICY, own)[0] == 200
    wide = connect("Allow", *(f"10.0.0.0/8:{port}" for port in range(1, 16, 2)))
    status, answer = role.put(wide)
    assert status == 400 and "the function hello and its role" in answer["message"], answer
    assert role.ask("PUT", POLICY, {})[0] == 200
    assert role.put(wide)[0] == 204
    status, answer = role.ask("PUT", POLICY, own)
    assert status == 400 and "more than 64 rules" in answer["message"], answer
    other = ROLE.replace("lambda", "other")
    client.update_function_configuration(FunctionName="hello", Role=other)
    role.endpoint.settled("hello")
    assert role.ask("PUT", POLICY, own)[0] == 200
    refused = error_of(client.update_function_configuration, FunctionName="hello", Role=ROLE)
    assert refused[0] == "InvalidParameterValueException" and "more than 64 rules" in refused[2]
    client.close()


def test_a_role_that_lambda_cannot_assume(role: Role) -> None:
    client = role.endpoint.boto3()
    function = role.endpoint.store.functions.resolve("hello")
    assert function is not None
    for other in (
        trust("ec2.amazonaws.com"),
        trust("lambda.amazonaws.com", Condition={"StringEquals": {"aws:SourceAccount": "222222222222"}}),
        trust("lambda.amazonaws.com", Condition={"ArnLike": {"aws:SourceArn": f"{function.arn}2"}}),
    ):
        assert role.ask("PUT", f"{ROLES}/lambda/trust", {"PolicyDocument": other})[0] == 204
        refused = ("InvalidParameterValueException", 400, NOT_ASSUMED)
        assert error_of(client.create_function, **creation("new")) == refused
        assert error_of(client.update_function_configuration, FunctionName="hello", Role=ROLE) == refused
        with pytest.raises(ApiError, match=r"AccessDeniedException.*cannot be assumed by Lambda"):
            role.endpoint.api.network(function)
    client.update_function_configuration(FunctionName="hello", Description="what is not about its role is changed")
    role.endpoint.settled("hello")
    good = trust("lambda.amazonaws.com", Condition={"ArnLike": {"aws:SourceArn": f"{function.arn}*"}})
    assert role.ask("PUT", f"{ROLES}/lambda/trust", {"PolicyDocument": good})[0] == 204
    client.update_function_configuration(FunctionName="hello", Role=ROLE)
    assert role.endpoint.api.network(function) == Network()
    assert error_of(client.create_function, **creation("new")) == refused, "of another name"
    client.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "This policy contains invalid Json"),
        (
            document({"Effect": "Allow", "Principal": "*", "Action": "lambda:*"}),
            "AssumeRole policy may only specify STS",
        ),
        (trust("lambda.amazonaws.com", Resource="*"), "Has prohibited field Resource"),
        (document({"Effect": "Allow", "Action": "sts:AssumeRole"}), "Policy statement must contain principals"),
        (
            document({"Effect": "Deny", "NotPrincipal": "*", "Action": "sts:AssumeRole"}),
            "Has prohibited field NotPrinc",
        ),
        (trust("x" * 2048), "Cannot exceed quota for ACLSizePerRole: 2048"),
    ],
)
def test_trust_policies_that_are_none(role: Role, text: str, words: str) -> None:
    for method, path, body in (
        ("PUT", f"{ROLES}/lambda/trust", {"PolicyDocument": text}),
        ("POST", ROLES, {"RoleName": "other", "AssumeRolePolicyDocument": text}),
    ):
        status, answer = role.ask(method, path, body)
        assert status == 400 and answer["message"].startswith(words), answer


def test_trust_is_shown_and_kept(make_endpoint: Callable[..., Endpoint]) -> None:
    role = Role(make_endpoint())
    shown = role.ask("GET", f"{ROLES}/lambda")[1]["AssumeRolePolicyDocument"]
    assert shown == json.loads(trust("lambda.amazonaws.com"))
    other = {"RoleName": "other", "AssumeRolePolicyDocument": trust("ec2.amazonaws.com")}
    assert role.ask("POST", ROLES, other)[0] == 201
    assert role.put(connect("Allow", "8.8.8.8:53"))[0] == 204
    role.endpoint = make_endpoint()
    assert role.network() == ["8.8.8.8/32:53"]
    found = role.ask("GET", f"{ROLES}/other")[1]["AssumeRolePolicyDocument"]
    assert found == json.loads(trust("ec2.amazonaws.com"))


def test_a_dead_letter_queue_needs_the_roles_permission(make_endpoint: Callable[..., Endpoint]) -> None:
    queue, topic = "arn:aws:sqs:us-east-1:111111111111:dead", "arn:aws:sns:us-east-1:111111111111:dead"
    role = Role(make_endpoint(destinations={queue: "file:dead", topic: "file:topic"}))
    client = role.endpoint.boto3()
    refused = "The provided execution role does not have permissions to call "
    for arn, action in ((queue, "SendMessage on SQS"), (topic, "Publish on SNS")):
        config = {"TargetArn": arn}
        found = error_of(client.create_function, **creation("new", DeadLetterConfig=config))
        assert found == ("InvalidParameterValueException", 400, refused + action)
        found = error_of(client.update_function_configuration, FunctionName="hello", DeadLetterConfig=config)
        assert found == ("InvalidParameterValueException", 400, refused + action)
    assert role.put({"Effect": "Allow", "Action": ["sqs:SendMessage", "sns:Publish"], "Resource": "*"})[0] == 204
    client.update_function_configuration(FunctionName="hello", DeadLetterConfig={"TargetArn": queue})
    role.endpoint.settled("hello")
    assert role.put({"Effect": "Allow", "Action": "lambda:*", "Resource": "*"})[0] == 204
    found = error_of(client.update_function_configuration, FunctionName="hello", Role=ROLE)
    assert found[2] == f"{refused}SendMessage on SQS", "the queue is there already"
    client.update_function_configuration(FunctionName="hello", DeadLetterConfig={"TargetArn": ""}, Role=ROLE)
    client.close()


def test_groups_give_their_users_what_they_may(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint()
    endpoint.create()
    users, groups = "/sandboxd/v1/users", "/sandboxd/v1/groups"

    def ask(method: str, path: str, body: Any = b"", expected: int = 204) -> Any:
        status, _, answer = endpoint.unix(method, path, body)
        assert status == expected, answer
        return json.loads(answer) if answer else None

    ask("POST", users, {"UserName": "alice"}, 201)
    key = ask("POST", "/sandboxd/v1/keys", {"UserName": "alice"}, 201)
    alice = endpoint.boto3(key["AccessKeyId"], key["SecretAccessKey"])
    made = ask("POST", groups, {"GroupName": "readers"}, 201)
    assert made["Arn"] == "arn:aws:iam::111111111111:group/readers" and made["Users"] == []
    read = document({"Effect": "Allow", "Action": "lambda:Get*", "Resource": "*"})
    ask("PUT", f"{groups}/readers/policies", {"PolicyName": "p", "PolicyDocument": read})
    assert error_of(alice.get_function, FunctionName="hello")[0] == "AccessDeniedException"
    ask("PUT", f"{users}/alice/groups", {"GroupName": "readers"})
    alice.get_function(FunctionName="hello")
    assert ask("GET", f"{groups}/readers", expected=200)["Users"] == ["alice"]
    assert ask("GET", f"{users}/alice", expected=200)["Groups"] == ["readers"]
    bounds = document({"Effect": "Allow", "Action": "lambda:List*", "Resource": "*"})
    ask("PUT", f"{users}/alice/boundary", {"PolicyDocument": bounds})
    refused = error_of(alice.get_function, FunctionName="hello")
    assert refused[2].endswith("because no permissions boundary allows the lambda:GetFunction action")
    ask("DELETE", f"{users}/alice/boundary")
    ask("DELETE", f"{groups}/readers", expected=409)
    ask("PUT", f"{users}/alice/groups", {"GroupName": "none"}, 404)
    ask("DELETE", f"{users}/alice/groups?name=none", expected=404)
    ask("PUT", f"{groups}/readers/boundary", {"PolicyDocument": bounds}, 404)
    alice.close()
    endpoint = make_endpoint()
    alice = endpoint.boto3(key["AccessKeyId"], key["SecretAccessKey"])
    alice.get_function(FunctionName="hello")
    ask("DELETE", f"{users}/alice/groups?name=readers")
    assert error_of(alice.get_function, FunctionName="hello")[0] == "AccessDeniedException"
    ask("DELETE", f"{groups}/readers")
    for number in range(11):
        ask("POST", groups, {"GroupName": f"g{number}"}, 201)
        ask("PUT", f"{users}/alice/groups", {"GroupName": f"g{number}"}, 204 if number < 10 else 409)
    alice.close()
