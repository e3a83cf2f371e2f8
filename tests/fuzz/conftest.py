"""How many cases, and which: the same ones with every run, others with every soak."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

Body = Callable[..., None]
Fuzz = Callable[..., None]
_STANDARD = 2_000


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> int:
    """How many cases each fuzz test tries (--fuzz-cases)."""
    return int(request.config.getoption("--fuzz-cases") or _STANDARD)


@pytest.fixture
def fuzz(cases: int) -> Fuzz:
    """`fuzz(body, strategies…)` calls the body with so many cases; a failure names the seed and the smallest case."""

    def run(body: Body, *strategies: SearchStrategy[Any], share: float = 1.0, shrink: bool = True) -> None:
        with_seed(settled(given(*strategies)(body), max(1, int(cases * share)), shrink=shrink), cases)()

    return run


def settled(test: Any, count: int, *, shrink: bool = True) -> Any:
    """The settings of every fuzz test."""
    phases = (Phase.explicit, Phase.generate, *((Phase.shrink,) if shrink else ()))
    return settings(
        max_examples=count, database=None, deadline=None, derandomize=count <= _STANDARD, print_blob=True,
        phases=phases, suppress_health_check=list(HealthCheck), verbosity=Verbosity.normal,
    )(test)  # fmt: skip


def with_seed(test: Any, count: int) -> Any:
    """A soak's cases differ from run to run; FUZZ_SEED brings those of one back."""
    if count <= _STANDARD:
        return test
    number = int(os.environ.get("FUZZ_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
    print(f"FUZZ_SEED={number}")
    return seed(number)(test)
