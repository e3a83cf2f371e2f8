"""Errors as AWS writes them, and the answers that carry them.

Room: service. May: words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sandboxd.api.service_model import ErrorShape
from sandboxd.errors import ApiError
from sandboxd.http import Response


class ErrorWriter:
    """Turns ApiError into a response, in the shape that the model gives an error of that code."""

    def __init__(self, shapes: Mapping[str, ErrorShape]) -> None:
        self._shapes = shapes

    def response(self, error: ApiError, request_id: str) -> Response:
        """The answer that an error is. What the model does not know has a `message` and no `Type`, as at AWS."""
        headers = {
            "Content-Type": "application/json",
            "x-amzn-RequestId": request_id,
            "x-amzn-ErrorType": error.code,
        }
        shape = self._shapes.get(error.code)
        if shape is None:
            return Response(error.status, json.dumps({"message": error.message}).encode(), headers)
        body = {"Type": error.fault} if error.fault else {}
        body[shape.text_member] = error.message
        for name, value in error.members.items():
            if name in shape.headers:
                headers[shape.headers[name]] = value
            else:
                body[name] = value
        return Response(error.status, json.dumps(body).encode(), headers)


def invalid_parameter(text: str) -> ApiError:
    """InvalidParameterValueException."""
    return ApiError("InvalidParameterValueException", text)


def not_offered(what: str) -> ApiError:
    """What AWS Lambda has and sandboxd does not."""
    return ApiError("NotImplementedException", f"sandboxd does not offer {what} yet", 501)


def not_offered_member(member: str) -> ApiError:
    """A configuration member that AWS Lambda knows and sandboxd cannot honour: refused, never ignored."""
    return invalid_parameter(f"sandboxd does not offer {member} yet")


def function_not_found(arn: str) -> ApiError:
    """ResourceNotFoundException for a function or a version of it."""
    return ApiError("ResourceNotFoundException", f"Function not found: {arn}", 404)


def in_state(state: str) -> ApiError:
    """ResourceConflictException for a function that is not Active.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html
    """
    text = "The operation cannot be performed at this time. The function is currently in the following state: "
    return ApiError("ResourceConflictException", text + state, 409)


def update_in_progress(arn: str) -> ApiError:
    """ResourceConflictException for a function that is being changed."""
    text = f"The operation cannot be performed at this time. An update is in progress for resource: {arn}"
    return ApiError("ResourceConflictException", text, 409)


def revision_differs(call: str = "GetFunction/GetAlias") -> ApiError:
    """PreconditionFailedException for a RevisionId that is not the present one."""
    text = (
        "The Revision Id provided does not match the latest Revision Id. "
        f"Call the {call} API to retrieve the latest Revision Id"
    )
    return ApiError("PreconditionFailedException", text, 412)


def functions_only() -> ApiError:
    """InvalidParameterValueException for a qualifier where there may be none."""
    return invalid_parameter(
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
        "Please specify either a function name or an unqualified function ARN."
    )


def request_too_large(limit: int, operation: str) -> ApiError:
    """The 413 that AWS answers before it reads a request any further."""
    text = f"Request must be smaller than {limit} bytes for the {operation} operation"
    return ApiError("RequestEntityTooLargeException", text, 413)


def s3_denied(bucket: str, key: str, words: str) -> ApiError:
    """AccessDeniedException for an object that is to be a package; `words` are S3's."""
    text = (
        "Your access has been denied by S3, please make sure your request credentials have permission to GetObject for"
    )
    return access_denied(f"{text} {bucket}/{key}. {words}")


def access_denied(text: str) -> ApiError:
    """AccessDeniedException."""
    return ApiError("AccessDeniedException", text, 403)
