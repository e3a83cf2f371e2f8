"""Cross-origin requests to functions' URLs: preflights are answered here, and answers are told who may read them.

Room: service. May: words.

Where a function says the same, what its URL is configured with counts: AWS sends both, and browsers refuse two.
Source: https://docs.aws.amazon.com/lambda/latest/api/API_Cors.html and https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxd.http import Request, Response

Cors = Mapping[str, Any]

_MEMBERS = "access-control-"


def is_preflight(request: Request) -> bool:
    """Whether a browser asks what it may send."""
    headers = request.headers
    return request.method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight(cors: Cors, request: Request, request_id: str) -> Response:
    """The answer to a preflight: to one that is not allowed, nothing that a browser takes for a permission."""
    headers = {
        "x-amzn-RequestId": request_id,
        "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }
    origin = _origin(cors, request)
    method = request.headers["access-control-request-method"]
    if origin and _allowed(cors.get("AllowMethods", []), method):
        asked = request.headers.get("access-control-request-headers", "").split(",")
        allowed = [name.strip() for name in asked if _allowed(cors.get("AllowHeaders", []), name.strip())]
        headers |= _origin_headers(cors, origin) | {"Access-Control-Allow-Methods": method}
        if allowed:
            headers["Access-Control-Allow-Headers"] = ",".join(allowed)
        headers["Access-Control-Max-Age"] = str(cors.get("MaxAge", 0))
    return Response(200, b"", headers)


def tell(cors: Cors, request: Request, response: Response) -> None:
    """Put into an answer what a URL's Cors says of it."""
    origin = _origin(cors, request)
    told = {name: value for name, value in response.headers.items() if not name.lower().startswith(_MEMBERS)}
    varies = next((name for name in told if name.lower() == "vary"), "Vary")
    told[varies] = f"{told[varies]}, Origin" if varies in told else "Origin"
    if origin:
        told |= _origin_headers(cors, origin)
        if cors.get("ExposeHeaders"):
            told["Access-Control-Expose-Headers"] = ",".join(cors["ExposeHeaders"])
    response.headers = told


def _origin(cors: Cors, request: Request) -> str:
    """The origin that is allowed, as the answer says it: all of them, or the one that asked; empty: it is not."""
    asked, allowed = request.headers.get("origin", ""), cors.get("AllowOrigins", [])
    if not asked or not _allowed(allowed, asked):
        return ""
    return "*" if "*" in allowed and not cors.get("AllowCredentials") else asked


def _origin_headers(cors: Cors, origin: str) -> dict[str, str]:
    credentials = {"Access-Control-Allow-Credentials": "true"} if cors.get("AllowCredentials") else {}
    return {"Access-Control-Allow-Origin": origin} | credentials


def _allowed(names: list[str], asked: str) -> bool:
    return "*" in names or asked.lower() in map(str.lower, names)
