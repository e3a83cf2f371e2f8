"""Packages of npm, from a registry of the test's own."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxd.images import npm
from sandboxd.images.recipe import ImageError


def _tarball() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        manifest = json.dumps({"name": "small", "version": "1.2.3", "scripts": {"prepack": "exit 1"}}).encode()
        member = tarfile.TarInfo("package/package.json")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
    return target.getvalue()


TARBALL = _tarball()
SRI = "sha512-" + base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()


class _Registry(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        host = f"http://{self.headers['Host']}"
        known = {"small": "small", "@scope%2fsmall": "@scope/small"}
        if self.path == "/small.tgz":
            self._answer(TARBALL)
        elif (name := known.get(self.path.lstrip("/"))) is not None:
            dist = {"tarball": f"{host}/small.tgz", "integrity": SRI}
            version = {"name": name, "version": "1.2.3", "dist": dist}
            self._answer(json.dumps({"name": name, "dist-tags": {}, "versions": {"1.2.3": version}}).encode())
        else:
            self.send_error(404)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("npm_config_userconfig", "/dev/null")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield
        server.shutdown()


def test_a_package_is_what_it_must_be(tmp_path: Path) -> None:
    wanted = {"small@1.2.3": SRI, "@scope/small@1.2.3": SRI}
    found = npm.fetch(wanted, tmp_path / "npm", tmp_path / "cache")
    assert [path.name for path in found.values()] == ["small-1.2.3.tgz", "scope-small-1.2.3.tgz"]
    assert [found[package].read_bytes() for package in wanted] == [TARBALL, TARBALL]


def test_another_package_is_refused(tmp_path: Path) -> None:
    other = "sha512-" + base64.b64encode(bytes(64)).decode()
    with pytest.raises(ImageError, match=r"small@1\.2\.3 is not what the recipe says: it has sha512-"):
        npm.fetch({"small@1.2.3": other}, tmp_path / "npm", tmp_path / "cache")


def test_what_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"npm cannot download missing@1\.0\.0: .*404"):
        npm.fetch({"missing@1.0.0": SRI}, tmp_path / "npm", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="npm is missing; install it with: apt-get install npm"):
        npm.fetch({"small@1.2.3": SRI}, tmp_path / "other", tmp_path / "cache")
