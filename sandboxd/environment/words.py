"""AWS's words: log lines and error bodies, exactly as Lambda writes them.

Room: service. May: make text from values. May not: any I/O, any clock.

Sources: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html (START, END, REPORT),
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html (INIT_REPORT), Go's os.ProcessState.String
(AWS's supervisor is written in Go), github.com/aws/aws-lambda-runtime-interface-emulator (error types).
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from math import ceil

# How Go names the signals of Linux (syscall/zerrors_linux_amd64.go).
_GO_SIGNALS = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
    16: "stack fault",
    signal.SIGXCPU: "CPU time limit exceeded",
    signal.SIGXFSZ: "file size limit exceeded",
    signal.SIGVTALRM: "virtual timer expired",
    signal.SIGPROF: "profiling timer expired",
    signal.SIGIO: "I/O possible",
    signal.SIGPWR: "power failure",
    signal.SIGSYS: "bad system call",
}

TIMED_OUT = "Sandbox.Timedout"
EXITED = "Runtime.ExitError"
OUT_OF_MEMORY = "Runtime.OutOfMemory"
RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"


def exit_reason(status: int) -> str:
    """How a process ended, from waitpid's status, as AWS tells it."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        dumped = " (core dumped)" if os.WCOREDUMP(status) else ""
        return f"Runtime exited with error: signal: {_GO_SIGNALS.get(number, f'signal {number}')}{dumped}"
    if code := os.WEXITSTATUS(status):
        return f"Runtime exited with error: exit status {code}"
    return "Runtime exited without providing a reason"


def timed_out(timeout: float) -> str:
    """What is said of a function that did not answer within its timeout, in seconds."""
    return f"Task timed out after {timeout:.2f} seconds"


def error_body(error_type: str, request_id: str, reason: str) -> bytes:
    """The payload of an error that the service found, not the function."""
    return json.dumps(
        {"errorType": error_type, "errorMessage": f"RequestId: {request_id} Error: {reason}"}, separators=(",", ":")
    ).encode()


def response_too_large(limit: int) -> bytes:
    """The payload of an answer larger than `limit` bytes."""
    message = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
    return json.dumps({"errorMessage": message, "errorType": RESPONSE_TOO_LARGE}, separators=(",", ":")).encode()


def runtime_version(runtime: str, region: str, image_digest: bytes) -> tuple[str, str]:
    """Name and ARN of a runtime's version. The digest of the image stands where AWS has the version's."""
    language = runtime.rstrip("0123456789.x")
    version = f"{language}:{runtime.removeprefix(language)}"
    return version, f"arn:aws:lambda:{region}::runtime:{image_digest.hex()}"


def init_start(runtime: str, region: str, image_digest: bytes) -> str:
    """The line before an init phase."""
    version, arn = runtime_version(runtime, region, image_digest)
    return f"INIT_START Runtime Version: {version}\tRuntime Version ARN: {arn}\n"


def init_report(duration_ms: float, phase: str, status: str, error_type: str = "") -> str:
    """The line after an init phase that did not come to an end; `phase` is init or invoke."""
    error = f"\tError Type: {error_type}" if error_type else ""
    return f"INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: {phase}\tStatus: {status}{error}\n"


def start(request_id: str, version: str) -> str:
    """The line before an invocation."""
    return f"START RequestId: {request_id} Version: {version}\n"


@dataclass(frozen=True, slots=True)
class Report:
    """What an invocation took: times in milliseconds, memory in MB. `status` is empty where all went well."""

    request_id: str
    duration_ms: float
    billed_ms: int
    memory_size: int
    max_memory_used: int
    init_ms: float | None = None  # of the init phase before it, where there was one
    status: str = ""
    error_type: str = ""

    def lines(self) -> str:
        """END and REPORT."""
        init = f"Init Duration: {self.init_ms:.2f} ms\t" if self.init_ms is not None else ""
        status = f"Status: {self.status}" if self.status else ""
        error = f"\tError Type: {self.error_type}" if self.error_type else ""
        return (
            f"END RequestId: {self.request_id}\n"
            f"REPORT RequestId: {self.request_id}\tDuration: {self.duration_ms:.2f} ms\t"
            f"Billed Duration: {self.billed_ms} ms\tMemory Size: {self.memory_size} MB\t"
            f"Max Memory Used: {self.max_memory_used} MB\t{init}{status}{error}\n"
        )


def billed_ms(duration_ms: float, init_ms: float | None, step_ms: int, init_is_billed: bool) -> int:
    """The duration that is billed, rounded up to whole steps.

    AWS bills the init phase since August 2025 (the `current` profile) and did not in the days of 100 ms steps.
    Source: https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
    """
    total = duration_ms + (init_ms or 0.0 if init_is_billed else 0.0)
    return max(1, ceil(total / step_ms)) * step_ms
