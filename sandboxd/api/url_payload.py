"""Requests to functions' URLs as events, and functions' answers as HTTP: the payload format 2.0.

Room: service. May: read what a stranger sent and what a function answered. May not: believe either.

Source: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads and, for what that leaves open,
events and answers that AWS was recorded with (aws-lambda-go's lambdaurl/testdata, LocalStack's TestLambdaURL).
"""

from __future__ import annotations

import base64
import gc
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from sandboxd.http import Request, Response

PRELUDE_TYPE = "application/vnd.awslambda.http-integration-response"
PRELUDE_END = b"\0" * 8
HEAD_BYTES = 16 * 1024  # that a function may make of headers and cookies; a stream's prelude is no longer either

_MOST_HEADERS = 512
_TEXT = re.compile(r"text/.+|application/(.+\+)?(json|xml)|application/javascript")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What this server says itself, or what concerns one connection only: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
_OURS = frozenset(
    (
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-amzn-requestid",
        "x-amzn-trace-id",
    )
)
NO_BODY = (204, 304)  # what came behind the head of such an answer would be taken for the next one


class Malformed(ValueError):
    """An answer of a function that is none: the caller gets a 502."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a request came: by which URL (its id and host name), from where, when, under which id and trace."""

    url_id: str
    domain: str
    scheme: str
    port: int
    source_ip: str
    epoch: float  # seconds
    request_id: str
    trace_id: str


def event(request: Request, arrival: Arrival, caller: Mapping[str, str] | None) -> bytes:
    """The event of a request; `caller` is requestContext.authorizer.iam where there was a signature."""
    path, _, query = request.target.partition("?")
    headers = {name: value for name, value in request.headers.items() if name != "connection"}
    if caller is not None:
        headers.pop("authorization", None)  # whoever reads it could not use it, and AWS does not show it
    before = headers.get("x-forwarded-for")
    headers |= {
        "x-amzn-trace-id": arrival.trace_id,
        "x-forwarded-for": f"{before}, {arrival.source_ip}" if before else arrival.source_ip,
        "x-forwarded-port": str(arrival.port),
        "x-forwarded-proto": arrival.scheme,
    }
    document: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": _context(request, path, arrival, caller),
        "isBase64Encoded": False,
    }
    if "cookie" in headers:
        document["cookies"] = [cookie for part in headers["cookie"].split(";") if (cookie := part.strip())]
    if query:
        parameters: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            parameters.setdefault(name, []).append(value)
        document["queryStringParameters"] = {name: ",".join(values) for name, values in parameters.items()}
    if request.body:
        text = _text(request.body, headers)
        document["isBase64Encoded"] = text is None
        document["body"] = base64.b64encode(request.body).decode() if text is None else text
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _context(request: Request, path: str, arrival: Arrival, caller: Mapping[str, str] | None) -> dict[str, Any]:
    context: dict[str, Any] = {
        "accountId": "anonymous" if caller is None else caller["accountId"],
        "apiId": arrival.url_id,
        "domainName": arrival.domain,
        "domainPrefix": arrival.url_id,
        "http": {
            "method": request.method,
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": arrival.source_ip,
            "userAgent": request.headers.get("user-agent", ""),
        },
        "requestId": arrival.request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(arrival.epoch)),
        "timeEpoch": int(arrival.epoch * 1000),
    }
    if caller is not None:
        context["authorizer"] = {"iam": {"cognitoIdentity": None, "principalOrgId": None, **caller}}
    return context


def _text(body: bytes, headers: Mapping[str, str]) -> str | None:
    """A body as text where its type is one of text, and it is."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _TEXT.fullmatch(kind) or headers.get("content-encoding", "identity") != "identity":
        return None
    try:
        return body.decode()
    except ValueError:
        return None


def answer(payload: bytes) -> Response:
    """The HTTP answer that a function's payload is. Raises Malformed."""
    document = _decoded(payload)
    if not isinstance(document, dict) or "statusCode" not in document:
        return Response(200, _plain(document, payload), {"Content-Type": "application/json"})
    response = head(document)
    if response.status not in NO_BODY:
        response.body = _body(document)
    return response


def prelude(text: bytes) -> Response:
    """The head of a streamed answer. Raises Malformed."""
    document = _decoded(text)
    if not isinstance(document, dict):
        raise Malformed("no object")
    return head(document)


def head(document: dict[str, Any]) -> Response:
    """Status, headers and cookies of an answer. Raises Malformed."""
    status = document.get("statusCode", 200)
    if isinstance(status, bool) or not isinstance(status, int | str) or not re.fullmatch(r"[2-5][0-9]{2}", str(status)):
        raise Malformed("statusCode")
    headers, cookies = document.get("headers") or {}, document.get("cookies") or []
    if not isinstance(headers, dict) or not isinstance(cookies, list) or len(headers) + len(cookies) > _MOST_HEADERS:
        raise Malformed("headers or cookies")
    named = [(name.lower(), name, header_value(value)) for name, value in headers.items() if name.lower() not in _OURS]
    told = tuple(map(header_value, cookies))
    if sum(len(name) + len(value) for name, _, value in named) + sum(map(len, told)) > HEAD_BYTES:
        raise Malformed("too many bytes of headers")
    if not all(_NAME.fullmatch(name) for name, _, _ in named):
        raise Malformed("the name of a header")
    # Of names that differ in their case only the last one counts: no client is to choose between two types.
    kept = {lower: (name, value) for lower, name, value in named}
    kept.setdefault("content-type", ("Content-Type", "application/json"))
    return Response(int(status), b"", dict(kept.values()), cookies=told)


def header_value(value: Any) -> str:
    """A value as a header may hold it. Raises Malformed."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str | int | float) or not _VALUE.fullmatch(text):
        raise Malformed("the value of a header")
    return text


def _decoded(payload: bytes) -> Any:
    gc.disable()  # as for a payload that comes in: six megabytes can be two million lists
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise Malformed("no JSON") from None
    finally:
        gc.enable()


def _plain(document: Any, payload: bytes) -> bytes:
    """A value as AWS passes it on: a text without its quotes, anything else without spaces between its tokens."""
    try:
        if isinstance(document, str):
            return document.encode()
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):  # what Python reads and cannot write, such as halves of surrogate pairs
        return payload


def _body(document: dict[str, Any]) -> bytes:
    body = document.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise Malformed("body")
    try:
        return base64.b64decode(body, validate=True) if document.get("isBase64Encoded") else body.encode()
    except ValueError:
        raise Malformed("body") from None
