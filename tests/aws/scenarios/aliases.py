"""TestLambdaAlias: names for versions, with weights."""

from __future__ import annotations

from typing import Any

from tests.aws.player import ARN, FUNCTION, Player

_STAGING = {"Environment": {"Variables": {"testenv": "staging"}}}


def _two_versions(play: Player, **members: Any) -> None:
    play.create_bare("create_response", **_STAGING, **members)
    play.step("publish_v1", "publish_version", FunctionName=FUNCTION)
    variables = {"Variables": {"testenv": "prod"}}
    play.ask("update_function_configuration", FunctionName=FUNCTION, Environment=variables)
    play.wait()
    play.step("publish_v2", "publish_version", FunctionName=FUNCTION)


def _weights(**weights: float) -> dict[str, Any]:
    return {"RoutingConfig": {"AdditionalVersionWeights": {name.strip("v"): w for name, w in weights.items()}}}


def alias_lifecycle(play: Player) -> None:
    _two_versions(play)
    custom = {"Description": "custom-alias"}
    for number, members in {
        "1_1": {"FunctionVersion": "1"} | custom | _weights(v2=0.2),
        "1_2": {"FunctionVersion": "1"} | custom,
        "1_3": {"FunctionVersion": "1"},
        "2": {"FunctionVersion": "2"} | custom,
    }.items():
        alias = {"FunctionName": FUNCTION, "Name": f"aliasname{number}"}
        play.step(f"create_alias_{number}", "create_alias", **alias, **members)
        play.step(f"get_alias_{number}", "get_alias", **alias)
        if number == "1_1":
            by_name = {"FunctionName": FUNCTION}
            play.step("get_function_alias_1_1", "get_function", **by_name, Qualifier="aliasname1_1")
            play.step("get_function_byarn_alias_1_1", "get_function", FunctionName=f"{ARN}{FUNCTION}:aliasname1_1")
            none = "aliasdoesnotexist"
            play.step("get_function_alias_notfound_exc", "get_function", **by_name, Qualifier=none)
            step = "get_function_alias_byarn_notfound_exc"
            play.step(step, "get_function", FunctionName=f"{ARN}{FUNCTION}:{none}")
    pages = {"PaginationConfig": {"PageSize": 1}}
    play.step("list_aliases_for_fnname", "list_aliases", FunctionName=FUNCTION, **pages)
    first, second = ({"FunctionName": FUNCTION, "Name": f"aliasname1_{n}"} for n in (1, 2))
    play.step("update_alias_1_1", "update_alias", **first, **_weights())
    play.step("get_alias_1_1_after_update", "get_alias", **first)
    play.step("list_aliases_for_fnname_after_update", "list_aliases", FunctionName=FUNCTION)
    play.step("update_alias_1_2", "update_alias", **second)
    play.step("get_alias_1_2_after_update", "get_alias", **second)
    play.step("list_aliases_for_fnname_after_update_2", "list_aliases", FunctionName=FUNCTION)
    play.step("list_aliases_for_version", "list_aliases", FunctionName=FUNCTION, FunctionVersion="1")
    play.step("delete_alias_response", "delete_alias", **first)
    play.step("list_aliases_for_fnname_afterdelete", "list_aliases", FunctionName=FUNCTION)


def non_existent_alias_deletion(play: Player) -> None:
    play.create_bare("create_response", **_STAGING)
    play.step("delete_alias_response", "delete_alias", FunctionName=FUNCTION, Name="non-existent")


def non_existent_alias_update(play: Player) -> None:
    play.create_bare("create_response", **_STAGING)
    play.step("update_alias_response", "update_alias", FunctionName=FUNCTION, Name="non-existent")


def notfound_and_invalid_routingconfigs(play: Player) -> None:
    _two_versions(play, Publish=True)

    def create(step: str, version: str = "1", /, name: str = "custom", **members: Any) -> None:
        alias = {"FunctionName": FUNCTION, "Name": name, "FunctionVersion": version}
        play.step(step, "create_alias", **alias | members)

    create("routing_config_exc_toomany", **_weights(v1=0.8, v2=0.2))
    create("routing_config_exc_toohigh", **_weights(v2=2))
    create("routing_config_exc_subzero", **_weights(v2=-1))
    create("routing_config_exc_sameversion", **_weights(v1=0.5))
    create("target_version_doesnotexist", "10", **_weights(v2=0.5))
    create("routing_config_exc_version_doesnotexist", **_weights(v10=0.5))
    create("target_version_exc_version_latest", "$LATEST", **_weights(v1=0.5))
    create("routing_config_exc_version_latest", **_weights(**{"$LATEST": 0.5}))
    create("create-alias-latest", "$LATEST", name="custom-latest")
    create("routing_config_exc_fn_doesnotexist", FunctionName=f"{FUNCTION}-unknown", **_weights(v2=0.5))
    create("create_alias_empty_routingconfig", name="custom-empty-routingconfig", **_weights())
    create("create_alias_response", **_weights(v2=0.5))
    create("routing_config_exc_already_exist", **_weights(v2=0.5))
    play.step("alias_does_not_exist_esc", "get_alias", FunctionName=FUNCTION, Name="non-existent")


def alias_naming(play: Player) -> None:
    play.create_bare("create_response", **_STAGING)
    play.step("publish_v1", "publish_version", FunctionName=FUNCTION)
    alias = {"FunctionName": FUNCTION, "FunctionVersion": "1", "Description": "custom-alias"}
    play.step("create_alias_date", "create_alias", Name="2024-01-02", **alias)
    play.step("get_alias_date", "get_alias", FunctionName=FUNCTION, Name="2024-01-02")
    play.step("create_alias_number_exception", "create_alias", Name="2024", **alias)
