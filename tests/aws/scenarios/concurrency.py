"""TestLambdaReservedConcurrency."""

from __future__ import annotations

from tests.aws.player import ARN, FUNCTION, Player

_PUT = "put_function_concurrency"


def function_concurrency_exceptions(play: Player) -> None:
    step = "put_function_concurrency_with_function_name_doesnotexist"
    play.step(step, _PUT, FunctionName="doesnotexist", ReservedConcurrentExecutions=1)
    step += "_and_invalid_concurrency"
    play.step(step, _PUT, FunctionName="doesnotexist", ReservedConcurrentExecutions=0)
    play.create()
    latest = {"FunctionName": f"{ARN}{FUNCTION}:$LATEST", "ReservedConcurrentExecutions": 0}
    play.step("put_function_concurrency_with_qualified_arn", _PUT, **latest)


def function_concurrency_limits(play: Player) -> None:
    play.create()
    limit = play.ask("get_account_settings")["AccountLimit"]["ConcurrentExecutions"]
    for step, more in {"account_limit_exceeded": 1, "below_unreserved_min_value": 0}.items():
        members = {"FunctionName": FUNCTION, "ReservedConcurrentExecutions": limit + more}
        play.step(f"put_function_concurrency_{step}", _PUT, **members)


def function_concurrency(play: Player) -> None:
    play.create()
    for number in (0, 1):
        members = {"FunctionName": FUNCTION, "ReservedConcurrentExecutions": number}
        play.step(f"put_function_concurrency_with_reserved_{number}", _PUT, **members)
    play.step("get_function_concurrency", "get_function_concurrency", FunctionName=FUNCTION)
    play.step("delete_response", "delete_function_concurrency", FunctionName=FUNCTION)
    play.step("get_function_concurrency_after_delete", "get_function_concurrency", FunctionName=FUNCTION)
