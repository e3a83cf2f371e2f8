"""The index of images: which runtime has one, and under which digest.

Room: service. May: read `images_dir/<runtime>.json`, which root writes. May not: look into an image.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_INDEX_LIMIT = 65_536
_NAME = re.compile(r"[a-z][a-z0-9.]{0,31}\.json")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Image:
    """One runtime's image; `digest` in hex, `bytes` on disk, `built` as the image maker wrote it."""

    runtime: str
    digest: str
    bytes: int
    built: str


class Images:
    """What `images_dir` names. `refresh` reads it again.

    `runtimes` says of a runtime which other's image serves it.
    """

    def __init__(self, directory: Path, runtimes: Mapping[str, str]) -> None:
        self._directory, self.runtimes = directory, runtimes
        self._images: dict[str, Image] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the index again; a file that is not one is passed over."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            names = []
        images = [self._read(name) for name in names if _NAME.fullmatch(name)]
        self._images = {image.runtime: image for image in images if image is not None}

    def serving(self, runtime: str) -> str:
        """The runtime whose image serves a runtime: its own, or another."""
        return self.runtimes.get(runtime, runtime)

    def digest(self, runtime: str) -> str | None:
        """The digest of the image that serves a runtime, in hex, or None where there is none."""
        image = self._images.get(self.serving(runtime))
        return None if image is None else image.digest

    def all(self) -> list[Image]:
        """Every image, by runtime."""
        return list(self._images.values())

    def _read(self, name: str) -> Image | None:
        try:
            descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                entry: Any = json.loads(file.read(_INDEX_LIMIT))
            image = Image(entry["runtime"], entry["digest"], int(entry["bytes"]), str(entry["built"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        named = image.runtime == name.removesuffix(".json") and _DIGEST.fullmatch(str(image.digest))
        return image if named else None
