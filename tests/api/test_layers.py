"""Layers: published, shown, attached and deleted, with AWS's answers (recorded 2023-11 and 2024-03) word for word."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from sandboxd.api.runtimes import RUNTIMES
from sandboxd.model.limits import Limits
from tests.api.conftest import Endpoint, package
from tests.api.test_lifecycle import error_of, eventually

ARN = "arn:aws:lambda:us-east-1:111111111111:layer:"
GONE = ("ResourceNotFoundException", 404, "The resource you requested does not exist.")


def publish(client: Any, name: str = "tools", text: str = "a", **members: Any) -> dict[str, Any]:
    answer = dict(client.publish_layer_version(LayerName=name, Content={"ZipFile": package(text)}, **members))
    assert answer.pop("ResponseMetadata")["HTTPStatusCode"] == 201
    return answer


def attach(endpoint: Endpoint, client: Any, *arns: str, name: str = "hello") -> list[dict[str, Any]]:
    client.update_function_configuration(FunctionName=name, Layers=list(arns))
    return list(endpoint.settled(name).get("Layers", []))


def packages(endpoint: Endpoint) -> set[str]:
    return {path.name for path in endpoint.config.code_dir.iterdir()}


def digest(text: str) -> str:
    return hashlib.sha256(package(text)).hexdigest()


def test_the_life_of_a_layer(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    given = {
        "Description": "d", "LicenseInfo": "MIT", "CompatibleRuntimes": ["python3.9"],
        "CompatibleArchitectures": ["x86_64"],
    }  # fmt: skip
    made = publish(client, **given)
    content, created = made.pop("Content"), made.pop("CreatedDate")
    item = given | {"LayerVersionArn": f"{ARN}tools:1", "Version": 1}
    assert made == item | {"LayerArn": f"{ARN}tools"}
    assert content["CodeSize"] == len(package("a"))
    assert content["CodeSha256"] == b64encode(bytes.fromhex(digest("a"))).decode()
    with urllib.request.urlopen(content["Location"]) as answer:
        assert answer.read() == package("a")
    publish(client, **given)
    assert attach(endpoint, client, f"{ARN}tools:1") == [{"Arn": f"{ARN}tools:1", "CodeSize": content["CodeSize"]}]
    for shown in (
        client.get_layer_version(LayerName="tools", VersionNumber=1),
        client.get_layer_version(LayerName=f"{ARN}tools", VersionNumber=1),
        client.get_layer_version_by_arn(Arn=f"{ARN}tools:1"),
    ):
        assert shown["Content"].keys() == content.keys() and shown["CreatedDate"] == created
        assert item.items() <= shown.items()
    listed = client.list_layer_versions(LayerName="tools")["LayerVersions"]
    assert [row["Version"] for row in listed] == [2, 1] and listed[1] == item | {"CreatedDate": created}
    for number in (1, 2):
        client.delete_layer_version(LayerName="tools", VersionNumber=number)
    assert client.list_layer_versions(LayerName="tools")["LayerVersions"] == []
    assert client.list_layers()["Layers"] == []
    assert client.get_function_configuration(FunctionName="hello")["Layers"][0]["Arn"] == f"{ARN}tools:1"
    assert publish(client)["Version"] == 3
    plain = client.get_layer_version(LayerName="tools", VersionNumber=3)
    assert plain["Description"] == "" and not plain.keys() & {"LicenseInfo", *list(given)[2:]}
    empty = publish(client, "empty", CompatibleRuntimes=[], CompatibleArchitectures=[])
    assert empty["CompatibleRuntimes"] == empty["CompatibleArchitectures"] == []


def test_lists_show_what_matches_in_pages(client: Any) -> None:
    for name in ("c", "a", "b"):
        publish(client, name, CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["x86_64", "arm64"])
        publish(client, name, CompatibleRuntimes=["nodejs22.x"])
        publish(client, name)
    listed = [
        row
        for page in client.get_paginator("list_layers").paginate(PaginationConfig={"PageSize": 2})
        for row in page["Layers"]
    ]
    assert [(r["LayerName"], r["LayerArn"]) for r in listed] == [(n, f"{ARN}{n}") for n in "abc"]
    assert {row["LatestMatchingVersion"]["Version"] for row in listed} == {3}
    for members, version in (
        ({"CompatibleRuntime": "python3.12"}, 1),
        ({"CompatibleRuntime": "nodejs22.x"}, 2),
        ({"CompatibleArchitecture": "arm64"}, 1),
        ({"CompatibleRuntime": "nodejs22.x", "CompatibleArchitecture": "arm64"}, None),
        ({"CompatibleRuntime": "python2.7"}, None),
    ):
        rows = client.list_layers(MaxItems=1, **members)["Layers"]
        assert [row["LatestMatchingVersion"]["Version"] for row in rows] == ([version] if version else [])
        versions = client.list_layer_versions(LayerName="b", **members)["LayerVersions"]
        assert [row["Version"] for row in versions] == ([version] if version else [])
    pages = client.get_paginator("list_layer_versions").paginate(LayerName="a", PaginationConfig={"PageSize": 2})
    assert [row["Version"] for page in pages for row in page["LayerVersions"]] == [3, 2, 1]


def test_what_is_no_layer(client: Any) -> None:
    publish(client)
    below = ("InvalidParameterValueException", 400, "Layer Version Cannot be less than 1")
    assert error_of(client.get_layer_version, LayerName="nothing", VersionNumber=1) == GONE
    assert error_of(client.get_layer_version, LayerName="tools", VersionNumber=2) == GONE
    assert error_of(client.get_layer_version, LayerName="tools", VersionNumber=0) == below
    assert error_of(client.get_layer_version, LayerName="tools", VersionNumber=-1) == below
    assert error_of(client.get_layer_version_by_arn, Arn=f"{ARN}tools:2") == GONE
    code, status, text = error_of(client.get_layer_version_by_arn, Arn=f"{ARN}tools")
    assert (code, status) == ("ValidationException", 400)
    assert text.startswith(f"1 validation error detected: Value '{ARN}tools' at 'arn' failed to satisfy constraint: ")
    assert client.list_layer_versions(LayerName="nothing")["LayerVersions"] == []
    for name, number in (("nothing", 1), ("tools", 2), ("tools", 1), ("tools", 1)):
        client.delete_layer_version(LayerName=name, VersionNumber=number)
    assert error_of(client.delete_layer_version, LayerName="tools", VersionNumber=0) == below
    theirs = ARN.replace("111111111111", "222222222222") + "tools"
    code, status, text = error_of(client.get_layer_version, LayerName=theirs, VersionNumber=1)
    assert (code, status) == ("AccessDeniedException", 403) and "lambda:GetLayerVersion on resource: " in text


def test_what_a_layer_is_compatible_with_is_checked(client: Any) -> None:
    members = {"CompatibleRuntimes": ["nothing", "python3.12"], "CompatibleArchitectures": ["invalidarch", "x86_64"]}
    assert error_of(client.publish_layer_version, LayerName="l", Content={"ZipFile": package()}, **members) == (
        "ValidationException", 400,
        "2 validation errors detected: Value '[nothing, python3.12]' at 'compatibleRuntimes' failed to satisfy "
        f"constraint: Member must satisfy enum value set: [{RUNTIMES}]; Value '[invalidarch, x86_64]' at "
        "'compatibleArchitectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy "
        "enum value set: [x86_64, arm64]]",
    )  # fmt: skip
    for member, value in (("CompatibleRuntime", "nothing"), ("CompatibleArchitecture", "nothing")):
        code, status, text = error_of(client.list_layers, **{member: value})
        assert (code, status) == ("ValidationException", 400)
        where = f"Value 'nothing' at '{member[0].lower()}{member[1:]}' failed to satisfy constraint: "
        assert f"1 validation error detected: {where}Member must satisfy enum value set: [" in text
    assert error_of(client.publish_layer_version, LayerName="l", Content={"ZipFile": b"no zip"}) == (
        "InvalidParameterValueException", 400,
        "Could not unzip uploaded file. Please check your file, then try to upload again.",
    )  # fmt: skip
    assert client.list_layers()["Layers"] == []


def test_what_a_function_cannot_take_along(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    for _ in range(3):
        publish(client)
    for number in range(6):
        publish(client, f"l{number}")
    versions = [f"{ARN}tools:{number}" for number in (1, 2, 3)]
    twice = "Two different versions of the same layer are not allowed to be referenced in the same function. "
    for layers, text in (
        (versions[:2], f"{twice}{versions[0]} and {versions[1]} are versions of the same layer."),
        (versions, f"{twice}{versions[0]} and {versions[1]} are versions of the same layer."),
        (versions[:1] * 2, f"{twice}{versions[0]} and {versions[0]} are versions of the same layer."),
        ([f"{ARN}nothing:1"], f"Layer version {ARN}nothing:1 does not exist."),
        ([f"{ARN}tools:9"], f"Layer version {ARN}tools:9 does not exist."),
        (["arn:aws:lambda:::awslayer:tools"], "Layer version arn:aws:lambda:::awslayer:tools does not exist."),
        (
            [f"{ARN}tools:1".replace("us-east-1", "eu-west-1")],
            "Layers are not in the same region as the function. Layers are expected to be in region us-east-1.",
        ),
        ([f"{ARN}l{number}:1" for number in range(6)], "Cannot reference more than 5 layers."),
    ):
        expected = ("InvalidParameterValueException", 400, text)
        assert error_of(client.update_function_configuration, FunctionName="hello", Layers=layers) == expected
    code, status, _ = error_of(client.update_function_configuration, FunctionName="hello", Layers=[f"{ARN}tools"])
    assert (code, status) == ("ValidationException", 400)
    theirs = f"{ARN}tools:1".replace("111111111111", "222222222222")
    code, status, text = error_of(client.update_function_configuration, FunctionName="hello", Layers=[theirs])
    assert (code, status) == ("AccessDeniedException", 403) and theirs in text
    assert "Layers" not in client.get_function_configuration(FunctionName="hello")
    assert len(attach(endpoint, client, *(f"{ARN}l{number}:1" for number in range(5)))) == 5
    assert attach(endpoint, client) == []


def test_layers_are_part_of_a_version(endpoint: Endpoint, client: Any) -> None:
    publish(client)
    endpoint.create(Layers=[f"{ARN}tools:1"], Publish=True)
    attach(endpoint, client)
    assert client.publish_version(FunctionName="hello")["Version"] == "2"
    layers = [row.get("Layers") for row in client.list_versions_by_function(FunctionName="hello")["Versions"]]
    assert layers == [None, [{"Arn": f"{ARN}tools:1", "CodeSize": len(package("a"))}], None]


def test_code_and_layers_have_one_limit(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint(limits=Limits(unzipped_bytes=1000))
    client = endpoint.boto3()
    endpoint.create(Code={"ZipFile": b64encode(package("x" * 200)).decode()})
    arns = [publish(client, name, name * 400)["LayerVersionArn"] for name in "ab"]
    error = "Function code combined with layers exceeds the maximum allowed size of 1000 bytes. The actual size is "
    assert len(attach(endpoint, client, *arns)) == 2  # exactly so many
    for number, refused in enumerate((
        lambda: error_of(client.update_function_code, FunctionName="hello", ZipFile=package("x" * 201)),
        lambda: error_of(client.update_function_code, FunctionName="hello", ZipFile=package("x" * 202), DryRun=True),
    ), 1001):  # fmt: skip
        assert refused() == ("InvalidParameterValueException", 400, f"{error}{number} bytes.")
    endpoint = make_endpoint(limits=Limits(unzipped_bytes=1000))  # sizes outlive a restart
    again = endpoint.boto3()
    wide = publish(again, "c", "c" * 401)["LayerVersionArn"]
    refusal = error_of(again.update_function_configuration, FunctionName="hello", Layers=[arns[0], wide])
    assert refusal == ("InvalidParameterValueException", 400, f"{error}1001 bytes.")
    large = {"Code": {"ZipFile": package("y" * 601)}, "Runtime": "python3.12", "Handler": "a.b", "FunctionName": "new"}
    role = "arn:aws:iam::111111111111:role/lambda"
    refusal = error_of(again.create_function, Role=role, Layers=[arns[0]], **large)
    assert refusal == ("InvalidParameterValueException", 400, f"{error}1001 bytes.")
    assert packages(endpoint) == {digest("x" * 200), digest("a" * 400), digest("b" * 400), digest("c" * 401)}
    for one in (client, again):
        one.close()


def test_layers_have_one_limit_of_files(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint(limits=Limits(zip_entries=2))
    client = endpoint.boto3()
    endpoint.create()
    arns = [publish(client, name, name)["LayerVersionArn"] for name in "abc"]
    assert len(attach(endpoint, client, *arns[:2])) == 2
    assert error_of(client.update_function_configuration, FunctionName="hello", Layers=arns) == (
        "InvalidParameterValueException", 400,
        "The layers of a function have at most 2 files and directories together here. The actual number is 3.",
    )  # fmt: skip
    client.close()


def test_a_deleted_version_lasts_as_long_as_its_functions(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    client = first.boto3()
    publish(client)
    publish(client, "other", "b")
    first.create("one", Layers=[f"{ARN}tools:1", f"{ARN}other:1"])
    first.create("two", Layers=[f"{ARN}tools:1"])
    client.delete_layer_version(LayerName="tools", VersionNumber=1)
    client.close()
    endpoint = make_endpoint()
    client = endpoint.boto3()
    code = hashlib.sha256(package()).hexdigest()
    assert packages(endpoint) == {code, digest("a"), digest("b")}
    missing = ("InvalidParameterValueException", 400, f"Layer version {ARN}tools:1 does not exist.")
    assert error_of(client.update_function_configuration, FunctionName="two", Layers=[f"{ARN}tools:1"]) == missing
    assert client.get_function_configuration(FunctionName="one")["Layers"][0]["Arn"] == f"{ARN}tools:1"
    client.delete_function(FunctionName="one")
    client.update_function_code(FunctionName="two", ZipFile=package("other code"))
    assert endpoint.settled("two")["Layers"][0]["Arn"] == f"{ARN}tools:1"
    eventually(
        lambda: packages(endpoint) == {hashlib.sha256(package("other code")).hexdigest(), digest("a"), digest("b")}
    )
    # An environment that is older than its end still has the layer.
    endpoint.scheduler.rows = [{"Account": "111111111111", "Function": "two", "Version": "$LATEST", "AgeSeconds": 1e9}]
    attach(endpoint, client, name="two")
    client.delete_layer_version(LayerName="other", VersionNumber=1)
    eventually(lambda: digest("b") not in packages(endpoint))
    assert digest("a") in packages(endpoint)
    endpoint.scheduler.rows = []
    eventually(lambda: digest("a") not in packages(endpoint))
    client.close()


def test_a_layer_and_a_function_of_the_same_package(endpoint: Endpoint, client: Any) -> None:
    publish(client, text="def handler(event, context):\n    return event\n")
    endpoint.create()
    client.delete_layer_version(LayerName="tools", VersionNumber=1)
    assert packages(endpoint) == {hashlib.sha256(package()).hexdigest()}
    publish(client, text="def handler(event, context):\n    return event\n")
    client.delete_function(FunctionName="hello")
    assert client.get_layer_version(LayerName="tools", VersionNumber=2)
    assert packages(endpoint) == {hashlib.sha256(package()).hexdigest()}


def test_permissions_are_kept_as_a_policy(make_endpoint: Callable[..., Endpoint]) -> None:
    client = make_endpoint().boto3()
    publish(client)
    which = {"LayerName": "tools", "VersionNumber": 1}
    statement = {"StatementId": "s1", "Action": "lambda:GetLayerVersion", "Principal": "*"}
    none = ("ResourceNotFoundException", 404, "No policy is associated with the given resource.")
    assert error_of(client.get_layer_version_policy, **which) == none
    added = client.add_layer_version_permission(**which, **statement)
    everybody = {
        "Sid": "s1", "Effect": "Allow", "Principal": "*", "Action": "lambda:GetLayerVersion",
        "Resource": f"{ARN}tools:1",
    }  # fmt: skip
    assert (added["ResponseMetadata"]["HTTPStatusCode"], json.loads(added["Statement"])) == (201, everybody)
    assert error_of(client.add_layer_version_permission, **which, **statement) == (
        "ResourceConflictException", 409,
        "The statement id (s1) provided already exists. Please provide a new statement id, or remove the existing "
        "statement.",
    )  # fmt: skip
    stale = (
        "PreconditionFailedException", 412,
        "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the "
        "latest Revision Id",
    )  # fmt: skip
    second = statement | {"StatementId": "s2", "Principal": "222222222222", "OrganizationId": "o-0123456789"}
    assert error_of(client.add_layer_version_permission, **which, **second, RevisionId="wrong") == stale
    client.add_layer_version_permission(**which, **second, RevisionId=added["RevisionId"])
    client.close()
    endpoint = make_endpoint()
    client = endpoint.boto3()
    shown = client.get_layer_version_policy(**which)
    assert json.loads(shown["Policy"]) == {
        "Version": "2012-10-17",
        "Id": "default",
        "Statement": [
            everybody,
            everybody | {
                "Sid": "s2",
                "Principal": {"AWS": "arn:aws:iam::222222222222:root"},
                "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-0123456789"}},
            },
        ],
    }  # fmt: skip
    remove = client.remove_layer_version_permission
    absent = ("ResourceNotFoundException", 404, "Statement nothing is not found in resource policy.")
    assert error_of(remove, **which, StatementId="nothing") == absent
    assert error_of(remove, **which, StatementId="s1", RevisionId="wrong") == stale
    remove(**which, StatementId="s1", RevisionId=shown["RevisionId"])
    assert json.loads(client.get_layer_version_policy(**which)["Policy"])["Statement"][0]["Sid"] == "s2"
    remove(**which, StatementId="s2")
    assert error_of(client.get_layer_version_policy, **which) == none
    for layer, number in (("nothing", 1), ("tools", 2)):
        missing = ("ResourceNotFoundException", 404, f"Layer version {ARN}{layer}:{number} does not exist.")
        other = {"LayerName": layer, "VersionNumber": number}
        assert error_of(client.add_layer_version_permission, **other, **statement) == missing
        assert error_of(client.get_layer_version_policy, **other) == missing
        assert error_of(remove, **other, StatementId="s1") == missing
    assert error_of(client.add_layer_version_permission, **which, **statement | {"Action": "*"}) == (
        "ValidationException", 400,
        "1 validation error detected: Value '*' at 'action' failed to satisfy constraint: Member must satisfy regular "
        "expression pattern: lambda:GetLayerVersion",
    )  # fmt: skip
    many = "1234567890" * 10
    for number in range(100):
        try:
            client.add_layer_version_permission(**which, **statement | {"StatementId": f"{many[:97]}{number:02}"})
        except client.exceptions.PolicyLengthExceededException:
            break
    else:
        raise AssertionError("a policy has no limit")
    assert len(client.get_layer_version_policy(**which)["Policy"]) <= 20_480
    client.close()
