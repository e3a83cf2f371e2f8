"""TestLambdaPermissions: the policies of functions, versions and aliases."""

from __future__ import annotations

from typing import Any

from tests.aws.player import FUNCTION, Answer, Player

_ACCOUNT = "111111111111"
_BUCKET = "arn:aws:s3:::test-bucket"
_S3 = {"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", "StatementId": "s3", "SourceArn": _BUCKET}
_NONE = "doesnotexist"


def _add(play: Player, step: str = "", /, **members: Any) -> Answer:
    source = members.pop("source", True)
    members = {"FunctionName": FUNCTION} | _S3 | members
    if not source:
        del members["SourceArn"]
    return play.step(step, "add_permission", **members) if step else play.ask("add_permission", **members)


def permission_exceptions(play: Player) -> None:
    play.create()
    _add(play, "add_permission_invalid_statement_id", StatementId="example.com", source=False)
    _add(play, "add_permission_fn_qualifier_mismatch", FunctionName=f"{FUNCTION}:alias-not-42", Qualifier="42")
    _add(play, "add_permission_fn_qualifier_latest", FunctionName=f"{FUNCTION}:$LATEST", Qualifier="$LATEST")
    invalid = {"StatementId": "lambda", "Principal": "invalid.nonaws.com", "SourceAccount": _ACCOUNT}
    _add(play, "add_permission_principal_invalid", source=False, **invalid)
    play.step("get_policy_fn_doesnotexist", "get_policy", FunctionName=_NONE)
    play.step("get_policy_fn_version_doesnotexist", "get_policy", FunctionName=FUNCTION, Qualifier="77")
    _add(play, "add_permission_fn_doesnotexist", FunctionName=_NONE)
    s3 = {"FunctionName": FUNCTION, "StatementId": "s3"}
    play.step("remove_permission_policy_doesnotexist", "remove_permission", **s3)
    _add(play, "add_permission_fn_alias_doesnotexist", FunctionName=f"{FUNCTION}:alias-doesnotexist")
    _add(play, "add_permission_fn_version_doesnotexist", Qualifier="42")
    _add(play, "add_permission_fn_qualifier_invalid", Qualifier="invalid-qualifier-with-?-char")
    _add(play, "add_permission_fn_qualifier_valid_doesnotexist", Qualifier="valid-with-$-but-doesnotexist")
    _add(play)
    _add(play, "add_permission_conflicting_statement_id")
    play.step("remove_permission_fn_doesnotexist", "remove_permission", FunctionName=_NONE, StatementId="s3")
    step = "remove_permission_fn_alias_doesnotexist"
    play.step(step, "remove_permission", **s3, Qualifier="alias-doesnotexist")


def add_lambda_permission_aws(play: Player) -> None:
    play.create("create_lambda")
    _add(play, "add_permission")
    play.step("get_policy", "get_policy", FunctionName=FUNCTION)


def lambda_permission_fn_versioning(play: Player) -> None:
    play.create()
    _add(play, "add_permission")
    play.step("get_policy", "get_policy", FunctionName=FUNCTION)
    play.step("publish_version_result", "publish_version", FunctionName=FUNCTION)
    play.step("get_function_result_after_publishing", "get_function", FunctionName=FUNCTION)
    play.step("get_policy_after_publishing_latest", "get_policy", FunctionName=FUNCTION)
    play.step("get_policy_after_publishing_new_version", "get_policy", FunctionName=FUNCTION, Qualifier="1")
    _add(play, FunctionName=f"{FUNCTION}:1", Qualifier="1")
    play.step("get_policy_version", "get_policy", FunctionName=FUNCTION, Qualifier="1")
    name = "permission-alias"
    alias = play.step("create_alias_response", "create_alias", FunctionName=FUNCTION, Name=name, FunctionVersion="1")
    play.step("get_alias", "get_alias", FunctionName=FUNCTION, Name=name)
    _add(play, "add_permission_alias_revision_exception", Qualifier=name, RevisionId="wrong")
    _add(play, FunctionName=f"{FUNCTION}:{name}", Qualifier=name, RevisionId=alias["RevisionId"])
    play.step("get_policy_alias", "get_policy", FunctionName=FUNCTION, Qualifier=name)
    policy = play.step("get_policy_after_adding_to_new_version", "get_policy", FunctionName=FUNCTION)
    _add(play, StatementId="s3_2", RevisionId=policy["RevisionId"])
    play.step("get_policy_after_adding_2", "get_policy", FunctionName=FUNCTION)


def lambda_permission_versioning(play: Player) -> None:
    play.create()
    _add(play, "add_permission")
    play.step("get_policy", "get_policy", FunctionName=FUNCTION)
    play.ask("publish_version", FunctionName=FUNCTION)
    play.step("get_policy_after_publishing_latest", "get_policy", FunctionName=FUNCTION)
    play.step("get_policy_after_publishing_new_version", "get_policy", FunctionName=FUNCTION, Qualifier="1")
    _add(play, Qualifier="1")
    policy = play.step("get_policy_after_adding_to_new_version", "get_policy", FunctionName=FUNCTION)
    _add(play, StatementId="s3_2", RevisionId=policy["RevisionId"])
    play.step("get_policy_after_adding_2", "get_policy", FunctionName=FUNCTION)


def lambda_permission_revisions(play: Player) -> None:
    play.create()
    _add(play)
    _add(play, "add_permission_revision_id_doesnotmatch", StatementId="s3_2", RevisionId="wrong")
    policy = play.ask("get_policy", FunctionName=FUNCTION)
    _add(play, StatementId="s3_2", RevisionId=policy["RevisionId"])
    play.ask("publish_version", FunctionName=FUNCTION)
    _add(play, StatementId="s3_2", Qualifier="1")
    one = {"FunctionName": FUNCTION, "Qualifier": "1"}
    play.step("get_policy_after_publish_version", "get_policy", FunctionName=FUNCTION)
    play.step("get_policy_v1_after_publish_version", "get_policy", **one)
    play.step("get_function_fn8", "get_function", FunctionName=FUNCTION)
    shown = play.step("get_function_fn8_v1", "get_function", **one)
    _add(play, StatementId="s3_3", Qualifier="1", RevisionId=Answer(shown.get("Configuration", {}))["RevisionId"])
    play.step("get_policy_v1_after_add_permission9", "get_policy", **one)
    play.step("get_function_fn9", "get_function", FunctionName=FUNCTION)
    play.step("get_function_fn9_v1", "get_function", **one)
    wrong = {"FunctionName": FUNCTION, "StatementId": "s3", "RevisionId": "wrong"}
    play.step("remove_permission_fn_revision_id_doesnotmatch", "remove_permission", **wrong)


def add_lambda_permission_optional_fields(play: Player) -> None:
    play.create()  # AWS's answer was not recorded


def add_lambda_permission_fields(play: Player) -> None:
    play.create()
    account = {"SourceAccount": _ACCOUNT, "source": False}
    _add(play, "add_permission_principal_wildcard", StatementId="wilcard", Principal="*", **account)
    _add(play, "add_permission_principal_service", StatementId="lambda", Principal="lambda.amazonaws.com", **account)
    _add(play, "add_permission_principal_account", StatementId="account-id", Principal=_ACCOUNT, source=False)
    user = f"arn:aws:iam::{_ACCOUNT}:user/somebody"
    _add(play, "add_permission_principal_arn", StatementId="user-arn", Principal=user, **account)
    url = {"StatementId": "urlPermission", "Action": "lambda:InvokeFunctionUrl", "Principal": "*"}
    url |= {"SourceAccount": _ACCOUNT, "PrincipalOrgID": "o-1234567890", "FunctionUrlAuthType": "NONE"}
    _add(play, "add_permission_optional_fields", **url)
    token = {"EventSourceToken": "amzn1.ask.skill.xxxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "source": False}
    _add(play, "add_permission_alexa_skill", StatementId="alexaSkill", Principal="*", **token)


def remove_multi_permissions(play: Player) -> None:
    play.create()
    _add(play, "add_permission_1", source=False)
    _add(play, "add_permission_2", StatementId="sqs", Principal="sqs.amazonaws.com")
    play.step("policy_after_2_add", "get_policy", FunctionName=FUNCTION)
    none = {"FunctionName": FUNCTION, "StatementId": "non-existent"}
    play.step("remove_permission_exception_nonexisting_sid", "remove_permission", **none)
    play.ask("remove_permission", FunctionName=FUNCTION, StatementId="sqs")
    play.step("policy_after_removal", "get_policy", FunctionName=FUNCTION)
    policy = play.step("policy_after_removal_attempt", "get_policy", FunctionName=FUNCTION)
    play.ask("remove_permission", FunctionName=FUNCTION, StatementId="s3", RevisionId=policy["RevisionId"])
    play.step("get_policy_exception_removed_all", "get_policy", FunctionName=FUNCTION)


def create_multiple_lambda_permissions(play: Player) -> None:
    play.create()
    for number, name in ((1, "logs"), (2, "kinesis")):
        members = {"StatementId": name, "Principal": f"{name}.amazonaws.com", "source": False}
        _add(play, f"add_permission_response_{number}", **members)
    play.step("policy_after_2_add", "get_policy", FunctionName=FUNCTION)
