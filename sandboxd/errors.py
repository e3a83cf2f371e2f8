"""Every error that crosses a room's border.

Room: all. May: nothing but hold values.
"""

from __future__ import annotations


class SandboxdError(Exception):
    """Base of everything that sandboxd raises on purpose; its text is fit to show to a person."""


class StartFailed(SandboxdError):
    """The daemon cannot start here; its text says what to do."""


class ConfigError(SandboxdError):
    """A configuration key or value that is not allowed: says where, which, what and what would be."""

    def __init__(self, source: str, key: str, value: object, allowed: str) -> None:
        self.source, self.key, self.value, self.allowed = source, key, value, allowed
        super().__init__(f"{source}: {key} = {value!r} is not allowed; allowed: {allowed}")


class StepFailed(SandboxdError):
    """A step of building a sandbox that the kernel refused.

    `step` is the name in the visible list of steps, `errno` the kernel's answer (0: not a system call).
    """

    def __init__(self, step: str, errno: int, detail: str = "") -> None:
        self.step, self.errno, self.detail = step, errno, detail
        import os

        reason = os.strerror(errno) if errno else "failed"
        super().__init__(f"{step}: {reason}" + (f" ({detail})" if detail else ""))


class ProtocolViolation(SandboxdError):
    """A message that is not in the closed table, or breaks its bounds: the peer that sent it is ended."""


class PackageRejected(SandboxdError):
    """A code package that cannot be unpacked; `reason` is one of privsep.messages.UnpackStatus by name."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class ApiError(SandboxdError):
    """An answer of the REST API other than success, in AWS's shape.

    `code` is the error code of the service model (`ResourceNotFoundException`), `status` the HTTP status,
    `fault` AWS's `Type` member ("User" or "Service"), `members` further members of the body (`Reason`).
    """

    def __init__(
        self, code: str, message: str, status: int = 400, *, fault: str | None = "User", **members: str
    ) -> None:
        self.code, self.message, self.status, self.fault, self.members = code, message, status, fault, members
        super().__init__(f"{code}: {message}")
