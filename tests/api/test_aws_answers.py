"""The same requests that AWS was asked: the same members in the same states, the same errors in the same words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import ROLE, Endpoint, package

RECORDED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "aws_answers.json").read_text())
PLACEHOLDER = re.compile(r"<([a-z_]+)(?::len\((\d+)\)|[^<>]*)>")
ARN = "arn:aws:lambda:us-east-1:111111111111:function:"
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")


class Scenario:
    """The recorded steps of one scenario; equal placeholders have to stand for equal values."""

    def __init__(self, name: str) -> None:
        self.steps = RECORDED[name]
        self._bound: dict[str, Any] = {"<partition>": "aws", "<region>": "us-east-1"}

    def check(self, step: str, answer: dict[str, Any]) -> None:
        """The answer is what AWS answered at this step."""
        recorded = self.steps[step]
        recorded = recorded.get("CreateFunctionResponse", recorded)
        self.compare(recorded, _plain(answer), step)

    def compare(self, recorded: Any, actual: Any, where: str) -> None:
        """Every member that was recorded, and no other, has the value that was recorded."""
        if isinstance(recorded, dict):
            assert isinstance(actual, dict) and recorded.keys() == actual.keys(), (where, recorded, actual)
            for name in recorded:
                self.compare(recorded[name], actual[name], f"{where}.{name}")
        elif isinstance(recorded, list):
            assert len(recorded) == len(actual), (where, recorded, actual)
            for index, item in enumerate(recorded):
                self.compare(item, actual[index], f"{where}[{index}]")
        elif recorded == "date":
            assert DATE.fullmatch(actual), (where, actual)
        elif recorded in ("<code-size>", "<location>"):  # other ones each time
            assert actual, where
        elif isinstance(recorded, str):
            self._compare_text(recorded, str(actual), where)
        else:
            assert recorded == actual, (where, recorded, actual)

    def _compare_text(self, recorded: str, actual: str, where: str) -> None:
        names: list[str] = []
        pattern, begin = "", 0
        for match in PLACEHOLDER.finditer(recorded):
            pattern += re.escape(recorded[begin : match.start()])
            begin = match.end()
            if match[2]:
                pattern += re.escape(match[1] * int(match[2]))
            elif match[0] in self._bound:
                pattern += re.escape(self._bound[match[0]])
            else:
                names.append(match[0])
                pattern += r"(.+?)"
        found = re.fullmatch(pattern + re.escape(recorded[begin:]), actual, re.DOTALL)
        assert found, (where, recorded, actual)
        self._bound |= dict(zip(names, found.groups(), strict=True))


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return answer | {"ResponseMetadata": {"HTTPHeaders": {}, "HTTPStatusCode": status}}


def failure(call: Any, **members: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    return dict(caught.value.response)


def creation(name: str = "my-function", **members: Any) -> dict[str, Any]:
    standing = {"Runtime": "python3.12", "Handler": "handler.handler", "Role": ROLE, "Code": {"ZipFile": package()}}
    return {"FunctionName": name, "Timeout": 30, "Environment": {"Variables": {}}} | standing | members


def test_create_lambda_exceptions(client: Any) -> None:
    scenario = Scenario("create_lambda_exceptions")
    for step, members in {
        "invalid_role_arn_exc": {"Role": "r1"},
        "invalid_runtime_exc": {"Runtime": "non-existent-runtime"},
        "uppercase_runtime_exc": {"Runtime": "PYTHON3.9"},
        "multiple_architectures": {"Architectures": ["x86_64", "arm64"]},
        "uppercase_architecture": {"Architectures": ["X86_64"]},
        "invalid_zip_exc": {"Code": {"ZipFile": b"this is not utf-8"}},
    }.items():
        scenario.check(step, failure(client.create_function, **creation(**members)))


def test_update_lambda_exceptions(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    scenario = Scenario("update_lambda_exceptions")
    for step, members in {
        "invalid_role_arn_exc": {"Role": "r1"},
        "invalid_runtime_exc": {"Runtime": "non-existent-runtime"},
        "uppercase_runtime_exc": {"Runtime": "PYTHON3.9"},
    }.items():
        scenario.check(step, failure(client.update_function_configuration, FunctionName="hello", **members))


def test_function_lifecycle(endpoint: Endpoint, client: Any) -> None:
    scenario = Scenario("function_lifecycle")
    made = client.create_function(**creation(MemorySize=256, Timeout=5))
    scenario.check("create_response", made)
    endpoint.settled("my-function")
    scenario.check("get_function_response", client.get_function(FunctionName="my-function"))
    changed = {"Description": "Changed-Description", "MemorySize": 512, "Timeout": 10, "Runtime": "python3.11"}
    variables = {"Environment": {"Variables": {"ENV_A": "a"}}}
    # Each recorded image of a runtime has a digest of its own.
    index = endpoint.config.images_dir / "python3.11.json"
    index.write_text(index.read_text().replace("8eeff65f", "00000000"))
    endpoint.unix("POST", "/sandboxd/v1/images/refresh")
    scenario.check(
        "update_func_conf_response",
        client.update_function_configuration(FunctionName="my-function", **changed, **variables),
    )
    endpoint.settled("my-function")
    scenario.check("get_function_response_postupdate", client.get_function(FunctionName="my-function"))
    scenario.check(
        "update_code_response", client.update_function_code(FunctionName="my-function", ZipFile=package("changed"))
    )
    endpoint.settled("my-function")
    scenario.check("get_function_response_postcodeupdate", client.get_function(FunctionName="my-function"))
    deleted = client.delete_function(FunctionName="my-function")
    scenario.check("delete_response", deleted)
    scenario.check("delete_postdelete", failure(client.get_function, FunctionName="my-function"))


def test_redundant_updates(endpoint: Endpoint, client: Any) -> None:
    scenario = Scenario("redundant_updates")
    scenario.check("create_response", client.create_function(**creation(Description="Initial description")))
    endpoint.settled("my-function")
    update = {"FunctionName": "my-function", "Description": "1st update description"}
    scenario.check("first_update_result", client.update_function_configuration(**update))
    endpoint.settled("my-function")
    scenario.check("get_fn_config_result", client.get_function_configuration(FunctionName="my-function"))
    scenario.check("get_fn_result", client.get_function(FunctionName="my-function"))
    scenario.check("redundant_update_result", client.update_function_configuration(**update))
    endpoint.settled("my-function")
    scenario.check("get_fn_result_after_redundant_update", client.get_function(FunctionName="my-function"))


def test_code_location_zipfile(endpoint: Endpoint, client: Any) -> None:
    scenario = Scenario("lambda_code_location_zipfile")
    members = creation(Handler="index.handler", Timeout=3)
    del members["Environment"]
    scenario.check("create-response-zip-file", client.create_function(**members))
    endpoint.settled("my-function")
    scenario.check("get-function-response", client.get_function(FunctionName="my-function"))
    scenario.check(
        "update-function-response", client.update_function_code(FunctionName="my-function", ZipFile=package("x = 2"))
    )


def test_function_arns(endpoint: Endpoint, client: Any) -> None:
    scenario = Scenario("function_arns")
    scenario.check("create-function-arn-response", client.create_function(**creation(f"{ARN}by-arn")))
    other = creation("111111111111:function:by-partial-arn", Code={"ZipFile": package("2")})
    scenario.check("create-function-partial-arn-response", client.create_function(**other))
    for step, name in {
        "function_arn_other_region_exc": "arn:aws:lambda:ap-southeast-1:111111111111:function:f",
        "invalid_function_name_exc": "invalid:function:name",
        "long_function_name_exc": "a" * 65,
        "long_function_arn_exc": ARN + "a" * 100,
    }.items():
        scenario.check(step, failure(client.create_function, **creation(name)))
    # AWS says nothing at all of what was wrong; the code and status are the same here.
    recorded = scenario.steps["function_arn_other_account_exc"]
    answer = failure(client.create_function, **creation("arn:aws:lambda:us-east-1:123456789012:function:f"))
    assert answer["Error"]["Code"] == recorded["Error"]["Code"]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == recorded["ResponseMetadata"]["HTTPStatusCode"]


def test_list_functions(endpoint: Endpoint, client: Any) -> None:
    scenario = Scenario("list_functions")
    client.create_function(**creation("one"))
    two = creation("two", Code={"ZipFile": package("2")})
    scenario.check("create_response_2", client.create_function(**two))
    endpoint.settled("one"), endpoint.settled("two")
    for step, members in {"list_all": {"FunctionVersion": "ALL"}, "list_default": {}}.items():
        # AWS was also asked to publish a version, which is not offered.
        recorded = [row for row in scenario.steps[step]["Functions"] if row["Version"] == "$LATEST"]
        scenario.compare(recorded, client.list_functions(**members)["Functions"], step)
    scenario.check("list_functions_invalid_functionversion", failure(client.list_functions, FunctionVersion="invalid"))


@pytest.mark.parametrize(
    "name",
    [
        "lambda_envvars_near_limit_succeeds",
        "large_environment_fails_multiple_keys",
        "large_environment_variables_fails",
    ],
)
def test_sizes_of_variables(client: Any, name: str) -> None:
    scenario = Scenario(name)
    (step,) = scenario.steps
    variables = {
        "lambda_envvars_near_limit_succeeds": {"LARGE_VAR": "x" * 4080},
        "large_environment_fails_multiple_keys": {"SMALL_VAR": "ok", "LARGE_VAR": "x" * 4064},
        "large_environment_variables_fails": {"LARGE_VAR": "x" * 4081},
    }[name]
    members = creation(Environment={"Variables": variables}, Timeout=30)
    if "succeeds" in name:
        scenario.check(step, client.create_function(**members))
    else:
        scenario.check(step, failure(client.create_function, **members))


def test_sizes_of_packages(client: Any) -> None:
    unzipped = creation(Code={"ZipFile": package("x" * 262_144_001)})
    zipped = creation(Code={"ZipFile": bytes(52_428_801)})
    request = creation(Code={"ZipFile": bytes(53_000_000)})
    for name, members in {
        "oversized_unzipped_lambda": unzipped,
        "oversized_zipped_create_lambda": zipped,
        "oversized_request_create_lambda": request,
    }.items():
        Scenario(name).check("invalid_param_exc", failure(client.create_function, **members))


def test_vpc_config_that_is_ill_formed(client: Any) -> None:
    subnets = creation(VpcConfig={"SubnetIds": ["bad subnet"], "SecurityGroupIds": []})
    step = "create-response-invalid-format-subnet-id"
    Scenario("invalid_vpc_config_subnet").check(step, failure(client.create_function, **subnets))
    groups = creation(VpcConfig={"SubnetIds": [], "SecurityGroupIds": ["bad group"]})
    step = "create-response-invalid-format-security-group"
    Scenario("invalid_vpc_config_security_group").check(step, failure(client.create_function, **groups))


def test_functions_that_are_not_there(client: Any) -> None:
    for operation in ("get_function", "get_function_configuration", "delete_function"):
        call = getattr(client, operation)
        scenario = Scenario(f"ops_on_nonexisting_fn[{operation}]")
        scenario.check("not_found_exception", failure(call, FunctionName="nope"))
        scenario = Scenario(f"ops_with_arn_qualifier_mismatch[{operation}]")
        name = f"{ARN}some-function"
        scenario.check("not_match_exception", failure(call, FunctionName=f"{name}:$LATEST", Qualifier="1"))
        scenario.check("match_exception", failure(call, FunctionName=f"{name}:$LATEST", Qualifier="$LATEST"))
    for operation in ("get_function", "get_function_configuration", "delete_function", "invoke"):
        scenario = Scenario(f"get_function_wrong_region[{operation}]")
        name = "arn:aws:lambda:eu-west-3:111111111111:function:f"
        scenario.check("wrong_region_exception", failure(getattr(client, operation), FunctionName=name))
    scenario = Scenario("delete_on_nonexisting_version")
    scenario.check("delete_function_response_non_existent", failure(client.delete_function, FunctionName="nope"))
    scenario.check(
        "delete_function_response_non_existent_with_qualifier",
        failure(client.delete_function, FunctionName="nope", Qualifier="1221"),
    )


def test_versions_that_are_not_there(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    for operation in ("get_function", "get_function_configuration"):
        scenario = Scenario(f"ops_on_nonexisting_version[{operation}]")
        answer = failure(getattr(client, operation), FunctionName="hello", Qualifier="1221")
        scenario.check("version_not_found_exception", answer)


def test_revision_that_is_not_the_latest(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    recorded = Scenario("publish_with_wrong_revisionid")
    answer = failure(client.update_function_code, FunctionName="hello", ZipFile=package(), RevisionId="wrong")
    recorded.check("publish_wrong_revisionid_exc", answer)


def test_invalid_invoke(client: Any) -> None:
    answer = failure(client.invoke, FunctionName="arn:aws:lambda:us-east-1:123400000000@function:myfn")
    Scenario("invalid_invoke").check("invoke_function_name_pattern_exc", answer)


# function names and qualifiers: what was asked stands in the answers, or here

ASKED = {
    "function_name_and_qualifier_too_long": ("my-function", "a" * 65),
    "function_name_too_long": ("a" * 65, None),
    "incomplete_arn": (ARN.removesuffix(":"), None),
    "invalid_characters_in_qualifier": ("my-function", "invalid!"),
    "latest_version_with_additional_qualifier": (f"{ARN}my-function:$LATEST", "1"),
    "lowercase_latest_qualifier": (f"{ARN}my-function", "$latest"),
    "qualifier_too_long1": ("my-function", "a" * 65),
}
NAMES = [name for name in RECORDED if name.startswith("function_name_and_qualifier_validation")]


def expand(text: str) -> str:
    text = text.replace("<partition>", "aws").replace("<region>", "us-east-1")
    return PLACEHOLDER.sub(lambda match: match[1] * int(match[2] or 0), text)


@pytest.mark.parametrize("name", NAMES)
def test_function_name_and_qualifier_validation(client: Any, name: str) -> None:
    case, _, operation = name.partition("[")[2].removesuffix("]").partition("-")
    recorded = RECORDED[name].get(f"{operation}_exception", {})
    function, qualifier = ASKED.get(case, ("my-function", None))
    for problem in recorded.get("Errors", ()):
        value = re.match(r"Value '(.*)' at '(functionName|qualifier)'", expand(problem))
        assert value
        function, qualifier = (value[1], qualifier) if value[2] == "functionName" else (function, value[1])
    if operation == "create_function":
        members = creation(function)
    else:
        members = {"FunctionName": function} | ({"Qualifier": qualifier} if qualifier else {})
    if not recorded:
        assert client.create_function(**members)["State"] == "Pending"
        return
    error = failure(getattr(client, operation), **members)["Error"]
    assert error["Code"] == recorded["Code"]
    if "Message" in recorded:
        assert error["Message"] == expand(recorded["Message"])
    else:
        head, _, problems = error["Message"].partition(" detected: ")
        assert head == f"{recorded['Count']} validation error" + ("s" if recorded["Count"] > 1 else "")
        assert sorted(problems.split("; ")) == sorted(map(expand, recorded["Errors"]))
