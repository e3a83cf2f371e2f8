"""Recorded answers, and how one of ours is compared with one: member by member, the same placeholder the same value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

PLACEHOLDER = re.compile(r"<([a-z_0-9-]+)(?::len\((\d+)\)|:\d+)?>")
# Of these, two of the same value would have had one placeholder.
_DISTINCT = ("uuid", "code-sha256", "function-name")
_OTHER_EACH_TIME = ("<code-size>", "<location>")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
_STANDING = {"<partition>": "aws", "<region>": "us-east-1"}

Steps = dict[str, Any]


class Differs(Exception):
    """An answer is not the recorded one; the text says where."""


def read(directory: Path) -> dict[str, Steps]:
    """The steps of every scenario in a directory's files."""
    scenarios: dict[str, Steps] = {}
    for path in sorted(directory.glob("*.json")):
        for name, scenario in json.loads(path.read_text()).items():
            scenarios[name] = scenario["recorded-content"]
    return scenarios


def expand(text: str) -> str:
    """A recorded text with what its placeholders always stand for, and repeated letters written out."""
    for placeholder, value in _STANDING.items():
        text = text.replace(placeholder, value)
    return PLACEHOLDER.sub(lambda match: match[1] * int(match[2]) if match[2] else match[0], text)


class Comparison:
    """Compares the answers of one scenario; remembers what its placeholders stand for."""

    def __init__(self) -> None:
        self._bound: dict[str, str] = dict(_STANDING)

    def check(self, recorded: Any, answer: Any) -> None:
        """Raise Differs unless an answer of boto3 is the recorded one."""
        if isinstance(recorded, dict):
            # The recorder's own helper put an answer of CreateFunction beside that of another operation.
            recorded = recorded.get("CreateFunctionResponse", recorded)
        if isinstance(answer, dict) and "ResponseMetadata" in answer:
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            answer = answer | {"ResponseMetadata": {"HTTPHeaders": {}, "HTTPStatusCode": status}}
        self._compare(recorded, answer, "")

    def _compare(self, recorded: Any, actual: Any, where: str) -> None:
        if isinstance(recorded, dict):
            self._compare_members(recorded, json.loads(actual) if isinstance(actual, str) else actual, where)
        elif isinstance(recorded, list):
            if not isinstance(actual, list) or len(recorded) != len(actual):
                raise Differs(f"{where}: {recorded} is {actual}")
            for index, item in enumerate(recorded):
                self._compare(item, actual[index], f"{where}[{index}]")
        elif recorded == "datetime":
            if not isinstance(actual, datetime):
                raise Differs(f"{where}: {actual} is no time")
        elif recorded == "date":
            if not _DATE.fullmatch(str(actual)):
                raise Differs(f"{where}: {actual} is no time")
        elif isinstance(recorded, str):
            if recorded not in _OTHER_EACH_TIME:
                self._compare_text(recorded, str(actual), where)
        elif recorded != actual:
            raise Differs(f"{where}: {recorded} is {actual}")

    def _compare_members(self, recorded: Mapping[str, Any], actual: Any, where: str) -> None:
        if not isinstance(actual, dict):
            raise Differs(f"{where}: {recorded} is {actual}")
        if recorded.keys() != actual.keys():
            less, more = sorted(recorded.keys() - actual.keys()), sorted(actual.keys() - recorded.keys())
            raise Differs(f"{where}: without {less}, with {more}: {actual.get('Error', '')}")
        for name in recorded:
            self._compare(recorded[name], actual[name], f"{where}.{name}" if where else name)

    def _compare_text(self, recorded: str, actual: str, where: str) -> None:
        names: list[str] = []
        pattern, begin = "", 0
        for match in PLACEHOLDER.finditer(recorded):
            pattern += re.escape(recorded[begin : match.start()])
            begin = match.end()
            if match[2]:
                pattern += re.escape(match[1] * int(match[2]))
            elif match[0] in self._bound:
                pattern += re.escape(self._bound[match[0]])
            elif match[0] in names:
                pattern += f"(?P=p{names.index(match[0])})"
            else:
                pattern += f"(?P<p{len(names)}>.+?)"
                names.append(match[0])
        found = re.fullmatch(pattern + re.escape(recorded[begin:]), actual, re.DOTALL)
        if found is None:
            known = {name: value for name, value in self._bound.items() if name in recorded and name not in _STANDING}
            raise Differs(f"{where}: {recorded[:600]!r} is {actual[:600]!r} {known or ''}")
        for name, value in zip(names, found.groups(), strict=True):
            twin = next((n for n, v in self._bound.items() if v == value and _kind(n) == _kind(name)), None)
            if twin is not None and _kind(name) in _DISTINCT:
                raise Differs(f"{where}: {value} is {twin}, not {name}")
            self._bound[name] = value


def _kind(placeholder: str) -> str:
    return placeholder.strip("<>").partition(":")[0]
