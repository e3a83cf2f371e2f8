"""TestLambdaEventInvokeConfig."""

from __future__ import annotations

from typing import Any

from tests.aws.player import ARN, FUNCTION, Player

_NONE = "doesnotexist"
_GET, _DELETE, _LIST = (
    "get_function_event_invoke_config",
    "delete_function_event_invoke_config",
    "list_function_event_invoke_configs",
)


def _put(play: Player, step: str, /, name: str = FUNCTION, **members: Any) -> None:
    play.step(step, "put_function_event_invoke_config", FunctionName=name, **members)


def _update(play: Player, step: str, /, name: str = FUNCTION, **members: Any) -> None:
    play.step(step, "update_function_event_invoke_config", FunctionName=name, **members)


def lambda_eventinvokeconfig_lifecycle(play: Player) -> None:
    play.create()
    _put(play, "put_invokeconfig_retries_0", MaximumRetryAttempts=0)
    _put(play, "put_invokeconfig_eventage_60", MaximumEventAgeInSeconds=60)
    _update(play, "update_invokeconfig_eventage_nochange", MaximumEventAgeInSeconds=60)
    _update(play, "update_invokeconfig_retries", MaximumRetryAttempts=1)
    play.step("get_invokeconfig", _GET, FunctionName=FUNCTION)
    play.step("get_invokeconfig_latest", _GET, FunctionName=FUNCTION, Qualifier="$LATEST")
    play.step("list_single_invokeconfig", _LIST, FunctionName=FUNCTION)
    play.step("publish_version_result", "publish_version", FunctionName=FUNCTION)
    play.step("get_invokeconfig_postpublish", _GET, FunctionName=FUNCTION, Qualifier="1")
    _put(play, "put_published_invokeconfig", Qualifier="1", MaximumEventAgeInSeconds=120)
    play.step("get_published_invokeconfig", _GET, FunctionName=FUNCTION, Qualifier="1")
    play.ask(_DELETE, FunctionName=FUNCTION)
    play.step("list_paging_nolimit_postdelete", _LIST, FunctionName=FUNCTION)


def lambda_eventinvokeconfig_exceptions(play: Player) -> None:
    play.create()
    play.create("", "other")
    play.step("fn_version_result", "publish_version", FunctionName=FUNCTION)
    alias = {"FunctionName": FUNCTION, "Name": "eventinvokealias", "FunctionVersion": "1"}
    play.step("fn_alias_result", "create_alias", **alias)
    _destinations(play)
    _qualifiers(play, alias["Name"])
    _overwriting(play)
    _deletions(play, alias["Name"])


def _destinations(play: Player) -> None:
    def to(destination: str) -> dict[str, Any]:
        return {"OnSuccess": {"Destination": destination}}

    _put(play, "put_functionname_name_notfound", _NONE, MaximumRetryAttempts=1)
    _put(play, "put_functionname_arn_notfound", ARN + _NONE, MaximumRetryAttempts=1)
    _put(play, "put_functionname_nootherargs", _NONE)
    function = ARN + FUNCTION
    iam, ill_formed = function.replace(":lambda:", ":iam:"), function.replace(":lambda:", ":_-/!lambda:")
    for step, config in {
        "lambda_doesntexist": to(ARN + _NONE),
        "recursive": to(function),
        "other_lambda": to(f"{ARN}other"),
        "invalid_service_arn": to(iam),
        "success_no_destination_arn": {"OnSuccess": {}},
        "failure_no_destination_arn": {"OnFailure": {}},
        "invalid_arn_pattern": {"OnFailure": {"Destination": ill_formed}},
    }.items():
        _put(play, f"put_destination_{step}", DestinationConfig=config)


def _qualifiers(play: Player, alias: str) -> None:
    other, arn, short = f"{alias}doesnotexist", f"{ARN}{FUNCTION}:{alias}", f"{FUNCTION}:{alias}"
    for step, name, qualifier in (
        ("put_destination_latest", FUNCTION, None),
        ("put_destination_latest_explicit_qualifier", FUNCTION, "$LATEST"),
        ("put_destination_version", FUNCTION, "1"),
        ("put_alias_functionname_qualifier", FUNCTION, alias),
        ("put_alias_doesnotexist", FUNCTION, other),
        ("put_alias_qualifiedarn", arn, None),
        ("put_alias_qualifiedarn_qualifier", arn, alias),
        ("put_alias_qualifiedarn_qualifierconflict", arn, other),
        ("put_alias_shorthand", short, None),
        ("put_alias_shorthand_qualifier", short, alias),
        ("put_alias_shorthand_qualifierconflict", short, other),
        ("put_version_shorthand", f"{FUNCTION}:1", None),
        ("put_shorthand_qualifier_match", f"{FUNCTION}:$LATEST", "$LATEST"),
        ("put_shorthand_qualifier_mismatch_1", f"{FUNCTION}:1", "$LATEST"),
        ("put_shorthand_qualifier_mismatch_2", f"{FUNCTION}:$LATEST", "1"),
        ("put_shorthand_qualifier_mismatch_3", f"{FUNCTION}:1", alias),
    ):
        members = {} if qualifier is None else {"Qualifier": qualifier}
        _put(play, step, name, MaximumRetryAttempts=1, **members)


def _overwriting(play: Player) -> None:
    _put(play, "put_maxevent_maxvalue_result", MaximumRetryAttempts=2, MaximumEventAgeInSeconds=21600)
    _put(play, "put_pre_overwrite", MaximumRetryAttempts=2, MaximumEventAgeInSeconds=60)
    _put(play, "put_post_overwrite", MaximumRetryAttempts=0)
    _put(play, "second_overwrite_existing_response", MaximumRetryAttempts=0)
    play.step("get_post_overwrite", _GET, FunctionName=FUNCTION)
    _put(play, "pre_update_response", MaximumRetryAttempts=2, MaximumEventAgeInSeconds=60)
    _update(play, "update_response", MaximumRetryAttempts=0)
    _update(play, "update_response_existing", MaximumRetryAttempts=0)


def _deletions(play: Player, alias: str) -> None:
    configs = play.ask(_LIST, FunctionName=FUNCTION)
    if "FunctionEventInvokeConfigs" in configs:  # AWS lists them in no order
        configs["FunctionEventInvokeConfigs"].sort(key=lambda config: config["FunctionArn"])
    play.note("list_configs", configs)
    for step, qualifier in (("delete_latest", "$LATEST"), ("delete_version", "1"), ("delete_alias", alias)):
        play.step(step, _DELETE, FunctionName=FUNCTION, Qualifier=qualifier)
    play.step("list_configs_postdelete", _LIST, FunctionName=FUNCTION)
    play.step("delete_function_not_found", _DELETE, FunctionName=FUNCTION)
    play.step("delete_function_doesnotexist", _DELETE, FunctionName=_NONE)
    play.step("list_function_doesnotexist", _LIST, FunctionName=_NONE)
    play.step("get_function_doesnotexist", _GET, FunctionName=_NONE)
    play.step("get_qualifier_doesnotexist", _GET, FunctionName=FUNCTION, Qualifier=_NONE)
    arn = f"{ARN}{FUNCTION}:{alias}"
    _update(play, "update_eventinvokeconfig_function_doesnotexist", _NONE, MaximumRetryAttempts=0)
    play.step("get_eventinvokeconfig_doesnotexist", _GET, FunctionName=arn)
    step = "update_eventinvokeconfig_config_doesnotexist_with"
    _update(play, f"{step}_qualifier", arn, MaximumRetryAttempts=0)
    _update(play, f"{step}out_qualifier", ARN + FUNCTION, MaximumRetryAttempts=0)
