"""Functions' URLs with curl: the address as it is told, sites, streams, signatures, and those who mean harm."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Deployed
from tests.support import packages
from tests.support.daemon import Daemon

SITE = "website"


@pytest.fixture(scope="module")
def site(_daemon: Daemon) -> Iterator[str]:
    """A function's public URL, as CreateFunctionUrlConfig says it."""
    name = _daemon.deploy(packages.load("website"), SITE, Timeout=3)
    made = _daemon.cli("url", "create", name, "--public", "--cors-origin", "https://a.com", "-o", "json")
    assert made.returncode == 0, made.stderr
    yield str(json.loads(made.stdout)["FunctionUrl"])
    _daemon.delete(name)


def curl(*arguments: str | Path) -> tuple[str, bytes]:
    """Head (of the last answer, as text) and body, without proxies or redirects of the environment's."""
    run = subprocess.run(
        [
            "curl",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "60",
            "--dump-header",
            "/dev/stderr",
            *arguments,
        ],
        capture_output=True,
        check=False,
    )
    return run.stderr.decode("latin-1").lower(), run.stdout


def test_a_site(daemon: Daemon, site: str) -> None:
    head, body = curl(f"{site}page")
    assert head.startswith("http/1.1 200 ok") and body.decode() == "<!doctype html><title>ünïcode ✓</title>"
    assert "content-type: text/html; charset=utf-8" in head and "connection: close" not in head
    assert head.count("set-cookie: ") == 2 and f"content-length: {len(body)}" in head
    assert curl(f"{site}image")[1] == bytes(range(256))
    redirected, body = curl("--location", f"{site}elsewhere")
    assert "http/1.1 302" in redirected and body.startswith(b"<!doctype")
    event = json.loads(curl(f"{site}a%20b?x=1&x=2", "--data", "{}", "--header", "Content-Type: application/json")[1])
    assert (event["rawPath"], event["queryStringParameters"], event["body"]) == ("/a%20b", {"x": "1,2"}, "{}")
    assert event["requestContext"]["http"]["method"] == "POST"
    heads = curl("--head", f"{site}page", f"{site}page")[0]  # a body of the first would be taken for the second's head
    assert heads.count("http/1.1 200 ok") == 2 and "<!doctype" not in heads


def test_a_function_that_fails_says_nothing(daemon: Daemon, site: str) -> None:
    for path in ("raise", "slow", "split"):
        head, body = curl(site + path)
        assert head.startswith("http/1.1 502") and body == b"Internal Server Error", path
        assert "set-cookie" not in head
    assert "a secret" in daemon.cli("logs", SITE).stdout


def test_bodies_as_large_as_they_may_be(daemon: Daemon, site: str, tmp_path: Path) -> None:
    file = tmp_path / "body"
    limits = {4_000_000: b"4000000", 7_000_000: b""}
    for size, told in limits.items():
        file.write_bytes(b"\0" * size)
        for how in ((), ("--header", "Transfer-Encoding: chunked")):
            head, body = curl(f"{site}size", "--data-binary", f"@{file}", *how)
            if told:
                assert body == told
            else:
                assert "http/1.1 413" in head and b"Request must be smaller than" in body


def test_a_stranger_cannot_fill_memory(daemon: Daemon, site: str) -> None:
    """A body without a length is cut off at the URL's limit, not at that of CreateFunction."""
    host = site.removeprefix("http://").rstrip("/")
    before = daemon.room("service").memory_info().rss
    sent = 0
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as door:
        door.sendall(f"POST /size HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        try:
            while sent < 64 << 20:
                door.sendall(piece)
                sent += 65_536
        except ConnectionError:
            pass
        answer = b""
        try:
            while more := door.recv(65_536):
                answer += more
        except ConnectionError:
            pass
    assert answer.startswith(b"HTTP/1.1 413")
    assert daemon.room("service").memory_info().rss - before < 40 << 20


def test_preflights_reach_no_function(daemon: Daemon, site: str) -> None:
    asked = ("--request", "OPTIONS", "--header", "Access-Control-Request-Method: GET", "--header")
    before = sum(row["Invocations"] for row in daemon.environments(SITE))
    head, body = curl(site, *asked, "Origin: https://a.com")
    assert head.startswith("http/1.1 200") and body == b""
    assert sum(row["Invocations"] for row in daemon.environments(SITE)) == before
    assert "access-control-allow-origin: https://a.com" in curl(f"{site}page", "--header", "Origin: https://a.com")[0]


def test_who_signs(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("website", "signed")
    made = daemon.lambda_client.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    url, key = made["FunctionUrl"], daemon.key
    assert curl(url)[0].startswith("http/1.1 403")
    signed = ("--aws-sigv4", "aws:amz:us-east-1:lambda", "--user")
    pair = f"{key['AccessKeyId']}:{key['SecretAccessKey']}"
    event = json.loads(curl(*signed, pair, f"{url}who")[1])
    assert event["requestContext"]["authorizer"]["iam"]["userArn"].endswith(":user/admin")
    assert curl(*signed, f"{key['AccessKeyId']}:wrong", f"{url}who")[0].startswith("http/1.1 403")


def test_a_stream_is_a_page_while_it_is_made(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("streaming")
    shown = daemon.cli("url", "create", name, "--public", "--stream", "-o", "json")
    url = json.loads(shown.stdout)["FunctionUrl"]
    head, body = curl("--no-buffer", f"{url}page")
    assert (head.split("\r\n")[0], body) == ("http/1.1 202 accepted", b"one two three ")
    assert "content-type: text/html" in head and head.count("set-cookie") == 2
    timed = subprocess.run(
        [
            "curl",
            "--silent",
            "--noproxy",
            "*",
            "--write-out",
            "%{time_starttransfer} %{time_total}",
            "-o",
            "/dev/null",
            f"{url}slowly",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    first, last = map(float, timed.stdout.split())
    assert last - first > 0.4
    cut = subprocess.run(["curl", "--silent", "--noproxy", "*", f"{url}failing"], capture_output=True, check=False)
    assert (cut.returncode, cut.stdout) == (18, b"begun")  # CURLE_PARTIAL_FILE
    assert curl(f"{url}other")[1] == b'"whole"'


def test_a_url_lives_as_long_as_its_function(fresh_daemon: Callable[..., Daemon]) -> None:
    daemon = fresh_daemon()
    daemon.start()
    name = daemon.deploy(packages.load("website"))
    url = json.loads(daemon.cli("url", "create", name, "--public", "-o", "json").stdout)["FunctionUrl"]
    daemon.restart()
    assert curl(f"{url}page")[0].startswith("http/1.1 200")
    daemon.delete(name)
    head, body = curl(f"{url}page")
    assert head.startswith("http/1.1 403") and body == b'{"Message":null}'
