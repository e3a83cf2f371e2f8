"""The guest side in a real image, against a Runtime API of the test's own."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images.conftest import of_python
from tests.support import images

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and chroot")

FUNCTION = """
import os, sys
import bootstrap

def handler(event, context):
    return {
        "path": sys.path[:4],
        "pythonpath": os.environ["PYTHONPATH"],
        "execution": os.environ["AWS_EXECUTION_ENV"],
        "bootstrap": bootstrap.WHOSE,
        "client": sys.modules["awslambdaric.lambda_context"].__file__,
        "json": sys.modules["awslambdaric.bootstrap"].json.__file__,
        "gc": __import__("gc").isenabled(),
        "from_pth": "/var/task/vendored" in sys.path,
        "event": event,
        "cwd": os.getcwd(),
    }
"""


class RuntimeApi(http.server.ThreadingHTTPServer):
    """Hands out one event and keeps what is posted; a second request for an event gets no answer until the end."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.daemon_threads = True
        self.asked = 0
        self.posted: tuple[str, dict[str, Any]] | None = None
        self.done = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RuntimeApi

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.asked > 1:
            self.server.done.set()
            return
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "request-1")
        self.send_header("Lambda-Runtime-Deadline-Ms", "4102444800000")
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:f")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b'{"a":1}')

    def do_POST(self) -> None:
        self.server.posted = self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.done.set()


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    with RuntimeApi() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield server
        server.shutdown()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    directory = tmp_path / "code"
    (directory / "vendored").mkdir(parents=True)
    (directory / "index.py").write_text(FUNCTION)
    (directory / "bootstrap.py").write_text('WHOSE = "the function\'s"\n')
    (directory / "json.py").write_text('raise ImportError("not the standard library")\n')
    (directory / "vendored.pth").write_text("/var/task/vendored\n")
    tmp_path.chmod(0o755)
    return directory


def invoke(tree: Path, code: Path, api: RuntimeApi, **variables: str) -> tuple[str, dict[str, Any], str]:
    """Run the image's bootstrap on a function until it posts something: path, document, log."""
    mounts = 'mount --bind "$1" "$2/var/task" && cd "$2/var/task" && exec /usr/sbin/chroot --userspec=993:990 "$2" "$3"'
    environ = {
        "PATH": "/usr/bin:/bin",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_port}",
        "_HANDLER": "index.handler",
        **variables,
    }
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mounts, "sh", code, tree, "/var/runtime/bootstrap"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert api.done.wait(20)
    finally:
        process.kill()
        log, _ = process.communicate()
    assert api.posted, log
    return *api.posted, log


@of_python
def test_a_function_finds_itself_as_at_aws(tree: Path, runtime: str, code: Path, api: RuntimeApi) -> None:
    path, answer, log = invoke(tree, code, api)
    assert path == "/2018-06-01/runtime/invocation/request-1/response"
    layer = f"/opt/python/lib/{runtime}/site-packages"
    assert answer == {
        "path": ["/var/task", layer, "/opt/python", "/var/runtime"],
        "pythonpath": "/var/runtime",
        "execution": f"AWS_Lambda_{runtime}",
        "bootstrap": "the function's",
        "client": "/var/runtime/awslambdaric/lambda_context.py",
        "json": f"/usr/lib/{runtime}/json/__init__.py",
        "gc": True,
        "from_pth": True,
        "event": {"a": 1},
        "cwd": "/",
    }
    assert log == ""


@of_python
def test_a_pythonpath_of_the_functions_own_replaces_the_layers(tree: Path, code: Path, api: RuntimeApi) -> None:
    _, answer, _ = invoke(tree, code, api, PYTHONPATH="/var/task/vendored")
    assert answer["path"][:3] == ["/var/task", "/var/runtime", "/var/task/vendored"]
    assert answer["pythonpath"] == "/var/task/vendored"


@of_python
def test_a_wrapper_starts_the_runtime(tree: Path, runtime: str, code: Path, api: RuntimeApi) -> None:
    wrapper = code / "wrapper"
    wrapper.write_text('#!/bin/sh\necho "wrapped $*"\nexec "$@"\n')
    wrapper.chmod(0o755)
    _, answer, log = invoke(tree, code, api, AWS_LAMBDA_EXEC_WRAPPER="/var/task/wrapper")
    assert log == f"wrapped /usr/bin/{runtime} /var/runtime/bootstrap.py\n"
    assert answer["execution"] == f"AWS_Lambda_{runtime}"


@of_python
def test_a_missing_handler_module_is_awss_error(tree: Path, code: Path, api: RuntimeApi) -> None:
    path, answer, log = invoke(tree, code, api, _HANDLER="nowhere.handler")
    assert path == "/2018-06-01/runtime/init/error"
    assert answer["errorType"] == "Runtime.ImportModuleError"
    assert answer["errorMessage"] == "Unable to import module 'nowhere': No module named 'nowhere'"
    assert "[ERROR] Runtime.ImportModuleError" in log


NODE = "/var/lang/bin/node --expose-gc --max-semi-space-size=25 --max-old-space-size=460"


@pytest.mark.parametrize("runtime", ["nodejs22.x"], indirect=True, scope="session")
@pytest.mark.parametrize(
    ("options", "features"),
    [
        ("", " --no-experimental-require-module --no-experimental-detect-module"),
        ("--experimental-detect-module --no-warnings", " --no-experimental-require-module"),
    ],
)
def test_node_starts_as_at_aws(tree: Path, code: Path, api: RuntimeApi, options: str, features: str) -> None:
    (code / "index.mjs").write_text("export const handler = async (event) => ({ event, path: process.env.NODE_PATH });")
    wrapper = code / "wrapper"
    wrapper.write_text('#!/bin/sh\necho "wrapped $*"\nexec "$@"\n')
    wrapper.chmod(0o755)
    variables = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512", "NODE_OPTIONS": options}
    path, answer, log = invoke(tree, code, api, AWS_LAMBDA_EXEC_WRAPPER="/var/task/wrapper", **variables)
    assert path == "/2018-06-01/runtime/invocation/request-1/response"
    layers = "/opt/nodejs/node22/node_modules:/opt/nodejs/node_modules"
    assert answer == {"event": {"a": 1}, "path": f"{layers}:/var/runtime/node_modules:/var/runtime:/var/task"}
    assert log == f"wrapped {NODE}{features} /var/runtime/bootstrap.mjs\n"


@pytest.mark.parametrize("runtime", [*images.PYTHONS, "nodejs22.x"], indirect=True, scope="session")
@pytest.mark.parametrize(
    ("mode", "status", "message"), [(None, 127, "does not exist"), (0o644, 126, "is not an executable")]
)
def test_a_wrapper_that_cannot_run(tree: Path, tmp_path: Path, mode: int | None, status: int, message: str) -> None:
    name = "/etc/hosts" if mode else "/var/task/none"
    done = subprocess.run(
        ["/usr/sbin/chroot", "--userspec=993:990", tree, "/var/runtime/bootstrap"],
        env={"AWS_LAMBDA_EXEC_WRAPPER": name}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, f"{name}: {message}\n")
