"""Configuration members that a version keeps as they are: its dead-letter queue, how it logs, and so on.

Room: service. May: check values, words.

A member that says what every function has anyway is not kept: whether two versions differ is judged by what is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sandboxd.api.errors import invalid_parameter
from sandboxd.model.function import FunctionVersion

Member = dict[str, Any]

# https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html#snapstart-runtimes
_SNAPSTART = ("java", "python3.12", "python3.13", "python3.14", "dotnet8", "dotnet10")
_LEVELS = ("ApplicationLogLevel", "SystemLogLevel")


def kept(version: FunctionVersion, members: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A version's `settings` with the members of a request in them. Raises InvalidParameterValueException."""
    settings = dict(version.settings)
    for name, merge in _MERGES.items():
        if name in members:
            merged = merge(json.loads(settings.pop(name, "{}")), members[name])
            if merged:
                settings[name] = json.dumps(merged, sort_keys=True)
    return tuple(sorted(settings.items()))


def check_snapstart(version: FunctionVersion) -> None:
    """Raise InvalidParameterValueException where a runtime knows no SnapStart."""
    if "SnapStart" in dict(version.settings) and not version.runtime.startswith(_SNAPSTART):
        raise invalid_parameter(f"{version.runtime} is not supported for SnapStart enabled functions.")


def described(version: FunctionVersion) -> Member:
    """The members as AWS shows them."""
    settings = {name: json.loads(text) for name, text in version.settings}
    logging = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{version.name}"}
    return settings | {
        "LoggingConfig": logging | settings.get("LoggingConfig", {}),
        "TracingConfig": settings.get("TracingConfig", {"Mode": "PassThrough"}),
        # Nothing is snapshotted, which AWS's Off says; what it does with ApplyOn is a matter of speed only.
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"} | settings.get("SnapStart", {}),
    }


def _dead_letter(_: Member, asked: Member) -> Member:
    return asked if asked.get("TargetArn") else {}


def _logging(before: Member, asked: Member) -> Member:
    merged = before | asked
    if merged.get("LogFormat") == "JSON":
        # Whoever asks for JSON without levels gets the ordinary ones, whatever there was before.
        levels = dict.fromkeys(_LEVELS, "INFO")
        return before | levels | asked if "LogFormat" in asked else merged
    if any(level in asked for level in _LEVELS):
        raise invalid_parameter(
            'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change '
            'the LogFormat to "Json" and try again.'
        )
    return {"LogGroup": merged["LogGroup"]} if "LogGroup" in merged else {}


def _tracing(before: Member, asked: Member) -> Member:
    mode = asked.get("Mode", before.get("Mode"))
    return {"Mode": "Active"} if mode == "Active" else {}


def _snapstart(before: Member, asked: Member) -> Member:
    apply_on = asked.get("ApplyOn", before.get("ApplyOn"))
    return {"ApplyOn": apply_on} if apply_on == "PublishedVersions" else {}


_MERGES: dict[str, Callable[[Member, Member], Member]] = {
    "DeadLetterConfig": _dead_letter,
    "LoggingConfig": _logging,
    "SnapStart": _snapstart,
    "TracingConfig": _tracing,
}
