"""Functions that many end-to-end tests may share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import packages
from tests.support.daemon import Daemon
from tests.support.network import World


@pytest.fixture(scope="session")
def shared_functions(_daemon: Daemon) -> dict[str, str]:
    """Functions without a state that a test could mind, deployed once: names by directory."""
    names = ("echo", "hello", "evaluate", "returns_6mb")
    return {name: _daemon.deploy(packages.load(name), f"shared-{name.replace('_', '-')}") for name in names}


@pytest.fixture(scope="module")
def world(machine: None) -> Iterator[World]:
    """A host, its neighbours and an outside in namespaces of a module's own."""
    made = World()
    yield made
    made.close()
