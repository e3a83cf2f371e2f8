"""nodejs22.x: handlers as AWS's documents have them, their errors and logs, real packages, the sandbox, both roads."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.support import packages
from tests.support.daemon import Answer, Daemon
from tests.support.places import TIME_FACTOR

PHOTO = (Path(__file__).parent / "data" / "photo.jpg").read_bytes()
RUNTIME = "nodejs22.x"


@pytest.fixture
def forms(deployed: Deployed) -> str:
    return deployed("node_forms")


@pytest.fixture
def inline(daemon: Daemon) -> Any:
    """Deploys a package of a few lines: files by name."""
    names: list[str] = []

    def deploy(files: dict[str, str], handler: str = "app.handler", **members: Any) -> str:
        package = base64.b64encode(packages.zip_of(dict(files))).decode()
        about = packages.load("node_evaluate")
        members |= {"Code": {"ZipFile": package}, "Handler": handler}
        names.append(daemon.deploy(about, f"inline-{len(names)}", **members))
        return names[-1]

    yield deploy
    for name in names:
        daemon.delete(name)


def failed(answer: Answer) -> tuple[str, str]:
    """The type and the message of a function's error, in the form that Node.js has them."""
    assert (answer.status, answer.headers.get("x-amz-function-error")) == (200, "Unhandled"), answer
    assert set(answer.json) == {"errorType", "errorMessage", "trace"}, answer.json
    return answer.json["errorType"], answer.json["errorMessage"]


# handlers


def test_a_handler_may_return_or_promise_or_call_back(daemon: Daemon, forms: str) -> None:
    assert daemon.call(forms, {"form": "async", "value": "grüße"}) == {"async": "grüße"}
    assert daemon.call(forms, {"form": "promise", "value": [1, None]}) == [1, None]
    assert daemon.call(forms, {"form": "callback", "waits": True, "after": 0, "value": 1}) == {"callback": 1}
    for form in ("succeed", "done"):
        assert daemon.call(forms, {"form": form, "value": {"a": 1}}) == {"a": 1}
    answer = daemon.invoke(forms, {"form": "nothing"})
    assert answer.json is None and "the last of it" in answer.log
    assert [row["Invocations"] for row in daemon.environments(forms)] == [6]


def test_a_callback_waits_for_the_event_loop_unless_told_otherwise(daemon: Daemon, forms: str) -> None:
    answer = daemon.invoke(forms, {"form": "callback", "waits": True, "after": 300, "value": "waited"})
    assert answer.json == {"callback": "waited"} and "after the callback waited" in answer.log
    answer = daemon.invoke(forms, {"form": "callback", "waits": False, "after": 300, "value": "left"})
    assert answer.json == {"callback": "left"} and "after the callback" not in answer.log
    # What is left goes on when the environment does, with its next invocation.
    answer = daemon.invoke(forms, {"form": "callback", "waits": True, "after": 600, "value": "next"})
    assert re.search("after the callback left.*after the callback next", answer.log, re.DOTALL), answer.log
    assert [row["Invocations"] for row in daemon.environments(forms)] == [3]


def test_a_callback_before_an_event_loop_that_never_empties_runs_into_the_timeout(
    daemon: Daemon, deployed: Deployed
) -> None:
    answer = daemon.invoke(deployed("node_forms", Timeout=2), {"form": "callback_and_forever"})
    assert answer.json["errorType"] == "Sandbox.Timedout", answer


ERRORS = {
    "error": ("RangeError", "by the callback"),
    "fail": ("TypeError", "by the context"),
    "throws": ("SyntaxError", "at once"),
    "rejects": ("My.Error", "in a promise"),
    "rejects_with_text": ("string", "text"),
    "cannot_be_json": ("Error", "Unable to stringify response body"),
}


def test_errors_are_awss(daemon: Daemon, forms: str) -> None:
    for form, expected in ERRORS.items():
        answer = daemon.invoke(forms, {"form": form})
        assert failed(answer) == expected
        if form == "rejects":
            assert (
                answer.json["trace"][0] == "My.Error: in a promise" and "/var/task/app.js:" in answer.json["trace"][1]
            )
            [line] = [line for line in answer.log.splitlines() if "\tERROR\tInvoke Error \t" in line]
            logged = json.loads(line.rpartition("\t")[2])
            assert (logged["errorType"], logged["code"]) == ("My.Error", "E_MINE")
    assert [row["Invocations"] for row in daemon.environments(forms)] == [len(ERRORS)]


def test_what_nobody_handles_ends_the_process(daemon: Daemon, forms: str) -> None:
    kind, message = failed(daemon.invoke(forms, {"form": "unhandled"}))
    assert (kind, message) == ("Runtime.UnhandledPromiseRejection", "Error: nobody looked")
    assert failed(daemon.invoke(forms, {"form": "uncaught"})) == ("Error", "nobody caught")
    answer = daemon.invoke(forms, {"form": "exits"})
    assert answer.json["errorType"] == "Runtime.ExitError" and "exit status 7" in answer.json["errorMessage"]
    assert daemon.call(forms, {"form": "async", "value": 1}) == {"async": 1}


HANDLER = "exports.handler = async () => 'common';"
LOADS: dict[str, tuple[dict[str, str], str, Any]] = {
    "a module in a directory": ({"lib/app.js": HANDLER}, "lib/app.handler", "common"),
    "a member of a member": ({"app.cjs": "exports.a = { b: async () => 'deep' };"}, "app.a.b", "deep"),
    "a package of modules": (
        {"app.js": "export const handler = async () => 'module';", "package.json": '{"type": "module"}'},
        "app.handler",
        "module",
    ),
    "no such file": ({"other.js": HANDLER}, "app.handler", ("Runtime.ImportModuleError", "Cannot find module 'app'")),
    "no such package": (
        {"app.js": "require('not-there');"},
        "app.handler",
        ("Runtime.ImportModuleError", "Cannot find module 'not-there'"),
    ),
    "no such export": ({"app.js": HANDLER}, "app.other", ("Runtime.HandlerNotFound", "app.other is undefined or not")),
    "no function": ({"app.js": "exports.handler = 1;"}, "app.handler", ("Runtime.HandlerNotFound", "not a function")),
    "bad name": ({"app.js": HANDLER}, "../app.handler", ("Runtime.MalformedHandlerName", "is not a valid handler")),
    "not JavaScript": ({"app.js": "exports. ="}, "app.handler", ("Runtime.UserCodeSyntaxError", "SyntaxError")),
    "a module that nothing says is one": (
        {"app.js": "export const handler = async () => 1;"},
        "app.handler",
        ("Runtime.UserCodeSyntaxError", "Unexpected token 'export'"),
    ),
    "a module that fails": (
        {"app.mjs": "throw new RangeError('at the top'); export const handler = 1;"},
        "app.handler",
        ("RangeError", "at the top"),
    ),
}


@pytest.mark.parametrize("case", LOADS)
def test_how_a_handler_is_found(daemon: Daemon, inline: Callable[..., str], case: str) -> None:
    files, handler, expected = LOADS[case]
    answer = daemon.invoke(inline(files, handler), {})
    if isinstance(expected, str):
        assert answer.json == expected
    else:
        kind, message = failed(answer)
        assert kind == expected[0] and expected[1] in message
        assert f'"errorType":"{kind}"' in answer.log


def test_what_node_calls_experimental_is_off_until_node_options_turn_it_on(
    daemon: Daemon, inline: Callable[..., str]
) -> None:
    files = {"app.js": "const { one } = require('./other.mjs'); exports.handler = async () => one;"}
    files["other.mjs"] = "export const one = 1;"
    assert "ES Module" in failed(daemon.invoke(inline(files), {}))[1]
    options = {"Variables": {"NODE_OPTIONS": "--no-warnings --experimental-require-module"}}
    assert daemon.call(inline(files, Environment=options)) == 1


def test_a_layers_packages_are_found(daemon: Daemon, inline: Callable[..., str]) -> None:
    layer = {f"nodejs/{where}node_modules/{name}/index.js": f"module.exports = '{name}';"
             for where, name in (("", "plain"), ("node22/", "for-22"))}  # fmt: skip
    client = daemon.lambda_client
    arn = client.publish_layer_version(LayerName="node-layer", Content={"ZipFile": packages.zip_of(dict(layer))})[
        "LayerVersionArn"
    ]
    source = "exports.handler = async () => [require('plain'), require('for-22')];"
    assert daemon.call(inline({"app.js": source}, Layers=[arn])) == ["plain", "for-22"]
    client.delete_layer_version(LayerName="node-layer", VersionNumber=int(arn.rpartition(":")[2]))


# streams


def events(daemon: Daemon, name: str, event: str) -> tuple[list[tuple[float, bytes]], dict[str, str]]:
    answer = daemon.lambda_client.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event))
    chunks: list[tuple[float, bytes]] = []
    for one in answer["EventStream"]:
        if "PayloadChunk" in one:
            chunks.append((time.monotonic(), one["PayloadChunk"]["Payload"]))
    return chunks, one["InvokeComplete"]


def whole(chunks: list[tuple[float, bytes]]) -> bytes:
    return b"".join(chunk for _, chunk in chunks)


def test_streams_as_awss_documents_show_them(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("node_streams")
    for _ in range(2):
        chunks, complete = events(daemon, name, "slowly")
        assert [chunk for _, chunk in chunks] == [b"one ", b"two ", b"three "]
        assert chunks[-1][0] - chunks[0][0] > 0.5 and complete == {}
    assert whole(events(daemon, name, "typed")[0]) == b"plain"
    prelude, _, body = whole(events(daemon, name, "http")[0]).partition(bytes(8))
    assert (json.loads(prelude), body) == ({"statusCode": 201, "headers": {"x-mine": "1"}}, b"created")
    assert len(whole(events(daemon, name, "large")[0])) == 80 * 65_536
    chunks, complete = events(daemon, name, "failing")
    assert whole(chunks) == b"begun"
    error = json.loads(complete["ErrorDetails"])
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", "in the middle")
    answer = daemon.invoke(name, "slowly")  # for one who asks for a whole
    assert answer.body == b"one two three " and "\tINFO\tstreams slowly $LATEST" in answer.log
    assert len(daemon.environments(name)) == 1


# packages and logs


def test_real_packages(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("node_markdown")
    for temperature in ("cold", "warm"):
        answer = daemon.invoke(name, {"markdown": "# Größe\n\n- **a**", "csv": "region,sum\nsüd,1.5\n"})
        assert answer.json["html"] == "<h1>Größe</h1>\n<ul>\n<li><strong>a</strong></li>\n</ul>\n", answer.log
        assert answer.json["rows"][0] == {"region": "süd", "sum": 1.5}
        assert ("Init Duration: " in answer.log) == (temperature == "cold")


def test_an_addon_with_libraries_of_its_own(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("node_thumbnail")
    event = {"image": base64.b64encode(PHOTO).decode(), "size": 128}
    for _ in range(2):
        result = daemon.call(name, event)
        assert (result["width"], result["height"], result["original"]) == (128, 96, [640, 480])
        assert base64.b64decode(result["image"])[:3] == b"\xff\xd8\xff"


LOGS = """
console.log('one', { a: 1 }, 'two\\nlines');
console.debug('fine'); console.warn('odd'); console.error(new Error('bad'));
process.stdout.write('as it is\\n');
"""


def test_log_lines_have_time_request_and_level(daemon: Daemon, deployed: Deployed) -> None:
    answer = daemon.invoke(deployed("node_evaluate"), {"code": LOGS})
    begin = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z\t{answer.headers['x-amzn-requestid']}\t"
    for line in (r"INFO\tone \{ a: 1 \} two\nlines\n", r"DEBUG\tfine\n", r"WARN\todd\n", r"ERROR\tError: bad\n"):
        assert re.search(begin + line, answer.log), answer.log
    assert "\nas it is\n" in answer.log


def test_logs_as_json_have_the_level_asked_for(daemon: Daemon, deployed: Deployed) -> None:
    logging = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN"}
    answer = daemon.invoke(deployed("node_evaluate", LoggingConfig=logging), {"code": LOGS})
    lines = [json.loads(line) for line in answer.log.splitlines() if line.startswith("{")]
    mine = {line["level"]: line for line in lines if "requestId" in line}
    assert set(mine) == {"WARN", "ERROR"}, answer.log
    assert (mine["WARN"]["message"], mine["WARN"]["requestId"]) == ("odd", answer.headers["x-amzn-requestid"])
    assert mine["ERROR"]["message"]["errorMessage"] == "bad"


# the sandbox

LOOK = """
const fs = require('fs');
const lines = fs.readFileSync('/proc/self/status', 'utf8').split('\\n');
const status = Object.fromEntries(lines.map((line) => line.split(':\\t')));
const wanted = ['Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp',
                'SigIgn', 'SigBlk', 'Umask'];
const writable = (path) => { try { fs.accessSync(path, fs.constants.W_OK); return true; } catch { return false; } };
return {
  at_exec: fs.readFileSync('/proc/self/environ', 'utf8'),
  environ: process.env,
  version: process.version,
  argv: [process.argv, process.execArgv],
  cwd: process.cwd(),
  context: Object.keys(context).sort(),
  awaited,
  heap: require('v8').getHeapStatistics().heap_size_limit,
  paths: require('module').globalPaths,
  status: Object.fromEntries(wanted.map((key) => [key, status[key].trim()])),
  descriptors: ['0', '1', '2'].map((n) => fs.readlinkSync('/proc/self/fd/' + n).replace(/[0-9]+/, 'N')),
  writable: ['/', '/tmp', '/opt', '/var/task', '/var/runtime', '/dev'].filter(writable),
  limits: fs.readFileSync('/proc/self/limits', 'utf8'),
  memory: require('os').totalmem(),
};
"""
OWN = {"AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "_X_AMZN_TRACE_ID"}


def look(daemon: Daemon, name: str) -> dict[str, Any]:
    seen: dict[str, Any] = daemon.call(name, {"code": LOOK})
    seen["by_stem"] = "_HANDLER=" not in seen.pop("at_exec")
    for key in OWN:
        seen["environ"].pop(key, None)
    return seen


@pytest.mark.parametrize("memory", [128, 1024])
def test_both_roads_give_the_same_environment(daemon: Daemon, deployed: Deployed, memory: int) -> None:
    deadline = time.monotonic() + 30 * TIME_FACTOR
    while not (by_stem := look(daemon, deployed("node_evaluate", MemorySize=memory))).pop("by_stem"):
        assert time.monotonic() < deadline, "no environment came from a stem"
        time.sleep(0.3)
    variables = {"Variables": {"NODE_NOTHING": "1"}}  # that Node.js might read as it starts
    other = look(daemon, deployed("node_evaluate", MemorySize=memory, Environment=variables))
    assert not other.pop("by_stem") and other["environ"].pop("NODE_NOTHING") == "1"
    for what in by_stem:
        assert other[what] == by_stem[what], what
    assert by_stem["awaited"] == "as it loads"
    assert by_stem["writable"] == ["/tmp"]
    assert by_stem["status"]["Seccomp"] == "2" and by_stem["status"]["Uid"].split() == ["993"] * 4
    assert int(by_stem["status"]["CapBnd"], 16) == 0
    assert by_stem["memory"] == memory << 20
    # 90 % for the old generation and three semispaces, of 5 % rounded up to a power of two.
    assert 0.9 * memory <= by_stem["heap"] / (1 << 20) <= 1.3 * memory
    assert by_stem["environ"]["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{RUNTIME}"
    assert by_stem["environ"]["NODE_PATH"].split(":")[:2] == [
        "/opt/nodejs/node22/node_modules",
        "/opt/nodejs/node_modules",
    ]


def test_memory_has_a_limit_in_the_heap_and_beside_it(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("node_evaluate", Timeout=100)
    answer = daemon.invoke(name, {"code": "const a = []; for (;;) a.push(new Array(1 << 20).fill(0));"})
    assert answer.json["errorType"] == "Runtime.ExitError" and "signal: aborted" in answer.json["errorMessage"], answer
    assert "JavaScript heap out of memory" in daemon.cli("logs", name).stdout
    answer = daemon.invoke(name, {"code": "const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1));"})
    assert answer.json["errorType"] == "Runtime.OutOfMemory", answer
    assert daemon.call(name, {"code": "return 1"}) == 1


ATTEMPTS = """
const { spawnSync } = require('child_process');
const { Worker } = require('worker_threads');
const net = require('net');
const shell = spawnSync('sh', ['-c', 'id -u; unshare -U true || echo no namespace']).stdout.toString();
const worker = await new Promise((resolve) =>
  new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true }).once('message', resolve));
const outside = await new Promise((resolve) =>
  net.connect(53, '8.8.8.8').once('error', (error) => resolve(error.code)).once('connect', () => resolve('connected')));
return { shell, worker, outside };
"""


def test_processes_threads_and_the_network_are_as_for_all(daemon: Daemon, deployed: Deployed) -> None:
    name = deployed("node_evaluate", MemorySize=256)
    result = daemon.call(name, {"code": ATTEMPTS})
    assert result == {"shell": "993\nno namespace\n", "worker": 42, "outside": "ENETUNREACH"}
    [environment] = daemon.environments(name)
    inspected = daemon.cli("inspect", str(environment["Id"]))
    assert inspected.returncode == 0, inspected.stdout
