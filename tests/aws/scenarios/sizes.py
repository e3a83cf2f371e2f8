"""TestLambdaSizeLimits."""

from __future__ import annotations

from tests.api.conftest import package
from tests.aws.player import Player

_UNZIPPED, _ZIPPED = 262_144_000, 52_428_800
_TOO_LARGE = "invalid_param_exc"


def oversized_request_create_lambda(play: Player) -> None:
    play.create_bare(_TOO_LARGE, Code={"ZipFile": bytes(_ZIPPED + 500_000)})


def oversized_zipped_create_lambda(play: Player) -> None:
    play.create_bare(_TOO_LARGE, Code={"ZipFile": bytes(_ZIPPED + 1)})


def oversized_unzipped_lambda(play: Player) -> None:
    play.create_bare(_TOO_LARGE, Code={"ZipFile": package("x" * (_UNZIPPED + 1))})


oversized_lambda = oversized_unzipped_lambda


def large_lambda(play: Player) -> None:
    code = {"ZipFile": package("x" * (_UNZIPPED - 1000))}
    play.create_bare("create_function_large_zip", Handler="handler.handler", Timeout=10, Code=code)


def large_environment_variables_fails(play: Player) -> None:
    play.create("failed_create_fn_result", Environment={"Variables": {"LARGE_VAR": "x" * 4081}})


def large_environment_fails_multiple_keys(play: Player) -> None:
    variables = {"SMALL_VAR": "ok", "LARGE_VAR": "x" * 4064}
    play.create("failured_create_fn_result_multi_key", Environment={"Variables": variables})


def lambda_envvars_near_limit_succeeds(play: Player) -> None:
    play.create("successful_create_fn_result", Environment={"Variables": {"LARGE_VAR": "x" * 4080}})
