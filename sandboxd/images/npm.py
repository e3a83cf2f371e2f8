"""Packages of the npm registry, fetched by npm and checked against what the recipe says that they are.

Room: image maker, root. May: run npm to download. May not: unpack a package, or run anything of it.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sandboxd.images.recipe import ImageError

_SRI = "sha512-"  # https://www.w3.org/TR/SRI/


def fetch(packages: Mapping[str, str], target: Path, cache: Path) -> dict[str, Path]:
    """Download packages (`name@version`, with their SRI) into a new directory; npm keeps its own in `cache`.

    Returns where each is. Raises ImageError.
    """
    if not shutil.which("npm"):
        raise ImageError("npm is missing; install it with: apt-get install npm")
    target.mkdir()
    # A download that outlived a killed maker would write into a directory that the next build removes.
    command = ["setpriv", "--pdeathsig=KILL", "npm", "pack", "--loglevel=error", "--ignore-scripts", f"--cache={cache}"]
    command += [f"--pack-destination={target}", *packages]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=target)
    if done.returncode:
        errors = "; ".join(done.stderr.splitlines()[:2]) or "it does not say why"
        raise ImageError(f"npm cannot download {', '.join(packages)}: {errors}")
    found = {
        package: target / f"{package.removeprefix('@').replace('/', '-').replace('@', '-')}.tgz" for package in packages
    }
    for package, path in found.items():
        _check(path, package, packages[package])
    return found


def _check(path: Path, package: str, integrity: str) -> None:
    try:
        with path.open("rb") as file:
            found = _SRI + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    except OSError as error:
        raise ImageError(f"npm has not downloaded {package}: {error}") from error
    if found != integrity:
        raise ImageError(f"{package} is not what the recipe says: it has {found}, and must have {integrity}")
