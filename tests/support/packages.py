"""The real functions under tests/functions: read, vendored with packages of PyPI or npm and packed, each once.

`function.toml` may name: runtime, handler, memory, timeout, packages (requirements with exact versions), [npm] (SRI by
`name@version`), [environment], [policy] (the members of the policy document) and [files] (sources that may not stand as
files). A C source is packed as the program that it is compiled to.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandboxd.images import npm
from tests.support.places import FUNCTIONS, PACKAGES, TIME_FACTOR, make_places

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_FORMAT = b"2"  # of the packages: a change here packs them anew


@dataclass(frozen=True)
class Function:
    """One function as its directory describes it; `package` is the zip's path."""

    name: str
    runtime: str
    handler: str
    memory: int
    timeout: int
    package: Path
    environment: dict[str, str] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)


def every() -> list[str]:
    """The names of all functions."""
    return sorted(path.parent.name for path in FUNCTIONS.glob("*/function.toml"))


def load(name: str, runtime: str | None = None) -> Function:
    """Read a function's directory and pack it, or take the package that was packed from the same before."""
    directory = FUNCTIONS / name
    about = tomllib.loads((directory / "function.toml").read_text())
    runtime = runtime or about.get("runtime", "python3.13")
    return Function(
        name=name.replace("_", "-"),
        runtime=runtime,
        handler=about.get("handler", "app.handler"),
        memory=about.get("memory", 128),
        timeout=min(900, math.ceil(about.get("timeout", 10) * TIME_FACTOR)),
        package=_packed(directory, about, runtime),
        environment=about.get("environment", {}),
        policy=about.get("policy", {}),
    )


def zip_of(files: dict[str, bytes | str]) -> bytes:
    """A package of files by name: the same files give the same bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content in sorted(files.items()):
            _add(archive, name, content.encode() if isinstance(content, str) else content, 0o644)
    return target.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o100000 | mode) << 16
    archive.writestr(entry, content)


def _packed(directory: Path, about: dict[str, Any], runtime: str) -> Path:
    make_places()
    paths = (path for path in sorted(directory.iterdir()) if path.is_file() and path.name != "function.toml")
    sources = {path.name: (path.read_bytes(), path.stat().st_mode & 0o755) for path in paths}
    sources |= {name: (text.encode(), 0o644) for name, text in about.get("files", {}).items()}
    digest = hashlib.sha256(_FORMAT + runtime.encode() + repr(about.get("packages", [])).encode())
    digest.update(repr(about["npm"]).encode() if "npm" in about else b"")
    for name, (content, mode) in sources.items():
        digest.update(f"{name}\0{mode:o}".encode() + hashlib.sha256(content).digest())
    target = PACKAGES / f"{directory.name}-{digest.hexdigest()[:16]}.zip"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=PACKAGES) as scratch:
        if about.get("packages"):
            _vendor(about["packages"], runtime, Path(scratch) / "tree")
        if about.get("npm"):
            _install(about["npm"], Path(scratch), Path(scratch) / "tree/node_modules")
        with zipfile.ZipFile(Path(scratch) / "zip", "w") as archive:
            for name, (content, mode) in sources.items():
                if name.endswith(".c"):
                    _add(
                        archive, name.removesuffix(".c"), _compiled(directory / name, Path(scratch) / "program"), 0o755
                    )
                else:
                    _add(archive, name, content, mode)
            for path in sorted((Path(scratch) / "tree").rglob("*")):
                if path.is_file():
                    mode = 0o755 if os.access(path, os.X_OK) else 0o644
                    _add(archive, str(path.relative_to(Path(scratch) / "tree")), path.read_bytes(), mode)
        (Path(scratch) / "zip").rename(target)
    return target


def _compiled(source: Path, target: Path) -> bytes:
    """A program that needs nothing of the image that it will run in."""
    subprocess.run(["cc", "-static", "-O2", "-Wall", "-Werror", "-o", target, source], check=True)
    return target.read_bytes()


def _vendor(requirements: list[str], runtime: str, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
               "--only-binary=:all:", "--implementation=cp", f"--python-version={runtime.removeprefix('python')}",
               *(f"--platform={name}" for name in _PLATFORMS), f"--target={target}", *requirements]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not vendor {requirements}: {done.stderr}")


def _install(packages: dict[str, str], scratch: Path, target: Path) -> None:
    """Each package unpacked, without asking what else it wants."""
    for package, path in npm.fetch(packages, scratch / "npm", scratch / "npm-cache").items():
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                member.name = member.name.partition("/")[2]  # `package/`
                archive.extract(member, target / package.rpartition("@")[0], filter="data")
