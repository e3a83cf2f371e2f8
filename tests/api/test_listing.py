"""Lists over 10,000 functions: in pages, each of which looks at no more than it shows."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from typing import Any

from sandboxd.model.function import FunctionVersion
from tests.api.conftest import Endpoint

COUNT = 10_000


class Counted(dict[str, FunctionVersion]):
    """Functions by name, and how many were looked at."""

    looked_at = 0

    def __getitem__(self, name: str) -> FunctionVersion:
        self.looked_at += 1
        return super().__getitem__(name)


def fill(endpoint: Endpoint) -> None:
    """Write functions, and a version of each of the last hundred, into the database of an endpoint, which has to be
    started again."""
    endpoint.create("function-00000")
    (latest,) = endpoint.store.functions.all()
    rows = []
    for version, begin in (("$LATEST", 0), ("1", COUNT - 100)):
        record = json.dumps(dataclasses.asdict(dataclasses.replace(latest, version=version)))
        for number in range(begin, COUNT):
            name = f"function-{number:05}"
            rows.append((name, version, latest.code_digest, record.replace(latest.name, name)))
    connection = sqlite3.connect(endpoint.config.service_dir / "sandboxd.db")
    with connection:
        connection.executemany(
            "INSERT OR REPLACE INTO function_versions (name, version, code_digest, record) VALUES (?, ?, ?, ?)", rows
        )
    connection.close()


def test_pages_of_ten_thousand_functions(make_endpoint: Callable[..., Endpoint]) -> None:
    fill(make_endpoint())
    endpoint = make_endpoint()
    functions = endpoint.store.functions
    functions._described = counted = Counted(functions._described)
    client = endpoint.boto3()
    names: list[str] = []
    members: dict[str, Any] = {}
    while True:
        counted.looked_at = 0
        answer = client.list_functions(**members)
        assert counted.looked_at <= 52, len(names)
        names += [function["FunctionName"] for function in answer["Functions"]]
        if "NextMarker" not in answer:
            break
        assert len(answer["Functions"]) == 50
        members = {"Marker": answer["NextMarker"]}
    assert names == [f"function-{number:05}" for number in range(COUNT)]
    counted.looked_at = 0
    page = client.list_functions(FunctionVersion="ALL", Marker=members["Marker"])["Functions"]
    numbers = [(function["FunctionName"], function["Version"]) for function in page]
    # The marker is behind $LATEST of the function before the last page's.
    before, first = names[-51], names[-50]
    assert numbers[:3] == [(before, "1"), (first, "$LATEST"), (first, "1")] and len(numbers) == 50
    usage = client.get_account_settings()["AccountUsage"]
    assert usage == {"TotalCodeSize": (COUNT + 100) * page[0]["CodeSize"], "FunctionCount": COUNT}
    assert counted.looked_at <= 52
    client.close()
