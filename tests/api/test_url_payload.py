"""Requests as events and payloads as answers, against what AWS was recorded to do, and against what means harm."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.api import url_cors
from sandboxd.api.url_payload import Arrival, Malformed, answer, event, prelude
from sandboxd.http import Request, Response

HOST = "lambda-url-id.lambda-url.us-west-2.on.aws"
ARRIVAL = Arrival("lambda-url-id", HOST, "https", 443, "127.0.0.1", 1681834637.081, "an-id", "Root=1-643ec28d-5503")


def made(method: str = "GET", target: str = "/", headers: dict[str, str] | None = None, body: bytes = b"") -> Any:
    return json.loads(event(Request(method, target, {"host": HOST} | (headers or {}), body), ARRIVAL, None))


def test_an_event_as_aws_makes_it() -> None:
    """Recorded by aws-lambda-go: function-url-request-with-headers-and-cookies-and-text-body.json."""
    sent = {
        "accept": "*/*",
        "content-length": "18",
        "content-type": "application/json",
        "cookie": "foo=bar; hello=hello",
        "header2": "h1,h2",
        "host": HOST,
        "user-agent": "python-requests/2.28.2",
        "x-amz-date": "20230418T161716Z",
    }
    request = Request(
        "POST", "/hello?hello=world&foo=bar", sent | {"authorization": "AWS4-HMAC-SHA256 ...", "connection": "close"}
    )
    request.body = b'{"hello": "world"}'
    caller = {"accessKey": "AKIA", "accountId": "111111111111", "callerId": "a", "userArn": "arn:a", "userId": "a"}
    assert json.loads(event(request, ARRIVAL, caller)) == {
        "body": '{"hello": "world"}',
        "cookies": ["foo=bar", "hello=hello"],
        "headers": sent
        | {
            "x-amzn-trace-id": "Root=1-643ec28d-5503",
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "isBase64Encoded": False,
        "queryStringParameters": {"foo": "bar", "hello": "world"},
        "rawPath": "/hello",
        "rawQueryString": "hello=world&foo=bar",
        "requestContext": {
            "accountId": "111111111111",
            "apiId": "lambda-url-id",
            "authorizer": {"iam": {"cognitoIdentity": None, "principalOrgId": None, **caller}},
            "domainName": HOST,
            "domainPrefix": "lambda-url-id",
            "http": {
                "method": "POST",
                "path": "/hello",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "python-requests/2.28.2",
            },
            "requestId": "an-id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "18/Apr/2023:16:17:17 +0000",
            "timeEpoch": 1681834637081,
        },
        "routeKey": "$default",
        "version": "2.0",
    }


def test_what_a_request_does_not_have_its_event_has_not() -> None:
    bare = made(headers={"authorization": "Bearer x"})
    assert not {"body", "cookies", "queryStringParameters"} & bare.keys()
    assert (bare["rawPath"], bare["rawQueryString"], bare["isBase64Encoded"]) == ("/", "", False)
    assert bare["requestContext"]["accountId"] == "anonymous" and "authorizer" not in bare["requestContext"]
    assert bare["headers"]["authorization"] == "Bearer x"  # the function's own affair


def test_paths_and_queries_stay_as_they_were_sent() -> None:
    found = made(target="/a%20b/%2e%2e//c?x=1&y=%C3%A9&x=2&flag&x=")
    assert (found["rawPath"], found["rawQueryString"]) == ("/a%20b/%2e%2e//c", "x=1&y=%C3%A9&x=2&flag&x=")
    assert found["queryStringParameters"] == {"x": "1,2,", "y": "é", "flag": ""}


def test_who_forwarded_is_told_and_the_last_is_known() -> None:
    found = made(headers={"x-forwarded-for": "1.2.3.4", "x-forwarded-proto": "gopher"})
    assert found["headers"]["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"
    assert found["headers"]["x-forwarded-proto"] == "https"
    assert found["requestContext"]["http"]["sourceIp"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("kind", "body", "as_text"),
    [
        ("text/plain", b"x", True),
        ("TEXT/HTML; charset=utf-8", "é".encode(), True),
        ("application/json", b"{}", True),
        ("application/problem+json", b"{}", True),
        ("application/xml", b"<a/>", True),
        ("image/svg+xml", b"<a/>", False),
        ("application/javascript", b"1", True),
        ("application/x-www-form-urlencoded", b"a=b", False),
        ("multipart/form-data; boundary=x", b"--x", False),
        ("", b"x", False),
        ("text/plain", b"\xff", False),
    ],
)
def test_bodies(kind: str, body: bytes, as_text: bool) -> None:
    found = made("POST", headers={"content-type": kind} if kind else {}, body=body)
    assert found["isBase64Encoded"] is not as_text
    assert found["body"] == (body.decode() if as_text else base64.b64encode(body).decode())
    compressed = made("POST", headers={"content-type": "text/plain", "content-encoding": "gzip"}, body=b"x")
    assert compressed["isBase64Encoded"]


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        (b'{"hello": "world"}', b'{"hello":"world"}'),
        (b'["hello", 3, true]', b'["hello",3,true]'),
        (b'"hello"', b"hello"),
        (b"3", b"3"),
        (b"3.1", b"3.1"),
        (b"true", b"true"),
        (b"null", b"null"),
        ('{"a": "é\\u00e9"}'.encode(), '{"a":"éé"}'.encode()),
        (b'"\\ud800"', b'"\\ud800"'),
        (b"[1e999]", b"[1e999]"),
    ],
)
def test_a_value_without_a_status(payload: bytes, body: bytes) -> None:
    """Recorded by LocalStack: TestLambdaURL::test_lambda_url_invocation."""
    assert answer(payload) == Response(200, body, {"Content-Type": "application/json"})


def test_answers_with_a_status() -> None:
    def of(**members: Any) -> Response:
        return answer(json.dumps(members).encode())

    assert of(statusCode=200, body="body123") == Response(200, b"body123", {"Content-Type": "application/json"})
    teapot = of(statusCode="418", body="i'm a teapot", headers={"content-type": "text/plain", "X-A": 1, "X-B": True})
    assert teapot == Response(418, b"i'm a teapot", {"content-type": "text/plain", "X-A": "1", "X-B": "true"})
    image = of(statusCode=200, body=base64.b64encode(b"\0\xff").decode(), isBase64Encoded=True)
    assert image.body == b"\0\xff"
    cookies = of(statusCode=302, headers={"Location": "/x"}, cookies=["a=1; HttpOnly", "b=2"])
    assert (cookies.status, cookies.cookies, cookies.headers["Location"]) == (302, ("a=1; HttpOnly", "b=2"), "/x")
    assert of(statusCode=201).body == b""
    assert of(statusCode=200, headers=None, cookies=None, body=None).status == 200
    for status in (204, 304):
        assert of(statusCode=status, body="smuggled").body == b""
    shown = of(statusCode=200, headers={"content-TYPE": "a/b", "Content-Type": "c/d"}, body="")
    assert shown.headers == {"Content-Type": "c/d"}


def test_headers_that_are_not_a_functions_to_set() -> None:
    ours = {
        "Connection": "close",
        "CONTENT-LENGTH": "5",
        "Transfer-Encoding": "chunked",
        "Keep-Alive": "x",
        "Upgrade": "h2c",
        "Trailer": "x",
        "TE": "x",
        "Date": "yesterday",
        "Proxy-Authenticate": "x",
        "X-Amzn-RequestId": "forged",
    }
    found = answer(json.dumps({"statusCode": 200, "headers": ours, "body": "x"}).encode())
    assert found.headers == {"Content-Type": "application/json"}


HARMFUL: list[dict[str, Any]] = [
    {"statusCode": status}
    for status in (100, 101, 199, 600, 99999, -200, 200.5, True, None, "2٠٠", "20", "200\r\n", [])
] + [
    {"statusCode": 200, "headers": {"x": "a\r\nSet-Cookie: b=c"}},
    {"statusCode": 200, "headers": {"x": "a\nb"}},
    {"statusCode": 200, "headers": {"x": "a\0b"}},
    {"statusCode": 200, "headers": {"x": "\u0142"}},
    {"statusCode": 200, "headers": {"x\r\ny": "a"}},
    {"statusCode": 200, "headers": {"x:y": "a"}},
    {"statusCode": 200, "headers": {"x y": "a"}},
    {"statusCode": 200, "headers": {"": "a"}},
    {"statusCode": 200, "headers": {"x": ["a"]}},
    {"statusCode": 200, "headers": {"x": None}},
    {"statusCode": 200, "headers": ["a"]},
    {"statusCode": 200, "cookies": ["a=b\r\nx: y"]},
    {"statusCode": 200, "cookies": "a=b"},
    {"statusCode": 200, "cookies": [{}]},
    {"statusCode": 200, "headers": {"x": "a" * 16_385}},
    {"statusCode": 200, "headers": {f"x{n}": "a" * 100 for n in range(200)}},
    {"statusCode": 200, "cookies": ["a=b"] * 600},
    {"statusCode": 200, "body": {"a": 1}},
    {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
    {"statusCode": 200, "body": "\ud800"},
]


@pytest.mark.parametrize("document", HARMFUL, ids=lambda document: ascii(document)[:60])
def test_answers_that_are_none(document: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        answer(json.dumps(document).encode())
    if "body" not in document:
        with pytest.raises(Malformed):
            prelude(json.dumps(document).encode())


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"hello", b"[" * 100_000])
def test_payloads_that_are_no_json(payload: bytes) -> None:
    with pytest.raises(Malformed):
        answer(payload)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.dictionaries(
    st.sampled_from(["statusCode", "headers", "cookies", "body", "isBase64Encoded", "x"]) | st.text(), inner
) | st.lists(inner), max_leaves=8))  # fmt: skip
def test_whatever_a_function_answers_is_an_answer_or_malformed(document: Any) -> None:
    try:
        found = answer(json.dumps(document).encode())
    except Malformed:
        return
    assert 200 <= found.status < 600
    for text in (*found.headers, *found.headers.values(), *found.cookies):
        assert not set(text) & {"\r", "\n", "\0"}
        text.encode("latin-1")


def cross(method: str = "GET", origin: str = "https://a.com", **headers: str) -> Request:
    return Request(method, "/", {"origin": origin} | {name.replace("_", "-"): value for name, value in headers.items()})


def asked(method: str, headers: str = "", origin: str = "https://a.com") -> Request:
    more = {"access_control_request_headers": headers} if headers else {}
    return cross("OPTIONS", origin, access_control_request_method=method, **more)


CORS: dict[str, Any] = {
    "AllowOrigins": ["https://a.com", "https://b.com"],
    "AllowMethods": ["GET", "PUT"],
    "AllowHeaders": ["X-One"],
    "ExposeHeaders": ["x-two", "x-three"],
    "MaxAge": 10,
}


def test_preflights() -> None:
    assert url_cors.is_preflight(asked("PUT"))
    assert not url_cors.is_preflight(cross("OPTIONS")) and not url_cors.is_preflight(cross("GET"))
    allowed = url_cors.preflight(CORS, asked("PUT", "x-one, x-four"), "an-id")
    assert (allowed.status, allowed.body) == (200, b"")
    assert allowed.headers == {
        "x-amzn-RequestId": "an-id",
        "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        "Access-Control-Allow-Origin": "https://a.com",
        "Access-Control-Allow-Methods": "PUT",
        "Access-Control-Allow-Headers": "x-one",
        "Access-Control-Max-Age": "10",
    }
    for refused in (asked("DELETE"), asked("PUT", origin="https://c.com")):
        assert url_cors.preflight(CORS, refused, "an-id").headers.keys() == {"x-amzn-RequestId", "Vary"}
    everything = {"AllowOrigins": ["*"], "AllowMethods": ["*"], "AllowHeaders": ["*"]}
    found = url_cors.preflight(everything, asked("DELETE", "x-four"), "an-id").headers
    assert (found["Access-Control-Allow-Origin"], found["Access-Control-Allow-Methods"]) == ("*", "DELETE")
    assert found["Access-Control-Allow-Headers"] == "x-four"
    trusted = url_cors.preflight(everything | {"AllowCredentials": True}, asked("DELETE"), "an-id").headers
    assert trusted["Access-Control-Allow-Origin"] == "https://a.com"  # browsers refuse * with credentials
    assert trusted["Access-Control-Allow-Credentials"] == "true"


def test_answers_across_origins() -> None:
    def told(request: Request, **headers: str) -> dict[str, str]:
        response = Response(200, b"", {name.replace("_", "-"): value for name, value in headers.items()})
        url_cors.tell(CORS, request, response)
        return response.headers

    assert told(cross(), access_control_allow_origin="*", x="y", vary="Accept") == {
        "x": "y",
        "vary": "Accept, Origin",
        "Access-Control-Allow-Origin": "https://a.com",
        "Access-Control-Expose-Headers": "x-two,x-three",
    }
    assert told(cross(origin="https://c.com"), access_control_allow_origin="*") == {"Vary": "Origin"}
    assert told(Request("GET", "/", {})) == {"Vary": "Origin"}
