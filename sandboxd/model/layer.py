"""Layers: packages of their own that functions take along, merged at /opt.

Room: model. Source: https://docs.aws.amazon.com/lambda/latest/dg/chapter-layers.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

MAX_LAYERS = 5  # of one function


class Unzipped(NamedTuple):
    """What a package takes when it is unpacked: bytes, and files with directories."""

    size: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class AttachedLayer:
    """A layer's version as a function has it, for good: what becomes of the version itself does not change it.

    `digest` is the package's SHA-256 in hex, `code_size` its size in bytes.
    """

    arn: str
    digest: str
    code_size: int
    unzipped: Unzipped


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """One immutable version of a layer, and who else may use it. Members that AWS shows only where given may be None.

    `policy` is the policy document's JSON, empty where there is none.
    """

    layer: str
    version: int
    digest: str
    code_size: int
    unzipped: Unzipped
    created: str
    description: str = ""
    license_info: str | None = None
    runtimes: tuple[str, ...] | None = None
    architectures: tuple[str, ...] | None = None
    policy: str = ""
    policy_revision: str = ""
