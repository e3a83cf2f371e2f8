"""Traces of invocations, in the columns of the Azure Functions trace of 2019; and one made with its published skew.

Room: command line, and tests. May: read and write trace files.

A trace is a directory with three CSV files (https://github.com/Azure/AzurePublicDataset, AzureFunctionsDataset2019.md):
how often each function was invoked in each minute, percentiles of its duration in milliseconds, percentiles of its
application's memory in MB.
"""

from __future__ import annotations

import csv
import itertools
import math
import random
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandboxd.errors import SandboxdError

_PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
_DURATION_COLUMNS = [f"percentile_Average_{percentile}" for percentile in _PERCENTILES]
_FUNCTION = ("HashOwner", "HashApp", "HashFunction")
_MEMORY_PERCENTILES = (1, 5, 25, 50, 75, 95, 99, 100)
_MINUTES_OF_A_DAY = 1440
_FILES = {
    "invocations": "invocations_per_function_md.anon.d01.csv",
    "durations": "function_durations_percentiles.anon.d01.csv",
    "memory": "app_memory_percentiles.anon.d01.csv",
}


class TraceError(SandboxdError):
    """A file that is not a trace's; names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class TracedFunction:
    """One function of a trace."""

    name: str
    durations: tuple[float, ...]  # milliseconds, at _PERCENTILES
    memory: int  # bytes of one environment
    counts: tuple[tuple[int, int], ...]  # (minute from 0, invocations), minutes without any left out

    def duration(self, share: float) -> float:
        """Seconds that so large a share (0 to 1) of the invocations stay below."""
        right = min(bisect(_PERCENTILES, share * 100), len(_PERCENTILES) - 1)
        low, high = _PERCENTILES[right - 1], _PERCENTILES[right]
        at = (share * 100 - low) / (high - low)
        return (self.durations[right - 1] * (1 - at) + self.durations[right] * at) / 1000


def read(directory: Path) -> list[TracedFunction]:
    """The functions of a trace; those without durations or memory are left out. Raises TraceError."""
    durations = {tuple(row[n] for n in _FUNCTION): row for row in _rows(directory, "durations")}
    memory = {(row["HashOwner"], row["HashApp"]): row for row in _rows(directory, "memory")}
    functions = []
    for row in _rows(directory, "invocations"):
        identity = tuple(row[name] for name in _FUNCTION)
        duration, app = durations.get(identity), memory.get((row["HashOwner"], row["HashApp"]))
        if duration is None or app is None:
            continue
        try:
            minutes = enumerate(itertools.takewhile(lambda text: text is not None, map(row.get, _minute_columns())))
            functions.append(
                TracedFunction(
                    "/".join(identity),
                    tuple(float(duration[column]) for column in _DURATION_COLUMNS),
                    int(float(app["AverageAllocatedMb"]) * (1 << 20)),
                    tuple((minute, int(count)) for minute, count in minutes if count and count != "0"),
                )
            )
        except (KeyError, ValueError) as error:
            raise TraceError(f"{directory / _FILES['invocations']}: function {identity[2]}: {error}") from None
    if not functions:
        raise TraceError(f"{directory}: no function has invocations, durations and memory")
    return functions


def _minute_columns() -> Iterator[str]:
    return map(str, range(1, _MINUTES_OF_A_DAY + 1))


def _rows(directory: Path, kind: str) -> Iterator[dict[str, str]]:
    path = directory / _FILES[kind]
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            wanted = _FUNCTION[: 2 if kind == "memory" else 3]
            if missing := set(wanted) - set(reader.fieldnames or ()):
                raise TraceError(f"{path}: lacks the columns {', '.join(sorted(missing))}")
            yield from reader
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None


def generate(directory: Path, functions: int, minutes: int, seed: int, busiest: float) -> None:
    """Write a trace of so many functions and minutes (up to a day) in which no function exceeds `busiest` a minute.

    The distributions are those that Serverless in the Wild (Shahrad et al., USENIX ATC '20, section 3) publishes: 45 %
    of the applications are invoked at most once an hour on average, 81 % at most once a minute; durations follow a
    log-normal of mean -0.38 and deviation 2.36 of the logarithm of seconds, memory a Burr XII of c 11.652, k 0.221
    and scale 107.083 MB. One function an application; arrivals of a minute are Poisson.
    """
    chance = random.Random(seed)  # noqa: S311  # a model, no secret
    directory.mkdir(parents=True, exist_ok=True)
    with (
        _writer(directory, "invocations", [*_FUNCTION, "Trigger", *map(str, range(1, minutes + 1))]) as invocations,
        _writer(
            directory, "durations", [*_FUNCTION, "Average", "Count", "Minimum", "Maximum", *_DURATION_COLUMNS]
        ) as durations,
        _writer(
            directory,
            "memory",
            [*_FUNCTION[:2], "SampleCount", "AverageAllocatedMb"]
            + [f"AverageAllocatedMb_pct{percentile}" for percentile in _MEMORY_PERCENTILES],
        ) as memory,
    ):
        for _ in range(functions):
            identity = [f"{chance.getrandbits(64):016x}" for _column in _FUNCTION]
            rate = min(_per_minute(chance.random()), busiest)
            counts = [_poisson(chance, rate) for _minute in range(minutes)]
            invocations.row([*identity, "http", *counts])
            average = min(math.exp(chance.gauss(-0.38, 2.36)), 900) * 1000
            spread = [average * factor for factor in (0.3, 0.4, 0.7, 0.9, 1.2, 2.5, 4.0)]
            durations.row(
                [*identity, *(f"{value:.3f}" for value in (average, sum(counts), spread[0], spread[-1], *spread))]
            )
            megabytes = min(_burr(chance.random()), 10_240)
            memory.row([*identity[:2], 1, *[f"{megabytes:.1f}"] * (1 + len(_MEMORY_PERCENTILES))])


def _per_minute(share: float) -> float:
    """Invocations a minute of the application at this share of all, by the paper's figure 5a: straight lines through
    its published points, on a logarithmic scale."""
    points = ((0.0, 1e-4), (0.45, 1 / 60), (0.81, 1.0), (0.95, 30.0), (0.99, 600.0), (1.0, 60_000.0))
    right = min(bisect([point[0] for point in points], share), len(points) - 1)
    (low, slow), (high, fast) = points[right - 1], points[right]
    return slow * math.pow(fast / slow, (share - low) / (high - low))


def _burr(share: float) -> float:
    """MB: the inverse of 1 - (1 + (x / scale)^c)^-k."""
    return 107.083 * math.pow(math.pow(1 - share, -1 / 0.221) - 1, 1 / 11.652)


def _poisson(chance: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        count += 1
    return count


class _writer:  # noqa: N801  # used as the function it looks like
    """A CSV file of these columns, written row by row."""

    def __init__(self, directory: Path, kind: str, columns: list[str]) -> None:
        self._file = (directory / _FILES[kind]).open("w", newline="")
        writer = csv.writer(self._file)
        self.row: Callable[[list[object]], object] = writer.writerow
        writer.writerow(columns)

    def __enter__(self) -> _writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
