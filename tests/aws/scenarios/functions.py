"""TestLambdaFunction: create, show, update, list, delete."""

from __future__ import annotations

import re
from typing import Any

from tests.aws.player import ARN, BUCKET, ECHO, FUNCTION, VERSION, Answer, Player

_PROBLEM = re.compile(r"(Value '.*?' at '.*?' failed to satisfy constraint: .+?(?=;|$))")
_WRONG_NAMES: dict[str, tuple[str, str | None]] = {
    "full_arn_and_qualifier_too_long_and_invalid_region": (
        f"arn:aws:lambda:invalid-region:111111111111:function:my-function-{'a' * 170}",
        "a" * 129,
    ),
    "full_arn_with_multiple_qualifiers": (f"{ARN}my-function:1:2", None),
    "function_name_and_qualifier_too_long": ("my-function", "a" * 65),
    "function_name_is_single_invalid": ("*", None),
    "function_name_too_long": ("a" * 65, None),
    "function_name_too_long_and_invalid_region": (
        f"arn:aws:lambda:invalid-region:111111111111:function:my-function{'a' * 170}",
        None,
    ),
    "incomplete_arn": (ARN.removesuffix(":"), None),
    "invalid_account_id_in_partial_arn": ("invalid-account:function:my-function", None),
    "invalid_characters_in_function_name": ("my-function!", None),
    "invalid_characters_in_qualifier": ("my-function", "invalid!"),
    "invalid_region_in_arn": ("arn:aws:lambda:invalid-region:111111111111:function:my-function", None),
    "latest_version_with_additional_qualifier": (f"{ARN}my-function:$LATEST", "1"),
    "lowercase_latest_qualifier": (f"{ARN}my-function", "$latest"),
    "missing_account_id_in_arn": ("arn:aws:lambda:us-east-1::function:my-function", None),
    "missing_region_in_arn": ("arn:aws:lambda::111111111111:function:my-function", None),
    "misspelled_latest_in_arn": (f"{ARN}my-function:$LATES", None),
    "non_lambda_arn": ("arn:aws:ec2:us-east-1:111111111111:instance:i-1234567890abcdef0", None),
    "partial_arn_with_extra_qualifier": ("function:my-function:$LATEST:extra", None),
    "qualifier_too_long": ("my-function", "a" * 129),
    "qualifier_too_long0": ("my-function", "a" * 129),
    "qualifier_too_long1": ("my-function", "a" * 65),
}


def function_lifecycle(play: Player) -> None:
    play.create("create_response", MemorySize=256, Timeout=5)
    play.step("get_function_response", "get_function", FunctionName=FUNCTION)
    changes = {"Description": "Changed-Description", "MemorySize": 512, "Timeout": 10, "Runtime": "python3.11"}
    changes |= {"Environment": {"Variables": {"ENV_A": "a"}}}
    play.step("update_func_conf_response", "update_function_configuration", FunctionName=FUNCTION, **changes)
    play.wait()
    play.step("get_function_response_postupdate", "get_function", FunctionName=FUNCTION)
    play.step("update_code_response", "update_function_code", FunctionName=FUNCTION, ZipFile=VERSION)
    play.wait()
    play.step("get_function_response_postcodeupdate", "get_function", FunctionName=FUNCTION)
    play.step("delete_response", "delete_function", FunctionName=FUNCTION)
    play.step("delete_postdelete", "delete_function", FunctionName=FUNCTION)


def redundant_updates(play: Player) -> None:
    play.create("create_response", Description="Initial description")
    update = {"FunctionName": FUNCTION, "Description": "1st update description"}
    play.step("first_update_result", "update_function_configuration", **update)
    play.wait()
    play.step("get_fn_config_result", "get_function_configuration", FunctionName=FUNCTION)
    play.step("get_fn_result", "get_function", FunctionName=FUNCTION)
    play.step("redundant_update_result", "update_function_configuration", **update)
    play.wait()
    play.step("get_fn_result_after_redundant_update", "get_function", FunctionName=FUNCTION)


def ops_with_arn_qualifier_mismatch(play: Player, operation: str) -> None:
    play.step("not_match_exception", operation, FunctionName=f"{ARN}some-function:1", Qualifier="$LATEST")
    play.step("match_exception", operation, FunctionName=f"{ARN}some-function:$LATEST", Qualifier="$LATEST")


def ops_on_nonexisting_version(play: Player, operation: str) -> None:
    play.create()
    play.step("version_not_found_exception", operation, FunctionName=FUNCTION, Qualifier="1221")


def ops_on_nonexisting_fn(play: Player, operation: str) -> None:
    play.step("not_found_exception", operation, FunctionName="i-dont-exist")


def get_function_wrong_region(play: Player, operation: str) -> None:
    play.create()
    name = ARN.replace("us-east-1", "eu-central-1") + FUNCTION
    play.step("wrong_region_exception", operation, FunctionName=name)


def delete_on_nonexisting_version(play: Player) -> None:
    play.create()
    for _ in range(2):
        play.ask("delete_function", FunctionName=FUNCTION, Qualifier="1233")
    play.ask("delete_function", FunctionName=FUNCTION)
    play.step("delete_function_response_non_existent", "delete_function", FunctionName=FUNCTION)
    step = "delete_function_response_non_existent_with_qualifier"
    play.step(step, "delete_function", FunctionName=FUNCTION, Qualifier="1233")


def lambda_code_location_zipfile(play: Player) -> None:
    play.create_bare("create-response-zip-file", PackageType="Zip")
    play.step("get-function-response", "get_function", FunctionName=FUNCTION)
    play.step("update-function-response", "update_function_code", FunctionName=FUNCTION, ZipFile=VERSION)
    play.step("get-function-response-updated", "get_function", FunctionName=FUNCTION)


def lambda_code_location_s3(play: Player) -> None:
    source = {"S3Bucket": BUCKET, "S3Key": "code/code-function.zip"}
    play.put(source["S3Key"], ECHO)
    play.create_bare("create_response_s3", Code=source)
    play.step("get-function-response", "get_function", FunctionName=FUNCTION)
    play.put(source["S3Key"], VERSION)
    play.step("update-function-response", "update_function_code", FunctionName=FUNCTION, **source)
    play.step("get-function-response-updated", "get_function", FunctionName=FUNCTION)


def lambda_code_location_s3_errors(play: Player) -> None:
    bucket = {"S3Bucket": "none-of-this-name", "S3Key": "code/code-function.zip"}
    key = {"S3Bucket": BUCKET, "S3Key": "non/existent.zip"}
    play.create_bare("create-error-wrong-bucket", Code=bucket)
    play.create_bare("create-error-wrong-key", Code=key)
    play.create_bare()
    play.step("update-error-wrong-bucket", "update_function_code", FunctionName=FUNCTION, **bucket)
    play.step("update-error-wrong-key", "update_function_code", FunctionName=FUNCTION, **key)


def function_arns(play: Player) -> None:
    play.create("create-function-arn-response", f"{ARN}by-arn")
    play.create(
        "create-function-partial-arn-response", "111111111111:function:by-partial-arn", Code={"ZipFile": VERSION}
    )
    play.create_bare("invalid_function_name_exc", "invalid:function:name")
    play.create_bare("long_function_name_exc", "a" * 65)
    play.create_bare("long_function_arn_exc", ARN + "a" * (140 - len(ARN) + 1))
    play.create_bare("function_arn_other_region_exc", ARN.replace("us-east-1", "ap-southeast-1") + "function")
    play.create_bare("function_arn_other_account_exc", ARN.replace("111111111111", "123456789012") + "function")


def function_name_and_qualifier_validation(play: Player, case: str, operation: str) -> None:
    name, qualifier = _WRONG_NAMES[case]
    if operation == "create_function":
        answer = play.create_bare("", f"{name}:{qualifier}" if qualifier else name)
    else:
        answer = play.ask(operation, FunctionName=name, **({"Qualifier": qualifier} if qualifier else {}))
    if play.recorded:
        play.note(f"{operation}_exception", _problems(answer))
    else:  # what AWS takes was not recorded
        assert answer["State"] == "Pending", answer


def _problems(answer: Answer) -> dict[str, object]:
    """The form in which the recorder kept an error: problems in no order."""
    if "Error" not in answer:
        return dict(answer)
    error = answer["Error"]
    if found := sorted(_PROBLEM.findall(error["Message"])):
        many = "s" if len(found) > 1 else ""
        assert error["Message"].startswith(f"{len(found)} validation error{many} detected: "), error
        return {"Code": error["Code"], "Count": len(found), "Errors": found}
    return {"Code": error["Code"], "Message": error["Message"]}


def create_lambda_exceptions(play: Player) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "invalid_role_arn_exc": {"Role": "r1"},
        "invalid_runtime_exc": {"Runtime": "non-existent-runtime"},
        "uppercase_runtime_exc": {"Runtime": "PYTHON3.9"},
        "empty_architectures": {"Architectures": [], "strict": True},
        "multiple_architectures": {"Architectures": ["x86_64", "arm64"]},
        "uppercase_architecture": {"Architectures": ["X86_64"]},
        "invalid_zip_exc": {"Code": {"ZipFile": b"this is not a zipfile, just a random string"}},
    }
    for step, members in wrong.items():
        play.create_bare(step, **members)


def update_lambda_exceptions(play: Player) -> None:
    play.create_bare()
    update = "update_function_configuration"
    play.step("invalid_role_arn_exc", update, FunctionName=FUNCTION, Role="r1")
    play.step("invalid_runtime_exc", update, FunctionName=FUNCTION, Runtime="non-existent-runtime")
    play.step("uppercase_runtime_exc", update, FunctionName=FUNCTION, Runtime="PYTHON3.9")


def list_functions(play: Player) -> None:
    play.create("create_response_1", "list-1", Publish=True)
    play.create("create_response_2", "list-2", Code={"ZipFile": VERSION})
    play.step("list_functions_invalid_functionversion", "list_functions", FunctionVersion="invalid")
    pages = {"PaginationConfig": {"PageSize": 1}}
    play.step("list_all", "list_functions", FunctionVersion="ALL", **pages)
    play.step("list_default", "list_functions", **pages)


def vpc_config(play: Player) -> None:
    def config(number: int) -> dict[str, list[str]]:
        return {"SubnetIds": [f"subnet-{number:017x}"], "SecurityGroupIds": [f"sg-{number:017x}"]}

    play.create("create_response", MemorySize=256, Timeout=5, VpcConfig=config(1))
    play.step("get_function_response", "get_function", FunctionName=FUNCTION)
    for step, members in {
        "update_vpcconfig": config(2),
        "delete_vpcconfig": {"SubnetIds": [], "SecurityGroupIds": []},
    }.items():
        update = {"FunctionName": FUNCTION, "VpcConfig": members}
        play.step(f"{step}_update_response", "update_function_configuration", **update)
        play.wait()
        play.step(f"{step}_get_function_response", "get_function", FunctionName=FUNCTION)


def invalid_vpc_config_subnet(play: Player) -> None:
    for step, subnet in {"non-existent": "subnet-12345678", "invalid-format": "bad-format-12345678"}.items():
        config = {"SubnetIds": [subnet], "SecurityGroupIds": ["sg-12345678"]}
        play.create_bare(f"create-response-{step}-subnet-id", VpcConfig=config)


def invalid_vpc_config_security_group(play: Player) -> None:
    for step, group in {"non-existent": "sg-12345678", "invalid-format": "bad-format-12345678"}.items():
        config = {"SubnetIds": ["subnet-12345678"], "SecurityGroupIds": [group]}
        play.create_bare(f"create-response-{step}-security-group", VpcConfig=config)


def invalid_invoke(play: Player) -> None:
    name = "arn:aws:lambda:us-east-1:123400000000@function:myfn"
    play.step("invoke_function_name_pattern_exc", "invoke", FunctionName=name, Payload=b"{}")


def lambda_concurrent_code_updates(play: Player) -> None:
    play.create_bare("create-function-response", Handler="handler.handler")
    play.ask("update_function_code", FunctionName=FUNCTION, ZipFile=VERSION)
    step = "update-during-in-progress-update-exc"
    play.step(step, "update_function_code", FunctionName=FUNCTION, ZipFile=ECHO)


def lambda_concurrent_config_updates(play: Player) -> None:
    play.create("create-function-response")
    update = {"FunctionName": FUNCTION, "Environment": {"Variables": {"TEST": "TEST1"}}}
    play.ask("update_function_configuration", **update)
    play.step("update-during-in-progress-update-exc", "update_function_configuration", **update)
