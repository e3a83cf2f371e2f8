"""Layers in real environments: merged at /opt in order, found where AWS has them found, and no way out."""

from __future__ import annotations

import base64
import io
import json
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Deployed
from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.places import TIME_FACTOR

LOW = {
    "python/shared.py": b"name = 'low'", "python/low.py": b"name = 'low'", "bin/tool": b"#!/bin/sh\necho low",
    "bin/low": b"#!/bin/sh\necho low", "data/low": b"low", "data/shared": b"low",
}  # fmt: skip
HIGH = {
    "python/lib/python3.13/site-packages/versioned.py": b"name = 'high'", "python/shared.py": b"name = 'high'",
    "bin/tool": b"#!/bin/sh\necho high", "data/shared": b"high", "data/high": b"high",
}  # fmt: skip
WRAPPER = {"wrapper": b'#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n'}
BOOTED_FOR_IT = {"Environment": {"Variables": {"PYTHONNOTHING": "1"}}}  # read at exec: no stem can be given it

Publish = Callable[..., str]


def layer(files: dict[str, bytes], mode: int = 0o755) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, content)
    return target.getvalue()


@pytest.fixture
def publish(daemon: Daemon) -> Iterator[Publish]:
    """Publishes layers for one test: `publish("low", LOW)` is an ARN."""
    client, made = daemon.lambda_client, []

    def one(name: str, files: dict[str, bytes], mode: int = 0o755) -> str:
        answer = client.publish_layer_version(LayerName=name, Content={"ZipFile": layer(files, mode)})
        made.append({"LayerName": name, "VersionNumber": answer["Version"]})
        return str(answer["LayerVersionArn"])

    yield one
    for version in made:
        client.delete_layer_version(**version)


def by_stem(daemon: Daemon, deployed: Deployed, **members: Any) -> str:
    """A function whose environment was a stem; they are made again a moment after each use."""
    deadline = time.monotonic() + 30 * TIME_FACTOR
    while time.monotonic() < deadline:
        name = deployed("evaluate", **members)
        if daemon.call(name, {"code": "result = '_HANDLER=' not in open('/proc/self/environ').read()"}):
            return name
        time.sleep(0.3)
    raise AssertionError("no environment came from a stem")


LOOK = """
import ctypes, os, subprocess, sys
import low, shared, versioned
def run(command): return subprocess.run([command], capture_output=True, text=True).stdout.strip()
lines = [line.split() for line in open('/proc/self/mountinfo')]
def fails(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.strerror
result = {
    'modules': [low.name, shared.name, versioned.name],
    'programs': [run('tool'), run('low')],
    'library': ctypes.CDLL('liblayer.so').zlibVersion() != 0,
    'data': sorted((name, open(f'/opt/data/{name}').read()) for name in os.listdir('/opt/data')),
    'top': sorted(os.listdir('/opt')),
    'path': [p for p in sys.path if p.startswith('/opt')],
    'first': sys.path[0],
    'mounts': [[m[5], m[m.index('-') + 3]] for m in lines if m[4] == '/opt'],
    'written': [fails(open, '/opt/new', 'w'), fails(open, '/opt/data/low', 'w'), fails(os.unlink, '/opt/bin/low'),
                fails(os.chmod, '/opt/bin/low', 0o4755), fails(os.mkdir, '/opt/data/x')],
    'modes': sorted({oct(os.lstat(os.path.join(d, f)).st_mode) for d, _, fs in os.walk('/opt') for f in fs}),
    'owner': sorted({os.lstat(d).st_uid for d, _, _ in os.walk('/opt')}),
    'capacity': os.statvfs('/opt').f_blocks - os.statvfs('/var/task').f_blocks,
}
"""


def library(daemon: Daemon) -> bytes:
    """A shared library that a function can load, under a name that the image does not have."""
    (path, *_) = (daemon.data_dir / "images").glob("*/usr/lib/*-linux-gnu/libz.so.1.*")
    return path.read_bytes()


def test_layers_are_merged_in_order_on_both_roads(daemon: Daemon, deployed: Deployed, publish: Publish) -> None:
    # Their modes say setuid; nobody ends up with it.
    layers = [
        publish("low", LOW | {"lib/liblayer.so": library(daemon)}, 0o4755),
        publish("high", HIGH, 0o4755),
        publish("again", LOW | {"lib/liblayer.so": library(daemon)}, 0o4755),  # the same package once more
    ]
    merged = {"Layers": [layers[2], layers[0], layers[1]]}
    looks = []
    for name in (by_stem(daemon, deployed, **merged), deployed("evaluate", **merged, **BOOTED_FOR_IT)):
        shown = daemon.wait_settled(name)
        assert [row["Arn"] for row in shown["Layers"]] == merged["Layers"]
        looks.append(daemon.call(name, {"code": LOOK}))
        done = daemon.cli("inspect", str(daemon.environments(name)[0]["Id"]), "--output", "json")
        findings = json.loads(done.stdout)["Findings"]
        assert [row for row in findings if not row["ok"]] == []
        assert [row["ok"] for row in findings if row["name"] == "/opt: from"] == [True]
    look = looks[0]
    assert look == looks[1]
    assert look["modules"] == ["low", "high", "high"] and look["programs"] == ["high", "low"] and look["library"]
    assert look["data"] == [["high", "high"], ["low", "low"], ["shared", "high"]]
    assert look["top"] == ["bin", "data", "lib", "python"]
    assert look["path"] == ["/opt/python/lib/python3.13/site-packages", "/opt/python"]
    assert look["first"] == "/var/task"
    ((flags, options),) = look["mounts"]
    assert {"ro", "nosuid", "nodev"} <= set(flags.split(","))
    lower = options.partition("lowerdir=")[2].partition(",")[0].split(":")
    assert lower[0] == "/e" and [len(name) for name in lower[1:]] == [46, 46], "digests and nothing else"
    assert look["written"] == ["Read-only file system"] * 5
    assert look["modes"] == ["0o100555"] and look["owner"] == [65534] and look["capacity"] == 0


def test_without_layers_there_is_nothing_of_others(daemon: Daemon, deployed: Deployed, publish: Publish) -> None:
    code = "import os; result = sorted(os.path.join(d, f) for d, _, fs in os.walk('/opt') for f in fs)"
    arns = [publish("mine", {"mine": b"1"}), publish("yours", {"yours": b"1"})]
    for road in ({}, BOOTED_FOR_IT):
        seen = [
            daemon.call(deployed("evaluate", Layers=layers, **road), {"code": code})
            for layers in (arns[:1], arns[1:], [])
        ]
        assert seen == [["/opt/mine"], ["/opt/yours"], []]


def test_a_wrapper_of_a_layer_starts_the_runtime(daemon: Daemon, deployed: Deployed, publish: Publish) -> None:
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}}
    name = deployed("evaluate", Layers=[publish("wrapper", WRAPPER)], Environment=variables)
    assert daemon.call(name, {"code": "import os; result = os.environ.get('WRAPPED')"}) == "yes"


def test_a_deleted_version_works_on_for_its_functions(daemon: Daemon, deployed: Deployed, publish: Publish) -> None:
    arn = publish("low", LOW)
    name = deployed("evaluate", Layers=[arn])
    code = {"code": "import low; result = low.name"}
    assert daemon.call(name, code) == "low"
    content = daemon.lambda_client.get_layer_version_by_arn(Arn=arn)["Content"]
    package = daemon.data_dir / "code" / base64.b64decode(content["CodeSha256"]).hex()
    assert package.is_dir()
    daemon.lambda_client.delete_layer_version(LayerName="low", VersionNumber=int(arn.rpartition(":")[2]))
    daemon.restart()
    assert daemon.call(name, code) == "low"
    with pytest.raises(ClientError, match=f"Layer version {arn} does not exist."):
        daemon.lambda_client.update_function_configuration(FunctionName=name, Layers=[arn])
    # Without the layer it is another function's affair no longer: the package goes.
    daemon.lambda_client.update_function_configuration(FunctionName=name, Layers=[])
    deadline = time.monotonic() + 20 * TIME_FACTOR
    while package.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "x-amz-function-error" in daemon.invoke(name, code).headers


def test_the_builder_counts_files_by_itself(fresh_daemon: Callable[..., Daemon]) -> None:
    daemon = fresh_daemon(limits__zip_entries=10)
    daemon.start()
    files = {f"many/{number}": b"" for number in range(4)}
    arns = []
    for name in ("one", "two"):
        answer = daemon.lambda_client.publish_layer_version(
            LayerName=name,
            Content={"ZipFile": layer({f"{file}-{name}": content for file, content in files.items()})},
        )
        arns.append(answer["LayerVersionArn"])
    name = daemon.deploy(packages.load("evaluate"), "evaluate", Layers=arns)
    code = {"code": "import os; result = len(os.listdir('/opt/many'))"}
    assert daemon.call(name, code) == 8
    daemon.settings["limits.zip_entries"] = 9  # lower than what is attached, with its two directories
    daemon.restart()
    refused = daemon.invoke(name, code)
    assert (refused.status, refused.code) == (500, "ServiceException")
    assert "layers" in refused.message and "too many files" in daemon.log()


@pytest.mark.parametrize(
    ("name", "mode", "content", "reason"),
    [
        ("python/link", stat.S_IFLNK | 0o777, b"/etc/passwd", "an entry is a link"),
        ("device", stat.S_IFCHR | 0o666, b"", "an entry is a device, a socket or a pipe"),
        ("../outside", stat.S_IFREG | 0o644, b"", "an entry has .. in its name"),
        ("/outside", stat.S_IFREG | 0o644, b"", "an entry has an absolute name"),
    ],
)
def test_a_layer_with_a_way_out_is_refused(daemon: Daemon, name: str, mode: int, content: bytes, reason: str) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("python/fine.py", b"")
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    before = list((daemon.data_dir / "code").iterdir())
    with pytest.raises(ClientError, match=f"Reason: {reason}."):
        daemon.lambda_client.publish_layer_version(LayerName="bad", Content={"ZipFile": target.getvalue()})
    assert daemon.lambda_client.list_layers()["Layers"] == []
    assert list((daemon.data_dir / "code").iterdir()) == before
