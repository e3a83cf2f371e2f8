"""The system-call filter: an OCI profile compiled once to BPF, loaded by every environment.

Room: root. `compile_profile` runs once in the builder; `load_in_child` in each environment, last before user code.
Source of the format: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
"""

from __future__ import annotations

import json
import tempfile
from importlib import resources
from typing import Any

import pyseccomp

from sandboxd.builder import linux
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
DEFAULT_PROFILE = "default.json"


def profile(name: str = DEFAULT_PROFILE) -> dict[str, Any]:
    """A profile that ships with the builder, as its JSON says."""
    text = resources.files("sandboxd.builder.profiles").joinpath(name).read_text()
    parsed: dict[str, Any] = json.loads(text)
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
            raise SandboxdError(f"seccomp profile: action {name!r} is not one that this builder knows")


def compile_profile(document: dict[str, Any]) -> bytes:
    """The BPF program of an OCI profile: struct sock_filter[] for this machine's architecture.

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
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()


def load_in_child(program: bytes) -> None:
    """Put the filter in front of every further system call of this process and its children."""
    linux.load_seccomp(program)
