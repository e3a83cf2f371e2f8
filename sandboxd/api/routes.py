"""Which operation a request asks for: a tree of path segments, from the model's request URIs.

Room: service. May: read the request line. May not: decide anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from sandboxd.api.service_model import Operation


@dataclass(slots=True)
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    label: _Node | None = None
    operations: list[tuple[str, dict[str, str], tuple[str, ...], Operation]] = field(default_factory=list)


class Routes:
    """The operations by method, path and the query that some routes demand."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._root = _Node()
        for operation in operations:
            path, _, query = operation.uri.partition("?")
            node, labels = self._root, []
            for segment in path.strip("/").split("/"):
                if segment.startswith("{"):
                    labels.append(segment.strip("{}"))
                    node.label = node.label or _Node()
                    node = node.label
                else:
                    node = node.literal.setdefault(segment, _Node())
            node.operations.append((operation.method, dict(parse_qsl(query)), tuple(labels), operation))
            node.operations.sort(key=lambda row: -len(row[1]))

    def find(self, method: str, path: str, query: Mapping[str, str]) -> tuple[Operation, dict[str, str]] | None:
        """The operation and the labels of its path (decoded), or None."""
        node, values = self._root, []
        for segment in path.strip("/").split("/"):
            following = node.literal.get(segment)
            if following is None:
                following = node.label
                values.append(unquote(segment))
            if following is None:
                return None
            node = following
        for wanted, demanded, labels, operation in node.operations:
            if wanted == method and demanded.items() <= dict(query).items():
                return operation, dict(zip(labels, values, strict=True))
        return None


class Query(dict[str, str]):
    """The parameters of a query, decoded; of a repeated one the last counts, where it is no list."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        super().__init__(pairs)

    def every(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return [value for key, value in self._pairs if key == name]


def read_query(query: str) -> Query:
    """The parameters of a request's query."""
    return Query(parse_qsl(query, keep_blank_values=True))
