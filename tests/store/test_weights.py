"""Weights of aliases: held exactly by every hundred, and within a hundred by chance, which chi-square tests judge.

Critical values are chi-square's at p = 0.001 (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4); the draws
are the same with every run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest

from sandboxd.model.function import Alias
from sandboxd.store.aliases import Aliases
from sandboxd.store.database import Database

DECKS, CARDS = 2_000, 100
CRITICAL = {1: 10.828, 3: 16.266, 99: 148.230}  # by degrees of freedom

Hundred = Sequence[bool]


@pytest.fixture(autouse=True)
def _the_same_chance() -> Iterator[None]:
    before = random.getstate()
    random.seed(20231115)
    yield
    random.setstate(before)


def drawn(directory: Path, weight: float) -> list[list[bool]]:
    """Hundreds of draws of an alias: whether each got the second version."""
    database = Database(directory / "weights.db")
    aliases = Aliases(database)
    database.close()
    aliases._show(Alias("f", "live", "1", "", "", "2", weight))
    return [[aliases.draw("f", "live") == "2" for _ in range(CARDS)] for _ in range(DECKS)]


def positions(hundreds: Sequence[Hundred], weight: float) -> float:
    """Whether the second version is as likely at each place of a hundred: chi-square with 99 degrees of freedom.

    Each hundred has the same number of them, so that of two places the counts' covariance is -1/99 of their variance.
    """
    expected = len(hundreds) * weight
    variance = expected * (1 - weight) * CARDS / (CARDS - 1)
    return sum((sum(hundred[place] for hundred in hundreds) - expected) ** 2 for place in range(CARDS)) / variance


def pairs(hundreds: Sequence[Hundred], weight: float) -> float:
    """Whether a draw says nothing of the next, of each hundred's first two: 3 degrees of freedom."""
    seconds = round(CARDS * weight)
    sides = {True: seconds, False: CARDS - seconds}
    statistic = 0.0
    for first, second in product((True, False), repeat=2):
        share = sides[first] / CARDS * (sides[second] - (first == second)) / (CARDS - 1)
        expected = share * len(hundreds)
        statistic += (
            sum((hundred[0], hundred[1]) == (first, second) for hundred in hundreds) - expected
        ) ** 2 / expected
    return statistic


def rhythm(hundreds: Sequence[Hundred], weight: float, every: int) -> float:
    """Whether a caller that makes every so manieth invocation gets its share: 1 degree of freedom."""
    mine = len(range(0, CARDS, every))
    expected = len(hundreds) * mine * weight
    variance = expected * (1 - weight) * (CARDS - mine) / (CARDS - 1)
    return (sum(sum(hundred[::every]) for hundred in hundreds) - expected) ** 2 / variance


@pytest.mark.parametrize("weight", [0.05, 0.25, 0.5, 0.9])
def test_weights_are_held_exactly_and_otherwise_by_chance(tmp_path: Path, weight: float) -> None:
    hundreds = drawn(tmp_path, weight)
    assert {sum(hundred) for hundred in hundreds} == {round(CARDS * weight)}
    assert positions(hundreds, weight) < CRITICAL[99]
    assert pairs(hundreds, weight) < CRITICAL[3]
    for every in (2, 3, 10):
        assert rhythm(hundreds, weight, every) < CRITICAL[1]


def test_parts_of_a_hundredth_are_held_over_several_hundreds(tmp_path: Path) -> None:
    hundreds = drawn(tmp_path, 0.125)
    sums = [sum(hundred) for hundred in hundreds]
    assert set(sums) == {12, 13}
    assert all(sum(sums[begin : begin + 2]) == 25 for begin in range(0, DECKS, 2))


def test_what_is_not_by_chance_is_seen() -> None:
    """The tests' own test: hundreds that are in order, that alternate, and that are a little askew."""
    ordered = [[place < 25 for place in range(CARDS)]] * DECKS
    alternating = [[place % 4 == number % 4 for place in range(CARDS)] for number in range(DECKS)]
    askew = [random.sample([True] * 15 + [False] * 35, 50) + random.sample([True] * 10 + [False] * 40, 50)] * DECKS
    assert positions(ordered, 0.25) > CRITICAL[99]
    assert pairs(alternating, 0.25) > CRITICAL[3]
    assert rhythm([hundred[::2] + hundred[1::2] for hundred in ordered], 0.25, 2) > CRITICAL[1]
    assert positions(askew, 0.25) > CRITICAL[99]
