"""Recorded conversations, one file per resource: requests as they go over the wire, and what was answered.

    python -m tests.api.conversations [NAME...]

records the answers to the requests that stand in `conversations/*.json` anew. What is another with every run stands
there as a placeholder: `<uuid:2>` is the second of its kind, the same value has the same one everywhere, and a request
may name what an answer gave. `WAIT f` is no request: it waits until nobody changes the function.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.api.conftest import Endpoint, package

DIRECTORY = Path(__file__).parent / "conversations"
NAMES = sorted(path.stem for path in DIRECTORY.glob("*.json"))
HEADERS = ("x-amzn-errortype", "x-amz-executed-version", "x-amz-function-error", "retry-after")
PACKAGES = {"<package>": package(), "<other package>": package("other")}
_OTHER_EACH_TIME = {"Location": "<location>", "CodeSizeLimit": "<bytes>"}
_KINDS = {
    "uuid": re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "csc": re.compile(r"csc-[a-z0-9]{17}"),
    "url": re.compile(r"\b[a-z0-9]{32}\b"),
}
_TIMES = {
    "<time>": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000"),
    "<time in seconds>": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[Z+.:0-9]*"),
}
_PLACEHOLDER = re.compile(r"<[a-z]+:\d+>")

Step = dict[str, Any]


class Conversation:
    """Plays the steps of one file on an endpoint of its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._known: dict[str, str] = {}  # placeholders by value
        self._counts: Counter[str] = Counter()

    def play(self, steps: list[Step]) -> list[Step]:
        """The steps, with what was answered."""
        return [self._play(step) for step in steps]

    def _play(self, step: Step) -> Step:
        method, _, target = step["request"].partition(" ")
        asked = {name: step[name] for name in ("request", "body") if name in step}
        if method == "WAIT":
            self._endpoint.settled(target)
            return asked
        body: Any = self._meant(step.get("body", b""))
        if isinstance(body, str):
            body = body.encode()
        status, headers, answer = self._endpoint.unix(method, quote(self._meant(target), safe="/:?&=%$"), body)
        told = {name: headers[name] for name in HEADERS if name in headers}
        said = {"answer": self._written(json.loads(answer))} if answer else {}
        return asked | {"status": status} | ({"headers": told} if told else {}) | said

    def _meant(self, value: Any) -> Any:
        """What a request says, with values for its placeholders."""
        if isinstance(value, dict):
            return {self._meant(key): self._meant(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._meant(item) for item in value]
        if value in PACKAGES:
            return base64.b64encode(PACKAGES[value]).decode()
        if isinstance(value, str):
            values = {placeholder: known for known, placeholder in self._known.items()}
            return _PLACEHOLDER.sub(lambda match: values[match[0]], value)
        return value

    def _written(self, value: Any, name: str = "") -> Any:
        """What an answer says, with placeholders for what is another each time."""
        if name in _OTHER_EACH_TIME and value:
            return _OTHER_EACH_TIME[name]
        if isinstance(value, dict):
            if "TotalCodeSize" in value and "CodeSizeZipped" in value:  # the size of the disk
                value = value | {"TotalCodeSize": "<bytes>"}
            return {key: self._written(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self._written(item) for item in value]
        if isinstance(value, float) and value > 1e9:
            return "<seconds>"
        if not isinstance(value, str):
            return value
        for placeholder, pattern in _TIMES.items():
            value = pattern.sub(placeholder, value)
        for kind, pattern in _KINDS.items():
            value = pattern.sub(lambda match, kind=kind: self._placeholder(kind, match[0]), value)
        return value.replace(f":{self._endpoint.config.api_listen[1]}", ":<port>")

    def _placeholder(self, kind: str, value: str) -> str:
        if value not in self._known:
            self._counts[kind] += 1
            self._known[value] = f"<{kind}:{self._counts[kind]}>"
        return self._known[value]


def read(name: str) -> list[Step]:
    """The steps of a file."""
    return list(json.loads((DIRECTORY / f"{name}.json").read_text()))


def record(name: str) -> None:
    """Play a file's requests, and write down what is answered."""
    with tempfile.TemporaryDirectory() as directory:
        endpoint = Endpoint(Path(directory))
        endpoint.start()
        try:
            steps = Conversation(endpoint).play(read(name))
        finally:
            endpoint.stop()
    (DIRECTORY / f"{name}.json").write_text(json.dumps(steps, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    for conversation in sys.argv[1:] or NAMES:
        record(conversation)
