"""Requests to functions' URLs over the TCP door: who may, what the function gets, what the caller gets."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxd.api.url_payload import PRELUDE_TYPE
from sandboxd.errors import ApiError
from sandboxd.http import Request, Response
from sandboxd.model.invocation import Invocation, InvocationResult, Outcome
from tests.api.conftest import Endpoint
from tests.api.test_authorization import Users, allow

ARN = "arn:aws:lambda:us-east-1:111111111111:function:hello"
FORBIDDEN = {
    "Message": "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
}
PUBLIC = (
    {"StatementId": "url", "Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
    {"StatementId": "invoke", "Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True},
)


class Answer:
    """What came back; header names in lower case."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.body = response.status, response.read()
        self.pairs = [(name.lower(), value) for name, value in response.getheaders()]
        self.headers = dict(self.pairs)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """An endpoint with the function hello, whose URLs are asked as any HTTP client asks."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.client = endpoint, endpoint.boto3()
        endpoint.create()

    def url(self, auth: str = "NONE", public: bool = True, **members: Any) -> str:
        """A URL's host."""
        qualifier = {"Qualifier": members["Qualifier"]} if "Qualifier" in members else {}
        made = self.client.create_function_url_config(FunctionName="hello", AuthType=auth, **members)
        if public:
            for statement in PUBLIC:
                self.client.add_permission(FunctionName="hello", Principal="*", **statement, **qualifier)
        return str(urlsplit(made["FunctionUrl"]).netloc)

    def ask(
        self, host: str, method: str = "GET", target: str = "/", body: bytes | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection(*self.endpoint.config.api_listen, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, {"Host": host} | named)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def signed(
        self, host: str, credentials: Credentials, method: str = "GET", target: str = "/", body: bytes = b""
    ) -> Answer:
        request = AWSRequest(method, f"http://{host}{target}", data=body)
        SigV4Auth(credentials, "lambda", "us-east-1").add_auth(request)
        return self.ask(host, method, target, body, **dict(request.headers.items()))

    def answers(self, answer: Callable[[Invocation], Any]) -> None:
        """The function answers with what a callable gives, or with the bytes that it gives."""

        async def invoke(invocation: Invocation) -> InvocationResult:
            self.endpoint.scheduler.invocations.append(invocation)
            made = answer(invocation)
            if asyncio.iscoroutine(made):
                made = await made
            if isinstance(made, InvocationResult):
                return made
            return InvocationResult(Outcome.OK, made if isinstance(made, bytes) else json.dumps(made).encode())

        self.endpoint.scheduler.invoke = invoke  # type: ignore[method-assign]


@pytest.fixture
def site(endpoint: Endpoint) -> Iterator[Site]:
    made = Site(endpoint)
    yield made
    made.client.close()


def test_anybody_asks_a_public_url(site: Site) -> None:
    host = site.url()
    answer = site.ask(host, "POST", "/a/b?x=1&x=2", b"text", Content_Type="text/plain", Cookie="a=1; b=2", X_One="1")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    event = answer.json  # the endpoint's function gives back what it gets
    url_id = host.partition(".")[0]
    assert (event["body"], event["cookies"], event["headers"]["x-one"]) == ("text", ["a=1", "b=2"], "1")
    assert (event["rawPath"], event["queryStringParameters"]) == ("/a/b", {"x": "1,2"})
    context = event["requestContext"]
    assert (context["apiId"], context["accountId"]) == (url_id, "anonymous")
    assert context["domainName"] == host.partition(":")[0]
    assert context["http"]["sourceIp"] == "127.0.0.1"
    assert event["headers"]["x-forwarded-port"] == str(site.endpoint.config.api_listen[1])
    invocation = site.endpoint.scheduler.invocations[0]
    assert (invocation.invoked_arn, invocation.function.version) == (ARN, "$LATEST")
    assert context["requestId"] == answer.headers["x-amzn-requestid"] == invocation.request_id
    assert event["headers"]["x-amzn-trace-id"] == answer.headers["x-amzn-trace-id"] == invocation.trace_id


def test_paths_of_the_api_are_paths_like_others_there(site: Site) -> None:
    host = site.url()
    for method, target in (("POST", "/2015-03-31/functions/hello/invocations"), ("GET", "/2015-03-31/functions/")):
        assert site.ask(host, method, target).json["rawPath"] == target
    assert site.ask("127.0.0.1", "GET", "/2015-03-31/functions/").status == 403


def test_both_permissions_are_needed(site: Site) -> None:
    host = site.url(public=False)
    for statement in PUBLIC:
        refused = site.ask(host)
        assert (refused.status, refused.json) == (403, FORBIDDEN)
        assert refused.headers["x-amzn-errortype"] == "AccessDeniedException"
        site.client.add_permission(FunctionName="hello", Principal="*", **statement)
    assert site.ask(host).status == 200
    site.client.update_function_url_config(FunctionName="hello", AuthType="AWS_IAM")
    assert site.ask(host).status == 403
    site.client.update_function_url_config(FunctionName="hello", AuthType="NONE")
    assert site.ask(host).status == 200
    site.client.remove_permission(FunctionName="hello", StatementId="invoke")
    assert site.ask(host).status == 403
    assert len(site.endpoint.scheduler.invocations) == 2


def test_what_is_public_by_url_is_not_by_invoke(site: Site) -> None:
    site.url()
    users = Users(site.endpoint)
    stranger = users.add("stranger")
    with pytest.raises(stranger.exceptions.ClientError, match="not authorized to perform: lambda:InvokeFunction"):
        stranger.invoke(FunctionName="hello")
    users.close()


def test_a_statement_of_another_auth_type_opens_nothing(site: Site) -> None:
    host = site.url(public=False)
    other = PUBLIC[0] | {"FunctionUrlAuthType": "AWS_IAM"}
    for statement in (other, PUBLIC[1]):
        site.client.add_permission(FunctionName="hello", Principal="*", **statement)
    assert site.ask(host).status == 403


def test_an_alias_has_a_policy_of_its_own(site: Site) -> None:
    site.client.publish_version(FunctionName="hello")
    site.client.create_alias(FunctionName="hello", Name="live", FunctionVersion="1")
    site.url()
    host = site.url(Qualifier="live", public=False)
    assert site.ask(host).status == 403
    for statement in PUBLIC:
        site.client.add_permission(FunctionName="hello", Principal="*", Qualifier="live", **statement)
    assert site.ask(host).status == 200
    invocation = site.endpoint.scheduler.invocations[-1]
    assert (invocation.invoked_arn, invocation.function.version) == (f"{ARN}:live", "1")
    site.client.delete_alias(FunctionName="hello", Name="live")
    assert (site.ask(host).status, site.ask(host).json) == (403, {"Message": None})


def test_addresses_that_are_none(site: Site) -> None:
    host = site.url()
    url_id = host.partition(".")[0]
    tail = host.partition(".")[2]
    for other in (f"{'0' * 32}.{tail}", f".{tail}", f"x.{host}", f"{url_id}.lambda-url.us-east-1.example.com"):
        refused = site.ask(other)
        assert (refused.status, refused.body) == (403, b'{"Message":null}'), other
        assert refused.headers["x-amzn-errortype"] == "AccessDeniedException"
    site.client.delete_function_url_config(FunctionName="hello")
    assert site.ask(host).json == {"Message": None}
    assert not site.endpoint.scheduler.invocations


def test_signed_requests(site: Site) -> None:
    host = site.url("AWS_IAM", public=False)
    admin = Credentials(site.endpoint.key.id, site.endpoint.key.secret)
    unsigned = site.ask(host)
    assert (unsigned.status, unsigned.json) == (403, FORBIDDEN)
    event = site.signed(host, admin, "POST", "/a%20b?y=1&x=%2F", b"x" * 2_000_000).json
    assert event["requestContext"]["authorizer"]["iam"] == {
        "accessKey": site.endpoint.key.id,
        "accountId": "111111111111",
        "callerId": "admin",
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": "arn:aws:iam::111111111111:user/admin",
        "userId": "admin",
    }
    assert event["requestContext"]["accountId"] == "111111111111"
    assert event["rawPath"] == "/a%20b" and "authorization" not in event["headers"]
    wrong = site.signed(host, Credentials(site.endpoint.key.id, "x" * 40))
    assert (wrong.status, wrong.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    unknown = site.signed(host, Credentials("AKIAIOSFODNN7EXAMPLE", "x" * 40))
    assert (unknown.status, unknown.headers["x-amzn-errortype"]) == (403, "UnrecognizedClientException")
    assert len(site.endpoint.scheduler.invocations) == 1


def test_a_user_needs_both_actions(site: Site) -> None:
    host = site.url("AWS_IAM", public=False)
    users = Users(site.endpoint)

    def ask(name: str, account: str = "111111111111") -> int:
        credentials = users.client(name, account)._request_signer._credentials
        return site.signed(host, credentials).status

    users.add("one", allow("lambda:InvokeFunctionUrl"))
    users.add("other", allow("lambda:InvokeFunction"))
    users.add("both", allow(["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"], ARN))
    condition = {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}
    users.add("elsewhere", allow("lambda:InvokeFunctionUrl", Condition=condition), allow("lambda:InvokeFunction"))
    by_url = {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
    users.add("only", allow("lambda:InvokeFunctionUrl"), allow("lambda:InvokeFunction", Condition=by_url))
    assert [ask(name) for name in ("one", "other", "both", "elsewhere", "only")] == [403, 403, 200, 403, 200]
    only = users.client("only")
    with pytest.raises(only.exceptions.ClientError, match="not authorized"):
        only.invoke(FunctionName="hello")
    other = "222222222222"
    assert site.endpoint.unix("POST", "/sandboxd/v1/accounts", {"AccountId": other})[0] == 201
    users.add("friend", account=other)
    assert ask("friend", other) == 403
    users.permit("friend", allow("lambda:*"), account=other)
    assert ask("friend", other) == 403
    friend = "arn:aws:iam::222222222222:user/friend"
    for statement in (PUBLIC[0] | {"FunctionUrlAuthType": "AWS_IAM"}, PUBLIC[1]):
        site.client.add_permission(FunctionName="hello", Principal=friend, **statement)
    assert ask("friend", other) == 200
    users.close()


def test_without_authentication_nothing_is_asked_for(make_endpoint: Callable[..., Endpoint]) -> None:
    made = Site(make_endpoint(api_auth="none"))
    assert made.ask(made.url("AWS_IAM", public=False)).json["requestContext"]["accountId"] == "anonymous"
    made.client.close()


def test_answers(site: Site) -> None:
    host = site.url()
    site.answers(
        lambda invocation: {
            "statusCode": 201,
            "headers": {"Content-Type": "text/plain", "Connection": "close", "Content-Length": "1", "X-A": "b"},
            "cookies": ["a=1", "b=2; Secure"],
            "body": "body",
        }
    )
    answer = site.ask(host)
    assert (answer.status, answer.body, answer.headers["x-a"]) == (201, b"body", "b")
    assert [value for name, value in answer.pairs if name == "set-cookie"] == ["a=1", "b=2; Secure"]
    assert answer.headers["content-length"] == "4" and "connection" not in answer.headers
    head = site.ask(host, "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (201, b"", "4")


def test_what_comes_behind_an_answer_is_the_next_one(site: Site) -> None:
    host = site.url()
    statuses = iter((204, 304, 200))
    site.answers(lambda invocation: {"statusCode": next(statuses), "body": "HTTP/1.1 200 OK\r\n\r\n"})
    connection = http.client.HTTPConnection(*site.endpoint.config.api_listen, timeout=60)
    found = []
    for _ in range(3):
        connection.request("GET", "/", headers={"Host": host})
        response = connection.getresponse()
        found.append((response.status, response.read()))
    connection.close()
    assert found == [(204, b""), (304, b""), (200, b"HTTP/1.1 200 OK\r\n\r\n")]


def test_functions_that_fail(site: Site) -> None:
    host = site.url()

    def raising(error: ApiError) -> Callable[[Invocation], Any]:
        def answer(invocation: Invocation) -> Any:
            raise error

        return answer

    failed = InvocationResult(Outcome.HANDLED, b'{"errorMessage": "secret"}', function_error="Unhandled")
    harmful = {"statusCode": 200, "headers": {"x": "a\r\nSet-Cookie: b=c"}}
    for made in (
        lambda _: failed,
        lambda _: b"no json",
        lambda _: harmful,
        raising(ApiError("ServiceException", "x", 500)),
    ):
        site.answers(made)
        answer = site.ask(host)
        assert (answer.status, answer.body) == (502, b"Internal Server Error")
        assert not answer.headers.keys() & {"set-cookie", "x"}
    site.answers(raising(ApiError("TooManyRequestsException", "Rate Exceeded.", 429)))
    answer = site.ask(host)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (429, "TooManyRequestsException")


def test_what_is_too_large(site: Site) -> None:
    host = site.url()
    limit = site.endpoint.config.limits.sync_payload_bytes
    words = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    for size in (limit + 1, limit):  # the event is larger than the body in it
        answer = site.ask(host, "POST", "/", b"x" * size, Content_Type="text/plain")
        assert (answer.status, words in answer.body.decode()) == (413, True)
    assert not site.endpoint.scheduler.invocations


def test_what_a_head_says_already(site: Site) -> None:
    host, limit = site.url(), site.endpoint.config.limits.sync_payload_bytes

    def admitted(host: str, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return site.endpoint.run(
            _call(lambda: site.endpoint.api.admit_tcp(Request("POST", "/", {"host": host} | named)))
        )

    def status(verdict: Any) -> int:
        assert isinstance(verdict, Response)
        return verdict.status

    assert admitted(host, transfer_encoding="chunked") == limit
    assert admitted(host, content_length=str(limit)) == limit
    assert status(admitted(host, content_length=str(limit + 1))) == 413
    assert status(admitted(f"x{host}", content_length="100000")) == 403
    site.client.remove_permission(FunctionName="hello", StatementId="invoke")
    assert status(admitted(host, content_length="100000")) == 403
    site.client.update_function_url_config(FunctionName="hello", AuthType="AWS_IAM")
    assert status(admitted(host, content_length="100000")) == 403
    assert status(site.endpoint.api.oversized(Request("POST", "/", {"host": host}))) == 413


def test_cors(site: Site) -> None:
    cors = {"AllowOrigins": ["https://a.com"], "AllowMethods": ["PUT"], "AllowHeaders": ["x-one"], "MaxAge": 5}
    host = site.url(public=False, Cors=cors)
    asked = {"Access_Control_Request_Method": "PUT", "Access_Control_Request_Headers": "x-one"}
    preflight = site.ask(host, "OPTIONS", Origin="https://a.com", **asked)
    assert (preflight.status, preflight.headers["access-control-allow-methods"]) == (200, "PUT")
    other = site.ask(host, "OPTIONS", Origin="https://b.com", **asked)
    assert (other.status, "access-control-allow-origin" in other.headers) == (200, False)
    assert not site.endpoint.scheduler.invocations
    refused = site.ask(host, Origin="https://a.com")
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (403, "https://a.com")
    for statement in PUBLIC:
        site.client.add_permission(FunctionName="hello", Principal="*", **statement)
    answer = site.ask(host, Origin="https://a.com")
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://a.com")
    site.client.update_function_url_config(FunctionName="hello", Cors={})
    event = site.ask(host, "OPTIONS", Origin="https://a.com", **asked).json
    assert event["requestContext"]["http"]["method"] == "OPTIONS"


def streaming(content_type: str, *pieces: bytes, error: str | None = None) -> Callable[[Invocation], Any]:
    async def answer(invocation: Invocation) -> InvocationResult:
        stream = invocation.stream
        assert stream is not None
        stream.content_type = content_type
        for number, piece in enumerate(pieces):
            await asyncio.sleep(0.01 if number else 0)
            room = asyncio.Event()
            if not stream.write(piece, room.set):
                await room.wait()
        return InvocationResult(Outcome.OK, b"", function_error=error)

    return answer


def test_streamed_answers(site: Site) -> None:
    host = site.url(InvokeMode="RESPONSE_STREAM")
    site.answers(streaming("text/event-stream", b"one ", b"two ", b"x" * 200_000))
    answer = site.ask(host)
    assert (answer.status, answer.body) == (200, b"one two " + b"x" * 200_000)
    assert (answer.headers["content-type"], answer.headers["transfer-encoding"]) == ("text/event-stream", "chunked")
    head = json.dumps({"statusCode": 201, "headers": {"X-A": "b", "Content-Length": "1"}, "cookies": ["a=1"]}).encode()
    for pieces in ((head[:5], head[5:] + b"\0" * 3, b"\0" * 5, b"body"), (head + b"\0" * 8 + b"body",)):
        site.answers(streaming(PRELUDE_TYPE, *pieces))
        answer = site.ask(host)
        assert (answer.status, answer.body) == (201, b"body")
        assert (answer.headers["x-a"], answer.headers["set-cookie"]) == ("b", "a=1")
        assert answer.headers["content-type"] == "application/json" and "content-length" not in answer.headers
    site.answers(streaming(PRELUDE_TYPE, head + b"\0" * 8))
    assert (site.ask(host).status, site.ask(host).body) == (201, b"")
    assert (site.ask(host, "HEAD").status, site.ask(host, "HEAD").body) == (201, b"")
    site.answers(streaming(PRELUDE_TYPE, b'{"statusCode": 204}' + b"\0" * 8 + b"smuggled"))
    assert (site.ask(host).status, site.ask(host).body) == (204, b"")


def test_a_whole_answer_is_passed_on_as_it_is_where_streams_are_wanted(site: Site) -> None:
    host = site.url(InvokeMode="RESPONSE_STREAM")
    whole = {"statusCode": 418, "body": "x"}
    site.answers(lambda invocation: whole)
    answer = site.ask(host)
    assert (answer.status, answer.json) == (200, whole)


def test_streams_that_fail(site: Site) -> None:
    host = site.url(InvokeMode="RESPONSE_STREAM")
    before: list[Callable[[Invocation], Any]] = [
        streaming(PRELUDE_TYPE, b"x" * 30_000, b"x" * 30_000),
        streaming("text/plain", error="Unhandled"),
        streaming(PRELUDE_TYPE),
        streaming(PRELUDE_TYPE, b'{"statusCode": 200}'),
        streaming(PRELUDE_TYPE, b'{"statusCode": 99}' + b"\0" * 8),
        streaming(PRELUDE_TYPE, b"[]" + b"\0" * 8),
    ]
    for made in before:
        site.answers(made)
        answer = site.ask(host)
        assert (answer.status, answer.body) == (502, b"Internal Server Error")
    site.answers(streaming("text/plain", b"begun", error="Unhandled"))
    with pytest.raises(http.client.IncompleteRead):
        site.ask(host)


_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)
_NAMES = st.sampled_from(
    (
        "access-control-request-headers",
        "access-control-request-method",
        "authorization",
        "content-encoding",
        "content-type",
        "cookie",
        "origin",
        "transfer-encoding",
        "x-amz-security-token",
        "x-amzn-trace-id",
        "x-forwarded-for",
    )
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PROPFIND"]),
    _TEXT | _TEXT.map("/".__add__),
    st.dictionaries(_NAMES | _TEXT.map(str.lower), _TEXT, max_size=6),
    st.binary(max_size=60),
    st.sampled_from(["NONE", "AWS_IAM", "cors", "nowhere"]),
)
def test_no_request_breaks_it(
    every_kind: tuple[Site, dict[str, str]], method: str, target: str, headers: dict[str, str], body: bytes, kind: str
) -> None:
    site, hosts = every_kind
    request = Request(method, target, headers | {"host": hosts[kind]}, body)
    response = site.endpoint.run(_call(lambda: site.endpoint.api.handle_tcp(request)))
    assert response.status in ((200, 400) if kind in ("NONE", "cors") else (400, 403)), response
    for name, value in response.headers.items():
        assert not set(name + value) & {"\r", "\n"}
    site.endpoint.run(_call(lambda: site.endpoint.api.admit_tcp(request)))


@pytest.fixture
def every_kind(site: Site) -> tuple[Site, dict[str, str]]:
    """Hosts of a public URL, of one that wants signatures, of one with Cors, and of none."""
    hosts = {"NONE": site.url()}
    site.client.publish_version(FunctionName="hello")
    for name in ("cors", "AWS_IAM"):
        site.client.create_alias(FunctionName="hello", Name=name, FunctionVersion="1")
    everything = {"AllowOrigins": ["*"], "AllowMethods": ["*"], "AllowHeaders": ["*"], "AllowCredentials": True}
    hosts["cors"] = site.url(Qualifier="cors", Cors=everything)
    hosts["AWS_IAM"] = site.url("AWS_IAM", Qualifier="AWS_IAM")
    return site, hosts | {"nowhere": f"x{hosts['NONE']}"}


async def _call(work: Callable[[], Any]) -> Any:
    made = work()
    return await made if asyncio.iscoroutine(made) else made
