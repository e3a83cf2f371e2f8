"""What an ending of an invocation means: for its caller, its log, and its environment.

Room: service. May: make values from values. May not: any I/O, any clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandboxd.environment import words
from sandboxd.environment.runtime_api import ENVELOPE_BYTES, Answer, InitError
from sandboxd.model.invocation import InvocationResult, Outcome

# AWS answers Unhandled for what the runtime reported, too: "Handled" was the word of the first Node.js runtimes, whose
# handlers called back with an error. Seen with every runtime that speaks the Runtime API.
FUNCTION_ERROR = "Unhandled"


@dataclass(frozen=True, slots=True)
class RuntimeExit:
    """The runtime process ended; `status` is waitpid's."""

    status: int
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Timeout:
    """The function did not answer within its timeout, in seconds; `at` is when, as the log has it."""

    seconds: float
    at: str


Ending = Answer | InitError | RuntimeExit | Timeout


@dataclass(frozen=True, slots=True)
class Verdict:
    """`line` goes into the log before END; `status` and `error_type` into REPORT; `outcome` and the rest to the caller.
    `error_type` of INIT_REPORT is the same."""

    outcome: Outcome
    payload: bytes
    content_type: str = "application/json"
    line: str = ""
    status: str = ""
    error_type: str = ""

    def result(self, log_tail: bytes = b"") -> InvocationResult:
        """What the caller gets."""
        error = None if self.outcome is Outcome.OK else FUNCTION_ERROR
        return InvocationResult(self.outcome, self.payload, self.content_type, error, log_tail)


def judge(ending: Ending, request_id: str, max_payload: int) -> Verdict:
    """The verdict on an ending of an invocation, whose answer might have `max_payload` bytes."""
    match ending:
        case Answer(too_large=True):
            payload = words.response_too_large(max_payload + ENVELOPE_BYTES)
            return Verdict(Outcome.HANDLED, payload, status="error", error_type=words.RESPONSE_TOO_LARGE)
        case Answer(body, content_type, is_error):
            return Verdict(Outcome.HANDLED if is_error else Outcome.OK, body, content_type)
        case InitError(body, error_type):
            return Verdict(Outcome.FAILED, body, status="error", error_type=error_type)
        case RuntimeExit(status, out_of_memory):
            reason = words.exit_reason(status)
            error_type = words.OUT_OF_MEMORY if out_of_memory else words.EXITED
            line = f"RequestId: {request_id} Error: {reason}\n{words.EXITED}\n"
            payload = words.error_body(error_type, request_id, reason)
            return Verdict(Outcome.FAILED, payload, line=line, status="error", error_type=error_type)
        case Timeout(seconds, at):
            reason = words.timed_out(seconds)
            line = f"{at} {request_id} {reason}\n\n"
            payload = words.error_body(words.TIMED_OUT, request_id, reason)
            return Verdict(Outcome.TIMED_OUT, payload, line=line, status="timeout")
