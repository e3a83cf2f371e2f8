"""Code signing configurations, and the functions that have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.api.conftest import ROLE, Endpoint, package
from tests.api.test_lifecycle import error_of

PUBLISHERS = {"SigningProfileVersionArns": ["arn:aws:signer:us-east-1:111111111111:/signing-profiles/p/0123456789"]}
ENFORCE = {"UntrustedArtifactOnDeployment": "Enforce"}


def test_a_configuration_is_kept(make_endpoint: Callable[..., Endpoint]) -> None:
    client = make_endpoint().boto3()
    made = client.create_code_signing_config(AllowedPublishers=PUBLISHERS, Description="d")["CodeSigningConfig"]
    assert made["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Warn"}
    arn = made["CodeSigningConfigArn"]
    client.update_code_signing_config(CodeSigningConfigArn=arn, CodeSigningPolicies=ENFORCE)
    client.close()
    client = make_endpoint().boto3()
    shown = client.get_code_signing_config(CodeSigningConfigArn=arn)["CodeSigningConfig"]
    assert (shown["Description"], shown["AllowedPublishers"]) == ("d", PUBLISHERS)
    assert shown["CodeSigningPolicies"] == ENFORCE
    for _ in range(4):
        client.create_code_signing_config(AllowedPublishers=PUBLISHERS)
    pages = client.get_paginator("list_code_signing_configs").paginate(PaginationConfig={"PageSize": 2})
    assert len({row["CodeSigningConfigArn"] for page in pages for row in page["CodeSigningConfigs"]}) == 5
    client.delete_code_signing_config(CodeSigningConfigArn=arn)
    assert error_of(client.get_code_signing_config, CodeSigningConfigArn=arn) == (
        "ResourceNotFoundException", 404, f"The provided CodeSigningConfig {arn} was not found.",
    )  # fmt: skip
    client.close()


def test_enforce_lets_no_unsigned_package_in(endpoint: Endpoint, client: Any) -> None:
    strict, lax = (
        client.create_code_signing_config(AllowedPublishers=PUBLISHERS, CodeSigningPolicies=policies)[
            "CodeSigningConfig"
        ]["CodeSigningConfigArn"]
        for policies in (ENFORCE, {"UntrustedArtifactOnDeployment": "Warn"})
    )
    members = {"FunctionName": "f", "Runtime": "python3.12", "Handler": "h.h", "Role": ROLE}
    members |= {"Code": {"ZipFile": package()}}
    refused = error_of(client.create_function, **members, CodeSigningConfigArn=strict)
    assert refused[:2] == ("CodeVerificationFailedException", 400)
    client.create_function(**members, CodeSigningConfigArn=lax)
    endpoint.settled("f")
    assert client.get_function_code_signing_config(FunctionName="f")["CodeSigningConfigArn"] == lax
    client.update_function_code(FunctionName="f", ZipFile=package("x = 1"))
    endpoint.settled("f")
    client.put_function_code_signing_config(FunctionName="f", CodeSigningConfigArn=strict)
    listed = client.list_functions_by_code_signing_config(CodeSigningConfigArn=strict)["FunctionArns"]
    assert listed == ["arn:aws:lambda:us-east-1:111111111111:function:f"]
    refused = error_of(client.update_function_code, FunctionName="f", ZipFile=package("x = 2"))
    assert refused[:2] == ("CodeVerificationFailedException", 400)
    in_use = error_of(client.delete_code_signing_config, CodeSigningConfigArn=strict)
    assert in_use[:2] == ("ResourceConflictException", 409)
    client.delete_function_code_signing_config(FunctionName="f")
    assert "CodeSigningConfigArn" not in client.get_function_code_signing_config(FunctionName="f")
    client.update_function_code(FunctionName="f", ZipFile=package("x = 2"))
    endpoint.settled("f")
    client.put_function_code_signing_config(FunctionName="f", CodeSigningConfigArn=strict)
    client.delete_function(FunctionName="f")
    client.delete_code_signing_config(CodeSigningConfigArn=strict)


def test_tags(endpoint: Endpoint, client: Any) -> None:
    """They are the configuration's, and go with it."""
    made = client.create_code_signing_config(AllowedPublishers=PUBLISHERS, Tags={"a": "b", "c": "d"})
    arn = made["CodeSigningConfig"]["CodeSigningConfigArn"]
    client.tag_resource(Resource=arn, Tags={"e": "f"})
    client.untag_resource(Resource=arn, TagKeys=["a"])
    assert client.list_tags(Resource=arn)["Tags"] == {"c": "d", "e": "f"}
    client.delete_code_signing_config(CodeSigningConfigArn=arn)
    assert error_of(client.list_tags, Resource=arn)[:2] == ("ResourceNotFoundException", 404)
    assert not list(endpoint.store.settings.every("Tags"))
    refused = error_of(client.create_code_signing_config, AllowedPublishers=PUBLISHERS, Tags={"aws:a": "b"})
    assert refused[:2] == ("InvalidParameterValueException", 400)
    assert not client.list_code_signing_configs()["CodeSigningConfigs"]


def test_one_that_is_not_there(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    for arn in (
        "arn:aws:lambda:us-east-1:111111111111:code-signing-config:csc-" + "0" * 17,
        "arn:aws:lambda:eu-west-1:111111111111:code-signing-config:csc-" + "0" * 17,
    ):
        error = error_of(client.put_function_code_signing_config, FunctionName="hello", CodeSigningConfigArn=arn)
        assert error[:2] == ("CodeSigningConfigNotFoundException", 404)


def test_kept_settings(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    arn = "arn:aws:lambda:us-east-1:111111111111:function:hello"
    for _ in range(2):
        shown = client.get_runtime_management_config(FunctionName="hello")
        assert (shown["UpdateRuntimeOn"], shown["FunctionArn"]) == ("Auto", f"{arn}:$LATEST")
        client.put_runtime_management_config(FunctionName="hello", UpdateRuntimeOn="Auto")
    refused = error_of(client.put_runtime_management_config, FunctionName="hello", UpdateRuntimeOn="FunctionUpdate")
    assert refused[0] == "InvalidParameterValueException" and "FunctionUpdate" in refused[2]
    assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Terminate"
    client.put_function_recursion_config(FunctionName="hello", RecursiveLoop="Allow")
    assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Allow"
    client.delete_function(FunctionName="hello")
    assert error_of(client.get_function_recursion_config, FunctionName="hello")[0] == "ResourceNotFoundException"
    endpoint.create()
    assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Terminate"
