from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import images

of_python = pytest.mark.parametrize("runtime", images.PYTHONS, indirect=True, scope="session")


@pytest.fixture(scope="session", params=images.RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def tree(runtime: str) -> Path:
    """The root of a real image, built once on this machine."""
    directory = images.built()
    return directory / str(json.loads((directory / f"{runtime}.json").read_text())["digest"])
