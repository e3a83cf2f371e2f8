"""Reserved concurrency: kept, told to the scheduler, and what AWS says where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

ARN = "arn:aws:lambda:us-east-1:111111111111:function:"
BELOW_MINIMUM = (
    "InvalidParameterValueException",
    400,
    "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
    "minimum value of [100].",
)


def plain(answer: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return answer.pop("ResponseMetadata")["HTTPStatusCode"], answer


def unreserved(client: Any) -> int:
    return int(client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"])


def test_a_reservation_comes_and_goes(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    assert plain(client.get_function_concurrency(FunctionName="hello")) == (200, {})
    for number in (0, 1, 900):
        made = client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=number)
        assert plain(made) == (200, {"ReservedConcurrentExecutions": number})
        shown = client.get_function_concurrency(FunctionName=f"{ARN}hello")
        assert plain(shown) == (200, {"ReservedConcurrentExecutions": number})
        assert client.get_function(FunctionName="hello")["Concurrency"] == {"ReservedConcurrentExecutions": number}
        assert endpoint.scheduler.reserved == {"hello": number}
        assert unreserved(client) == 1000 - number
    for _ in range(2):
        assert plain(client.delete_function_concurrency(FunctionName="hello")) == (204, {})
        assert plain(client.get_function_concurrency(FunctionName="hello")) == (200, {})
        assert "Concurrency" not in client.get_function(FunctionName="hello")
    assert (endpoint.scheduler.reserved, unreserved(client)) == ({}, 1000)


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("unknown", 1001, ("ResourceNotFoundException", 404, f"Function not found: {ARN}unknown:$LATEST")),
        ("hello", 901, BELOW_MINIMUM),
        ("hello", 1001, BELOW_MINIMUM),
        *(
            (
                f"{ARN}hello:{qualifier}",
                0,
                (
                    "InvalidParameterValueException",
                    400,
                    "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
                    "operation. Please specify either a function name or an unqualified function ARN.",
                ),
            )
            for qualifier in ("$LATEST", "1", "live")
        ),
        (
            "hello",
            -1,
            (
                "ValidationException",
                400,
                "1 validation error detected: Value '-1' at 'reservedConcurrentExecutions' failed to satisfy "
                "constraint: Member must have value greater than or equal to 0",
            ),
        ),
    ],
)
def test_what_cannot_be_reserved(
    endpoint: Endpoint, client: Any, name: str, number: int, expected: tuple[str, int, str]
) -> None:
    endpoint.create()
    put = client.put_function_concurrency
    assert error_of(put, FunctionName=name, ReservedConcurrentExecutions=number) == expected
    assert (endpoint.scheduler.reserved, unreserved(client)) == ({}, 1000)


def test_what_others_have_is_not_there(endpoint: Endpoint, client: Any) -> None:
    for name in ("hello", "other"):
        endpoint.create(name)
    put = client.put_function_concurrency
    put(FunctionName="hello", ReservedConcurrentExecutions=700)
    put(FunctionName="hello", ReservedConcurrentExecutions=800)  # what it has counts as there
    assert error_of(put, FunctionName="other", ReservedConcurrentExecutions=101) == BELOW_MINIMUM
    put(FunctionName="other", ReservedConcurrentExecutions=100)
    assert error_of(put, FunctionName="hello", ReservedConcurrentExecutions=801) == BELOW_MINIMUM
    assert endpoint.scheduler.reserved == {"hello": 800, "other": 100}


def test_many_at_once_take_no_more_than_there_is(endpoint: Endpoint, client: Any) -> None:
    names = [f"f{number}" for number in range(8)]
    for name in names:
        endpoint.create(name)

    def put(name: str) -> bool:
        status, _, _ = endpoint.unix(
            "PUT", f"/2017-10-31/functions/{name}/concurrency", {"ReservedConcurrentExecutions": 200}
        )
        return status == 200

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(put, names)) == 4
    assert (sum(endpoint.scheduler.reserved.values()), unreserved(client)) == (800, 200)


def test_it_outlives_a_restart_and_ends_with_its_function(make_endpoint: Callable[..., Endpoint]) -> None:
    first = make_endpoint()
    first.create()
    client = first.boto3()
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=7)
    client.close()
    endpoint = make_endpoint()
    assert endpoint.scheduler.reserved == {"hello": 7}
    client = endpoint.boto3()
    client.delete_function(FunctionName="hello")
    assert (endpoint.scheduler.reserved, unreserved(client)) == ({}, 1000)
    endpoint.create()
    assert plain(client.get_function_concurrency(FunctionName="hello")) == (200, {})
    missing = error_of(client.get_function_concurrency, FunctionName="none")
    assert missing == ("ResourceNotFoundException", 404, f"Function not found: {ARN}none")
    client.close()
