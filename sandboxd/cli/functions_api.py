"""The REST API's operations on functions, as the command line calls them.

Room: command line. May: ask the daemon. Shapes: botocore's lambda/2015-03-31 model.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from sandboxd.cli.client import ADMIN, FUNCTIONS, Client, function_path
from sandboxd.cli.context import Failure

READY_SECONDS = 300  # AWS's waiters (function-active-v2, function-updated-v2) give up after as long
_POLL_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5)


def create(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    """CreateFunction."""
    return client.call("CreateFunction", "POST", FUNCTIONS, request, timeout=300)


def update_code(client: Client, name: str, source: dict[str, str]) -> dict[str, Any]:
    """UpdateFunctionCode."""
    return client.call("UpdateFunctionCode", "PUT", function_path(name, "/code"), source, timeout=300)


def update_configuration(client: Client, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """UpdateFunctionConfiguration."""
    return client.call("UpdateFunctionConfiguration", "PUT", function_path(name, "/configuration"), changes)


def get(client: Client, name: str) -> dict[str, Any]:
    """GetFunction."""
    return client.call("GetFunction", "GET", function_path(name))


def served_by(client: Client, runtime: str) -> str | None:
    """The runtime whose image serves a runtime, where it is another's."""
    other = client.call("GetStatus", "GET", f"{ADMIN}/status").get("Runtimes", {}).get(runtime)
    return None if other is None else str(other)


def configuration(client: Client, name: str) -> dict[str, Any]:
    """GetFunctionConfiguration."""
    return client.call("GetFunctionConfiguration", "GET", function_path(name, "/configuration"))


def every(client: Client) -> list[dict[str, Any]]:
    """ListFunctions, all pages."""
    return client.every("ListFunctions", f"{FUNCTIONS}/", "Functions")


def delete(client: Client, name: str) -> None:
    """DeleteFunction."""
    client.call("DeleteFunction", "DELETE", function_path(name))


def get_policy(client: Client, name: str) -> dict[str, Any]:
    """What the function may do beyond computing."""
    return client.call("GetPolicy", "GET", _policy_path(name))


def get_network(client: Client, name: str) -> dict[str, Any]:
    """What new environments of the function may reach, with its role."""
    return client.call("GetNetwork", "GET", f"{ADMIN}/functions/{quote(name, safe='')}/network")


def put_policy(client: Client, name: str, policy: dict[str, Any]) -> None:
    """Replace what the function may do beyond computing."""
    client.call("PutPolicy", "PUT", _policy_path(name), policy)


def wait_ready(client: Client, name: str) -> dict[str, Any]:
    """The configuration once the function is Active and its last update is in force; Failure where either failed."""
    deadline = time.monotonic() + READY_SECONDS
    attempt = 0
    while True:
        document = configuration(client, name)
        state, update = document.get("State", "Active"), document.get("LastUpdateStatus", "Successful")
        if "Failed" in (state, update):
            reason = document.get("StateReason") or document.get("LastUpdateStatusReason") or "no reason given"
            raise Failure(f"function {name} failed: {reason}")
        if state != "Pending" and update != "InProgress":
            return document
        if time.monotonic() > deadline:
            raise Failure(f"function {name} is still {state} ({update}) after {READY_SECONDS} s")
        time.sleep(_POLL_SECONDS[min(attempt, len(_POLL_SECONDS) - 1)])
        attempt += 1


def _policy_path(name: str) -> str:
    return f"{ADMIN}/functions/{quote(name, safe='')}/policy"
