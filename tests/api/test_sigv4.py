"""Signatures: what botocore signs is taken, anything else refused in AWS's words."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import time
from collections.abc import Callable
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.api.sigv4 import Verifier
from sandboxd.errors import ApiError
from tests.api.conftest import Endpoint
from tests.api.test_lifecycle import error_of

KEY, SECRET = "AKIAAAAAAAAAAAAAAAAA", "secret"
EMPTY = hashlib.sha256(b"").hexdigest()


def signed(
    method: str = "GET",
    target: str = "/2015-03-31/functions",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    key: str = KEY,
    secret: str = SECRET,
    token: str | None = None,
    service: str = "lambda",
    region: str = "us-east-1",
) -> dict[str, str]:
    """The headers of a request as a server sees them after botocore signed it."""
    request = AWSRequest(
        method, "http://host:8470" + target, headers={"Host": "host:8470"} | (headers or {}), data=body
    )
    botocore.auth.SigV4Auth(Credentials(key, secret, token), service, region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def verify(
    headers: dict[str, str],
    method: str = "GET",
    target: str = "/2015-03-31/functions",
    body: bytes = b"",
    *,
    after: float = 0,
) -> str:
    verifier = Verifier(
        lambda key, token: {KEY: SECRET}.get(key) if token is None else None, "us-east-1", lambda: time.time() + after
    )
    return verifier.verify(method, target, headers, hashlib.sha256(body).hexdigest())


def refusal(*arguments: Any, **keywords: Any) -> tuple[str, int, str]:
    with pytest.raises(ApiError) as caught:
        verify(*arguments, **keywords)
    return caught.value.code, caught.value.status, caught.value.message


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/2015-03-31/functions/hello/invocations",
        "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello/invocations",
        "/2015-03-31/functions/hello:prod/invocations?Qualifier=%24LATEST",
        "/a//b/./c/../d/",
        "/list?b=2&a=1&a=0&empty=&bare&x=%20%2F%C3%BC~",
        "/grün",
    ],
)
def test_what_botocore_signs_is_taken(target: str) -> None:
    raw = target.encode().decode("latin-1")  # as the transport reads the bytes of the request line
    headers = signed("POST", target, b'{"a": 1}', {"X-Amz-Log-Type": "Tail", "X-Odd": "  two   spaces "})
    assert verify(headers, "POST", raw, b'{"a": 1}') == KEY


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#%"), min_size=1),
    st.dictionaries(
        st.text("abcXYZ019-_.~", min_size=1), st.text(st.characters(codec="utf-8"), max_size=8), max_size=4
    ),
)
def test_any_path_and_query_that_botocore_signs(path: str, query: dict[str, str]) -> None:
    from urllib.parse import quote

    target = "/" + path + ("?" + "&".join(f"{k}={quote(v, safe='-._~')}" for k, v in query.items()) if query else "")
    assert verify(signed("GET", target), "GET", target) == KEY


def test_altered_requests_are_refused() -> None:
    words = (
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details."
    )
    wrong = ("InvalidSignatureException", 403, words)
    headers = signed("POST", "/2015-03-31/functions/a/invocations", b"1", {"X-Amz-Log-Type": "None"})
    target = "/2015-03-31/functions/a/invocations"
    assert verify(headers, "POST", target, b"1") == KEY
    assert refusal(headers, "PUT", target, b"1") == wrong
    assert refusal(headers, "POST", target.replace("/a/", "/b/"), b"1") == wrong
    assert refusal(headers, "POST", target + "?Qualifier=1", b"1") == wrong
    assert refusal(headers, "POST", target, b"2") == wrong
    assert refusal(headers | {"x-amz-log-type": "Tail"}, "POST", target, b"1") == wrong
    assert refusal(headers | {"host": "other"}, "POST", target, b"1") == wrong
    assert refusal(signed(secret="other")) == wrong
    broken = headers["authorization"][:-1] + ("0" if headers["authorization"][-1] != "0" else "1")
    assert refusal(headers | {"authorization": broken}, "POST", target, b"1") == wrong


def test_headers_that_are_not_signed_do_not_count() -> None:
    code, status, message = refusal(signed() | {"x-amz-invocation-type": "DryRun"})
    assert (code, status) == ("InvalidSignatureException", 403)
    assert message.endswith("x-amz-invocation-type")
    assert verify(signed() | {"user-agent": "anything"}) == KEY


def test_body_hash_header() -> None:
    headers = signed("GET", "/", b"", {"X-Amz-Content-SHA256": EMPTY})
    assert verify(headers, "GET", "/") == KEY
    for claimed in ("UNSIGNED-PAYLOAD", "0" * 64):
        headers = signed("GET", "/", b"", {"X-Amz-Content-SHA256": claimed})
        assert refusal(headers, "GET", "/")[0] == "InvalidSignatureException"


def test_scope() -> None:
    wrong = "InvalidSignatureException"
    assert refusal(signed(service="s3")) == (wrong, 403, "Credential should be scoped to correct service: 'lambda'.")
    code, status, message = refusal(signed(region="eu-west-1"))
    assert (code, status) == (wrong, 403) and message.startswith("Credential should be scoped to a valid region")
    headers = signed()
    other = headers["authorization"].replace("aws4_request", "aws5_request")
    assert "terminator" in refusal(headers | {"authorization": other})[2]
    today = headers["x-amz-date"][:8]
    other = headers["authorization"].replace(today, "20200101")
    assert refusal(headers | {"authorization": other})[2].startswith("Date in Credential scope does not match")


def test_clock_skew() -> None:
    headers = signed()
    for after in (-290, 290):
        assert verify(headers, after=after) == KEY
    expired = refusal(headers, after=310)
    assert expired[:2] == ("InvalidSignatureException", 403)
    assert expired[2].startswith(f"Signature expired: {headers['x-amz-date']} is now earlier than ")
    assert expired[2].endswith(" - 5 min.)")
    early = refusal(headers, after=-310)
    assert early[2].startswith(f"Signature not yet current: {headers['x-amz-date']} is still later than ")
    assert early[2].endswith(" + 5 min.)")


def test_who_signs() -> None:
    assert refusal({"host": "host"}) == ("MissingAuthenticationTokenException", 403, "Missing Authentication Token")
    unknown = ("UnrecognizedClientException", 403, "The security token included in the request is invalid.")
    assert refusal(signed(key="AKIAOTHER")) == unknown
    assert refusal(signed(token="a session's token")) == unknown


@pytest.mark.parametrize(
    ("authorization", "words"),
    [
        ("", "Unsupported AWS 'algorithm': ''."),
        ("Basic abc", "Unsupported AWS 'algorithm': 'Basic'."),
        ("AWS4-HMAC-SHA256 x", "Authorization header requires 'Credential' parameter."),
        ("AWS4-HMAC-SHA256 Credential=a/b, Signature=c, SignedHeaders=host", "Credential must have exactly 5"),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, Signature=c",
            "Authorization header requires 'SignedHeaders' parameter.",
        ),
    ],
)
def test_incomplete(authorization: str, words: str) -> None:
    code, status, message = refusal(signed() | {"authorization": authorization})
    assert (code, status) == ("IncompleteSignatureException", 403)
    assert message.startswith(words)


@pytest.mark.parametrize("date", ["", "yesterday", "20260230T000000", "20261399T999999Z"])
def test_dates_that_are_none(date: str) -> None:
    headers = signed()
    scope = headers["authorization"].replace(headers["x-amz-date"][:8], date[:8])
    headers |= {"x-amz-date": date, "authorization": scope}
    if not date:
        del headers["x-amz-date"]
    assert refusal(headers)[0] in ("IncompleteSignatureException", "InvalidSignatureException")


def test_a_date_that_is_empty() -> None:
    code, status, message = refusal(signed() | {"x-amz-date": ""})
    assert (code, status, message) == (
        "IncompleteSignatureException",
        403,
        "Date must be in ISO-8601 'basic format'. Got ''.",
    )


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_no_header_breaks_the_verifier(authorization: str, date: str) -> None:
    for value in (authorization, f"AWS4-HMAC-SHA256 {authorization}", f"AWS4-HMAC-SHA256 Credential={authorization}"):
        with pytest.raises(ApiError):
            verify({"authorization": value, "date": date, "host": "host"})


# at the door


def test_at_the_door(endpoint: Endpoint) -> None:
    for wrong, code in (
        ({"secret": "wrong"}, "InvalidSignatureException"),
        ({"key": "AKIAXXXXXXXXXXXXXXXX"}, "UnrecognizedClientException"),
        ({"region": "eu-west-1"}, "InvalidSignatureException"),
    ):
        client = endpoint.boto3(**wrong)
        assert error_of(client.list_functions)[:2] == (code, 403)
        client.close()


def test_skew_at_the_door(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    skewed = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=10)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: skewed.replace(tzinfo=None))
    assert error_of(client.list_functions)[2].startswith("Signature expired: ")


def test_a_deleted_key_stops_working_at_once(endpoint: Endpoint) -> None:
    key = endpoint.run(endpoint.store.keys.create("short"))
    client = endpoint.boto3(key.id, key.secret)
    client.list_functions()
    assert endpoint.unix("DELETE", f"/sandboxd/v1/keys/{key.id}")[0] == 204
    assert error_of(client.list_functions)[0] == "UnrecognizedClientException"
    client.close()


def test_without_signatures_where_configured(make_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = make_endpoint(api_auth="none")
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.config.api_listen[1])
    connection.request("GET", "/2015-03-31/functions")
    assert connection.getresponse().read() == b'{"Functions": []}'
    connection.request("POST", "/sandboxd/v1/keys", b"{}")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("x-amzn-ErrorType")) == (403, "AccessDeniedException")
    answer.read()
    connection.close()


def test_large_bodies_are_checked_too(endpoint: Endpoint, client: Any) -> None:
    endpoint.create()
    payload = b'"' + b"x" * 3_000_000 + b'"'
    assert client.invoke(FunctionName="hello", Payload=payload)["Payload"].read() == payload
    wrong = endpoint.boto3(secret="wrong")
    assert error_of(wrong.invoke, FunctionName="hello", Payload=payload)[0] == "InvalidSignatureException"
    wrong.close()
