"""Certificates of one's own, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(directory: Path, name: str = "localhost") -> tuple[Path, Path]:
    """The files of a certificate for a host name, which is its own authority, and of its key."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
        f"-subj /CN={name} -addext subjectAltName=DNS:{name} -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True, timeout=60)
    return certificate, key
