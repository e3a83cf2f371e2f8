"""Packages of functions are the same bytes each time, so that what they are unpacked to can be reused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import packages


def test_every_function_can_be_read() -> None:
    assert {"hello", "thumbnail", "syntax_error"} <= set(packages.every())


@pytest.mark.parametrize("name", ["hello", "syntax_error"])
def test_the_same_twice(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packages.load(name).package.read_bytes()
    monkeypatch.setattr(packages, "PACKAGES", tmp_path)
    again = packages.load(name)
    assert again.package.parent == tmp_path
    assert again.package.read_bytes() == first
