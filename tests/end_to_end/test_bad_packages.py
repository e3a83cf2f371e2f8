"""Code packages that must not be unpacked: refused with AWS's words, and nothing half-made stays."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Deployed
from tests.end_to_end.test_life_of_a_function import eventually
from tests.support import packages
from tests.support.daemon import FUNCTIONS, Answer, Daemon
from tests.support.packages import zip_of
from tests.support.places import TIME_FACTOR

APP = "def handler(event, context):\n    return 1\n"
NOT_UNZIPPED = "Could not unzip uploaded file. Please check your file, then try to upload again."


@pytest.fixture(autouse=True)
def nothing_left(daemon: Daemon) -> Iterator[None]:
    before = files(daemon)
    yield
    daemon.request("DELETE", f"{FUNCTIONS}/refused")  # so that a package that is taken fails its own test only
    eventually(lambda: files(daemon) <= before)  # a package goes behind the answer to the request that ends it


def files(daemon: Daemon) -> set[str]:
    return {f"{d}/{p.name}" for d in ("code", "service/zips") for p in (daemon.data_dir / d).iterdir()}


def upload(daemon: Daemon, package: bytes, name: str = "refused") -> Answer:
    request = {
        "FunctionName": name, "Runtime": "python3.13", "Handler": "app.handler",
        "Role": "arn:aws:iam::000000000000:role/test", "Code": {"ZipFile": base64.b64encode(package).decode()},
        "Timeout": round(3 * TIME_FACTOR),
    }  # fmt: skip
    return daemon.request("POST", FUNCTIONS, request)


def refused(daemon: Daemon, package: bytes) -> Answer:
    """The refusal of a package, whether it comes with the request or as the function's state."""
    answer = upload(daemon, package)
    assert answer.status in (400, 413), answer
    assert daemon.request("GET", f"{FUNCTIONS}/refused").status == 404
    return answer


def with_entry(name: str, content: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("app.py", APP)
        entry = zipfile.ZipInfo(name)
        entry.filename = entry.orig_filename = name  # as an attacker writes it, not as zipfile would clean it
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    return target.getvalue()


def flooded(count: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(count):
            archive.writestr(f"f{number}", b"")
    return target.getvalue()


def bomb(size: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.py", APP)
        with archive.open("big", "w", force_zip64=True) as big:
            for _ in range(size // (1 << 20)):
                big.write(bytes(1 << 20))
    return target.getvalue()


def lying(package: bytes, real: int, said: int) -> bytes:
    """A package whose headers say another size than its data has."""
    return package.replace(real.to_bytes(4, "little"), said.to_bytes(4, "little"))


def corrupt() -> bytes:
    package = bytearray(zip_of({"app.py": APP * 100}))
    package[60:70] = b"\xff" * 10
    return bytes(package)


BAD: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no zip": lambda: b"this is not a zip file",
    "cut short": lambda: zip_of({"app.py": APP * 100})[:-30],
    "corrupt data": corrupt,
    "parent directory": lambda: with_entry("../evil.py"),
    "parent directory inside": lambda: with_entry("a/../../evil.py"),
    "absolute name": lambda: with_entry("/etc/evil.py"),
    "absolute name of Windows": lambda: with_entry("C:\\evil.py"),
    "symbolic link": lambda: with_entry("link", b"/etc/passwd", stat.S_IFLNK | 0o777),
    "symbolic link and a file through it": lambda: with_entry("app.py/x"),
    "character device": lambda: with_entry("device", b"", stat.S_IFCHR | 0o666),
    "block device": lambda: with_entry("device", b"", stat.S_IFBLK | 0o666),
    "fifo": lambda: with_entry("fifo", b"", stat.S_IFIFO | 0o666),
    "socket": lambda: with_entry("socket", b"", stat.S_IFSOCK | 0o666),
    "name too long": lambda: with_entry("x" * 300),
    "the same name twice": lambda: with_entry("app.py"),
    "an encrypted entry": lambda: zip_of({"app.py": APP}).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
    ),
    "100,000 entries": lambda: flooded(100_000),
    "no entries": lambda: flooded(0),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refused(daemon: Daemon, what: str) -> None:
    answer = refused(daemon, BAD[what]())
    assert (answer.status, answer.code) == (400, "InvalidParameterValueException")
    empty = "Uploaded file must be a non-empty zip"
    assert answer.message.startswith(empty if what in ("empty", "no entries") else NOT_UNZIPPED), answer.message


def test_too_large_packed(daemon: Daemon) -> None:
    answer = refused(daemon, zip_of({"app.py": APP}) + bytes(52_428_801))
    assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")
    assert answer.message == "Zipped size must be smaller than 52428800 bytes"


def test_the_request_is_too_large(daemon: Daemon) -> None:
    answer = refused(daemon, bytes(60 * 1024 * 1024))
    assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")
    assert answer.message == "Request must be smaller than 70167211 bytes for the CreateFunction operation"


@pytest.mark.parametrize("what", ["honest", "lying"])
def test_too_large_unpacked(daemon: Daemon, what: str) -> None:
    size = 256 * 1024 * 1024
    package = bomb(size) if what == "honest" else lying(bomb(size), size, 1000)
    answer = refused(daemon, package)
    assert (answer.status, answer.code) == (400, "InvalidParameterValueException")
    expected = "Unzipped size must be smaller than 262144000 bytes" if what == "honest" else NOT_UNZIPPED
    assert answer.message.startswith(expected)


def test_not_base64(daemon: Daemon) -> None:
    request = {
        "FunctionName": "refused", "Runtime": "python3.13", "Handler": "app.handler",
        "Role": "arn:aws:iam::000000000000:role/test", "Code": {"ZipFile": "%%% not base64 %%%"},
    }  # fmt: skip
    answer = daemon.request("POST", FUNCTIONS, request)
    assert answer.status == 400 and answer.code, answer


def test_a_refused_update_leaves_the_function_as_it_was(daemon: Daemon) -> None:
    hello = packages.load("hello")
    name = daemon.deploy(hello, "kept")
    try:
        before = daemon.request("GET", f"{FUNCTIONS}/{name}/configuration").json
        update = {"ZipFile": base64.b64encode(b"no zip").decode()}
        answer = daemon.request("PUT", f"{FUNCTIONS}/{name}/code", update)
        assert (answer.status, answer.code, answer.message) == (400, "InvalidParameterValueException", NOT_UNZIPPED)
        assert daemon.request("GET", f"{FUNCTIONS}/{name}/configuration").json == before
        assert daemon.call(name, {"name": "x"}) == {"hello": "x"}
    finally:
        daemon.delete(name)


def test_modes_and_owners_inside(daemon: Daemon) -> None:
    """What is unpacked is root's and sealed, whatever the zip says."""
    evaluate = packages.load("evaluate").package.read_bytes()
    target = io.BytesIO(evaluate)
    with zipfile.ZipFile(target, "a") as archive:
        entry = zipfile.ZipInfo("tool")
        entry.external_attr = (stat.S_IFREG | stat.S_ISUID | stat.S_ISGID | 0o777) << 16
        archive.writestr(entry, "#!/bin/sh\necho ran\n")
    answer = upload(daemon, target.getvalue(), "modes")
    assert answer.status == 201
    try:
        daemon.wait_settled("modes")
        code = (
            "import os, subprocess\n"
            "about = os.stat('/var/task/tool')\n"
            "ran = subprocess.run(['/var/task/tool'], capture_output=True, text=True).stdout\n"
            "try:\n    open('/var/task/new', 'w')\nexcept OSError as error:\n    refused = error.errno\n"
            "result = [oct(about.st_mode), os.access('/var/task/tool', os.W_OK), ran, refused]"
        )
        assert daemon.call("modes", {"code": code}) == ["0o100555", False, "ran\n", 30]
    finally:
        daemon.delete("modes")


def test_the_same_package_is_unpacked_once(daemon: Daemon, deployed: Deployed, tmp_path: Path) -> None:
    before = set(os.listdir(daemon.data_dir / "code"))
    names = [deployed("counter", f"same-{n}") for n in range(2)]
    assert len(set(os.listdir(daemon.data_dir / "code")) - before) == 1
    identities: set[Any] = {daemon.call(name)["identity"] for name in names}
    assert len(identities) == 2, "functions share code, never an environment"


def test_an_upload_cut_in_the_middle_leaves_nothing(daemon: Daemon) -> None:
    """The client goes away: with its head sent, half of its body, or all but a byte; or sends, and does not wait."""
    package = zip_of({"app.py": APP, "data": os.urandom(3_000_000)})
    body = json.dumps({"FunctionName": "refused", "Runtime": "python3.13", "Handler": "app.handler",
                       "Role": "arn:aws:iam::000000000000:role/test",
                       "Code": {"ZipFile": base64.b64encode(package).decode()}}).encode()  # fmt: skip
    head = f"POST {FUNCTIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    descriptors = daemon.room("service").num_fds()
    for _ in range(10):
        for sent in (head, head + body[: len(body) // 2], head + body[:-1]):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(daemon.socket))
                client.sendall(sent)
    eventually(lambda: daemon.room("service").num_fds() <= descriptors)
    assert daemon.request("GET", f"{FUNCTIONS}/refused").status == 404
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.sendall(head + body)
    # What was sent whole is done, as at AWS, whether or not anybody waits for the answer.
    eventually(lambda: daemon.request("GET", f"{FUNCTIONS}/refused").status == 200)
    daemon.wait_settled("refused")


def test_as_many_entries_as_may_be(daemon: Daemon) -> None:
    package = io.BytesIO(packages.load("evaluate").package.read_bytes())
    with zipfile.ZipFile(package, "a") as archive:
        for number in range(65_535 - len(archive.namelist())):
            archive.writestr(f"many/{number // 1000}/{number}", b"")
    answer = upload(daemon, package.getvalue(), "refused")
    assert answer.status == 201, answer
    daemon.wait_settled("refused")
    code = "import os\nresult = sum(len(files) for _, _, files in os.walk('/var/task/many'))"
    assert daemon.call("refused", {"code": code}) > 65_000
