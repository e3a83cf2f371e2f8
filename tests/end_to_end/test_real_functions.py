"""Real functions, packed from real packages: cold and warm, by the command line, boto3 and the aws CLI."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.support.daemon import Daemon
from tests.support.places import TIME_FACTOR

PHOTO = (Path(__file__).parent / "data" / "photo.jpg").read_bytes()
Way = Callable[[Daemon, str, Any, Path], tuple[Any, str]]


def by_command_line(daemon: Daemon, name: str, event: Any, scratch: Path) -> tuple[Any, str]:
    done = daemon.cli("invoke", name, "--payload", "-", "--log", payload=json.dumps(event).encode())
    assert done.returncode == 0, done
    return json.loads(done.stdout), done.stderr


def by_boto3(daemon: Daemon, name: str, event: Any, scratch: Path) -> tuple[Any, str]:
    answer = daemon.lambda_client.invoke(FunctionName=name, Payload=json.dumps(event), LogType="Tail")
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer, answer["Payload"].read()
    return json.load(answer["Payload"]), base64.b64decode(answer["LogResult"]).decode()


def by_aws(daemon: Daemon, name: str, event: Any, scratch: Path) -> tuple[Any, str]:
    payload, out = scratch / "payload.json", scratch / "out.json"
    payload.write_text(json.dumps(event))
    done = daemon.aws(
        "invoke", "--function-name", name, "--payload", f"file://{payload}", "--log-type", "Tail", str(out)
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["StatusCode"] == 200
    return json.loads(out.read_text()), base64.b64decode(answer["LogResult"]).decode()


WAYS = [by_command_line, by_boto3, by_aws]


def thumbnail(result: Any) -> None:
    image = base64.b64decode(result["image"])
    assert image[:3] == b"\xff\xd8\xff" and image[-2:] == b"\xff\xd9"
    assert (result["width"], result["height"], result["original"]) == (128, 96, [640, 480])
    frame = image.index(b"\xff\xc0")
    assert int.from_bytes(image[frame + 5 : frame + 7]) == 96 and int.from_bytes(image[frame + 7 : frame + 9]) == 128


def markdown(result: Any) -> None:
    assert result["html"] == (
        "<h1>Größe</h1>\n<ul>\n<li><strong>a</strong></li>\n<li><code>b &lt; c</code></li>\n</ul>\n"
    )


def csv_report(result: Any) -> None:
    assert result["report"] == "region,count,total\nnorth,2,13.5\nsüd,1,2.0\n"
    assert result["bytes"] > 0


def spawner(result: Any) -> None:
    assert result["shell"] == [3, "shell says hällo\n"]
    assert result["parent_is_me"] is True
    assert len(result["processes"]) == 2 and result["processes"][0] == 1, "only pid 1 and the runtime are left"
    assert result["zombies"] == 0


def heavy(result: Any) -> None:
    assert result == {"trace": sum(i * 100 + i + 1 for i in range(100)), "finite": True}


CASES: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "thumbnail": ({"image": base64.b64encode(PHOTO).decode(), "size": 128}, thumbnail),
    "markdown": ({"text": "# Größe\n\n- **a**\n- `b < c`\n"}, markdown),
    "csv_report": ({"csv": "region,amount\nnorth,10.5\nsüd,2\nnorth,3\n"}, csv_report),
    "spawner": ({"word": "hällo", "orphans": 3}, spawner),
    "heavy": ({"n": 100}, heavy),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("function", CASES)
def test_cold_and_warm(daemon: Daemon, deployed: Deployed, tmp_path: Path, function: str, way: Way) -> None:
    event, check = CASES[function]
    name = deployed(function)
    for temperature in ("cold", "warm"):
        result, log = way(daemon, name, event, tmp_path)
        check(result)
        report = next(line for line in log.splitlines() if line.startswith("REPORT RequestId: "))
        assert ("Init Duration: " in report) == (temperature == "cold"), report
    assert len(daemon.environments(name)) == 1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_boto3_inside_a_function_calls_another(daemon: Daemon, deployed: Deployed, tmp_path: Path, way: Way) -> None:
    hello, caller = deployed("hello"), deployed("caller")
    for _ in range(2):
        result, _log = way(daemon, caller, {"function": hello, "payload": {"name": "Ünsal"}}, tmp_path)
        assert result == {"status": 200, "error": None, "payload": {"hello": "Ünsal"}}


def test_boto3_inside_a_function_that_may_not(daemon: Daemon, deployed: Deployed) -> None:
    hello, caller = deployed("hello"), deployed("caller")
    assert daemon.admin("PUT", f"/functions/{caller}/policy", {"AllowEgress": [], "AllowInvoke": False}).status == 200
    daemon.wait_settled(caller)
    answer = daemon.invoke(caller, {"function": hello, "payload": {}})
    assert answer.headers["x-amz-function-error"] == "Unhandled"
    assert answer.json["errorType"] == "NoCredentialsError", answer.json


@pytest.mark.parametrize("function", ["hello", "csv_report", "markdown"])
def test_the_older_runtime(daemon: Daemon, deployed: Deployed, function: str) -> None:
    event, check = CASES.get(function, ({"name": "x"}, lambda result: None))
    name = deployed(function, runtime="python3.11")
    for _ in range(2):
        answer = daemon.invoke(name, event)
        assert "x-amz-function-error" not in answer.headers, answer
        check(answer.json)
    version = deployed("evaluate", runtime="python3.11")
    assert daemon.call(version, {"code": "import sys; result = sys.version_info[:2]"}) == [3, 11]


def test_a_small_function_writes_more_to_tmp_than_its_memory(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("tmp_writer")
    answer = daemon.invoke(name, {"mb": 400})
    assert "x-amz-function-error" not in answer.headers, answer
    assert (answer.json["bytes"], answer.json["wrong"]) == (400 * 1024 * 1024, 0)
    assert 480 <= answer.json["capacity_mb"] <= 512


def test_tmp_is_as_large_as_asked_for(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("tmp_writer", EphemeralStorage={"Size": 1024}, MemorySize=512)
    answer = daemon.invoke(name, {"mb": 1})
    assert 960 <= answer.json["capacity_mb"] <= 1024


def test_tmp_stays_while_the_environment_does(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("evaluate")
    daemon.invoke(name, {"code": "open('/tmp/kept', 'w').write('x')"})
    assert daemon.call(name, {"code": "result = open('/tmp/kept').read()"}) == "x"


def test_what_a_function_sees(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("environment")
    request = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    answer = daemon.invoke(name, {}, X_Amz_Client_Context=request)
    seen, environ = answer.json, answer.json["environ"]
    assert environ["GREETING"] == "grüß dich"
    expected = {
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "192",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": "app.handler",
    }
    assert {k: environ.get(k) for k in expected} == expected
    assert {"PATH", "LD_LIBRARY_PATH", "AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_LOG_STREAM_NAME"} <= set(environ)
    assert (seen["cwd"], seen["uid"], seen["gid"], seen["time_zone"]) == ("/var/task", 993, 990, ["UTC", "UTC"])
    context = seen["context"]
    assert context["aws_request_id"] == answer.headers["x-amzn-requestid"]
    assert (context["function_name"], context["function_version"]) == (name, "$LATEST")
    assert context["invoked_function_arn"] == f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    assert context["log_group_name"] == f"/aws/lambda/{name}"
    assert context["log_stream_name"] == environ["AWS_LAMBDA_LOG_STREAM_NAME"]
    assert context["memory_limit_in_mb"] == "192"
    assert context["client_context"] == {"k": "v"}
    assert 5_000 * TIME_FACTOR < context["remaining_ms"] <= 10_000 * TIME_FACTOR
