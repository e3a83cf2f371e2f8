"""System-call filters from OCI profiles: the environments', the extractor's, the service's.

Room: all. May: read a profile that ships with the package, and make a filter of it. May not: load it.
Source of the format: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pyseccomp

from sandboxd.errors import SandboxdError

_OPERATORS = {
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}


def read_profile(package: str, name: str) -> dict[str, Any]:
    """A profile that ships with a package of ours, as its JSON says."""
    parsed: dict[str, Any] = json.loads(resources.files(package).joinpath(name).read_text())
    return parsed


def _action(name: str, errno: int | None) -> Any:
    match name:
        case "SCMP_ACT_ALLOW":
            return pyseccomp.ALLOW
        case "SCMP_ACT_ERRNO":
            return pyseccomp.ERRNO(errno if errno is not None else 1)
        case "SCMP_ACT_KILL_PROCESS":
            return pyseccomp.KILL_PROCESS
        case "SCMP_ACT_LOG":
            return pyseccomp.LOG
        case _:
            raise SandboxdError(f"seccomp profile: action {name!r} is not one that sandboxd knows")


def make_filter(document: dict[str, Any]) -> Any:
    """libseccomp's filter of an OCI profile, for this machine's architecture.

    Calls of a foreign architecture end the process. A name that this libseccomp does not know stays under the
    default action. Raises SandboxdError where the document asks for what cannot be compiled.
    """
    filter_ = pyseccomp.SyscallFilter(_action(document["defaultAction"], document.get("defaultErrnoRet")))
    filter_.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    filter_.set_attr(pyseccomp.Attr.CTL_NNP, 0)  # no_new_privs is a step of its own
    filter_.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree: the average call passes 10 tests, not 200
    for rule in document["syscalls"]:
        action = _action(rule["action"], rule.get("errnoRet"))
        conditions = [
            pyseccomp.Arg(a["index"], _OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0))
            for a in rule.get("args", ())
        ]
        for name in rule["names"]:
            try:
                number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            except ValueError:
                continue
            if number >= 0:
                filter_.add_rule(action, number, *conditions)
    return filter_
