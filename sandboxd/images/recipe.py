"""Recipes: what goes into each runtime's image, as `rootfs/` declares it.

Room: image maker. May: read the recipes, which ship with sandboxd and are trusted.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxd.errors import SandboxdError

# Part of every recipe's digest: raised whenever the maker makes something else of the same recipe.
MAKER_VERSION = 2

_KEYS = {"suite", "python", "packages", "requirements", "prune", "max_mb", "modes", "tools", "npm"}
_KEYS |= {"npm_x86_64", "npm_aarch64"}


class ImageError(SandboxdError):
    """An image that cannot be made, read or removed; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One runtime's image. `max_mb` in mebibytes; `prune` are shell patterns and `modes` keys, both below the image's
    root; `npm` has the SRI of each package (`name@version`) of the npm registry; `tools` are Debian packages of a tree
    beside the image, there while it is made; `digest` changes with everything that the image is made from, Debian's and
    PyPI's own changes excepted."""

    runtime: str
    suite: str
    python: str  # the interpreter's version, where there is one
    packages: tuple[str, ...]
    requirements: tuple[str, ...]
    npm: dict[str, str]
    tools: tuple[str, ...]
    prune: tuple[str, ...]
    max_mb: int
    modes: dict[str, int]
    directory: Path
    digest: str


def recipes_directory() -> Path:
    """Where the recipes are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_rootfs"
    return installed if installed.is_dir() else package.parent / "rootfs"


def known_runtimes(directory: Path | None = None) -> list[str]:
    """Every runtime that has a recipe, sorted."""
    place = directory or recipes_directory()
    return sorted(path.stem for path in place.glob("*.toml") if path.stem != "base")


def load_recipe(runtime: str, directory: Path | None = None) -> Recipe:
    """The recipe of a runtime, what all have in common included; raises ImageError where it is unknown or wrong."""
    place = directory or recipes_directory()
    known = known_runtimes(place)
    if runtime not in known:
        raise ImageError(f"unknown runtime {runtime!r}; known: {', '.join(known) or 'none'}")
    base, own = _table(place / "base.toml"), _table(place / f"{runtime}.toml")
    try:
        return Recipe(
            runtime=runtime,
            suite=own["suite"],
            python=own["python"] if language_of(runtime) == "python" else "",
            packages=(*base["packages"], *own["packages"]),
            requirements=tuple(own.get("requirements", ())),
            npm={**own.get("npm", {}), **own.get(f"npm_{os.uname().machine}", {})},
            tools=tuple(own.get("tools", ())),
            prune=(*base["prune"], *own.get("prune", ())),
            max_mb=own.get("max_mb", base["max_mb"]),
            modes={**base["modes"], **own.get("modes", {})},
            directory=place,
            digest=_digest(place, runtime),
        )
    except KeyError as error:
        raise ImageError(f"{place}/{runtime}.toml: {error.args[0]} is missing") from None


def _table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: {error}") from error
    for key in table:
        if key not in _KEYS:
            raise ImageError(f"{path}: {key} is not a key of a recipe; allowed: {', '.join(sorted(_KEYS))}")
    return table


def _digest(directory: Path, runtime: str) -> str:
    total = hashlib.sha256(f"{MAKER_VERSION} {os.uname().machine}\n".encode())
    recipes = {"base.toml": directory / "base.toml", f"{runtime}.toml": directory / f"{runtime}.toml"}
    for name, path in sorted((recipes | ingredients(directory, runtime)).items()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{name} {content}\n".encode())
    return total.hexdigest()


def language_of(runtime: str) -> str:
    """The directory of the guest side: `python` of python3.13, `provided` of provided.al2023."""
    return re.split("[^a-z]", runtime, maxsplit=1)[0]


def ingredients(directory: Path, runtime: str) -> dict[str, Path]:
    """The files that an image is made with, besides recipes, by what the tailor calls them: etc/, guest/, itself."""
    places = {"etc": directory / "etc", "guest": directory / language_of(runtime)}
    found = {"tailor": directory / "tailor"}
    for name, place in places.items():
        files = (path for path in place.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        found |= {f"{name}/{path.relative_to(place)}": path for path in files}
    return found
