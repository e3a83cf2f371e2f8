"""Traces: what is written is read; and what the scheduler is said to do with one is what it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.scheduler.keep_alive import GreedyDual, OldestFirst
from sandboxd.scheduler.simulate import Simulation
from sandboxd.scheduler.trace import TracedFunction, TraceError, generate, read

MB = 1 << 20


def function(name: str, *minutes: int, milliseconds: float = 1, memory: int = MB) -> TracedFunction:
    return TracedFunction(name, (milliseconds,) * 7, memory, tuple((minute, 1) for minute in minutes))


def run(
    functions: list[TracedFunction], keep_alive: float = 600, memory: int = 100 * MB, concurrency: int = 100
) -> Simulation:
    simulation = Simulation(OldestFirst(keep_alive), memory, concurrency, 0.2, 1)
    simulation.run(functions, lambda done, of: None)
    return simulation


def test_one_function_is_cold_once_and_again_after_its_keep_alive_time() -> None:
    outcome = run([function("f", 0, 2, 4, 30, 31)]).outcome
    assert (outcome.invocations, outcome.cold, outcome.rejected, outcome.evicted) == (5, 2, 0, 0)
    assert outcome.cold_share(50) == 2 / 5
    assert len(outcome.decisions) == 5 + 5 + 2 + 1  # arrivals, ends, two that got ready, one tick


def test_memory_evicts_and_is_never_exceeded_by_idle_ones() -> None:
    functions = [function(f"f{number}", 0, 1, 2, memory=10 * MB) for number in range(8)]
    outcome = run(functions, memory=35 * MB).outcome
    assert outcome.evicted > 0
    assert outcome.peak_memory <= 40 * MB  # one busy one beside three idle
    assert run(functions, memory=80 * MB).outcome.cold == 8


def test_concurrency() -> None:
    outcome = run([TracedFunction("f", (120_000,) * 7, MB, ((0, 10),))], concurrency=4).outcome
    assert (outcome.invocations, outcome.cold, outcome.rejected) == (10, 4, 6)


def test_a_generated_trace_has_the_published_skew(tmp_path: Path) -> None:
    generate(tmp_path, 4000, 60, 7, 60)
    functions = read(tmp_path)
    assert len(functions) == 4000
    counts = sorted((sum(count for _, count in one.counts) for one in functions), reverse=True)
    assert 0.70 < sum(count <= 60 for count in counts) / 4000 < 0.90  # 81 % at most once a minute
    assert sum(counts[:760]) / sum(counts) > 0.9  # few have nearly all
    memory = sorted(one.memory / MB for one in functions)
    assert 120 < memory[2000] < 220  # median 170 MB
    durations = sorted(one.duration(0.5) for one in functions)
    assert 0.4 < durations[2000] < 1.0  # half below a second
    generate(tmp_path / "again", 4000, 60, 7, 60)
    assert read(tmp_path / "again") == functions


def test_durations_between_percentiles() -> None:
    one = TracedFunction("f", (0, 10, 100, 200, 300, 1000, 2000), MB, ())
    assert [one.duration(share) for share in (0, 0.01, 0.5, 0.625, 0.99, 1)] == [0, 0.01, 0.2, 0.25, 1, 2]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("invocations_per_function_md.anon.d01.csv", None, "No such file"),
        (
            "invocations_per_function_md.anon.d01.csv",
            "a,b\n1,2\n",
            "lacks the columns HashApp, HashFunction, HashOwner",
        ),
        ("function_durations_percentiles.anon.d01.csv", "HashOwner,HashApp,HashFunction\n", "no function has"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    generate(tmp_path, 3, 5, 1, 60)
    (tmp_path / file).unlink() if text is None else (tmp_path / file).write_text(text)
    with pytest.raises(TraceError, match=message):
        read(tmp_path)


def test_greedy_dual_keeps_what_is_dear_to_start() -> None:
    """A small function used every minute, among large ones used once: it stays, where the oldest would go."""
    functions = [function("small", *range(60))]
    functions += [function(f"large{number}", number, memory=30 * MB) for number in range(60)]
    cold = {}
    for policy in (GreedyDual(3000), OldestFirst(3000)):
        simulation = Simulation(policy, 31 * MB, 100, 0.2, 1)
        simulation.run(functions, lambda done, of: None)
        cold[type(policy)] = simulation.outcome.of_function["small"][1]
    assert cold[GreedyDual] == 1
    assert cold[OldestFirst] >= 1


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandboxd", "simulate", str(tmp_path / "trace")]
    made = subprocess.run([*command, "--generate", "50", "--minutes", "10", "--output", "json"], capture_output=True)
    assert made.returncode == 0, made.stderr
    rows = json.loads(made.stdout)["Policies"]
    assert [row["Policy"] for row in rows] == ["greedy-dual", "oldest-first"]
    assert rows[0]["Invocations"] == rows[1]["Invocations"] > 0
    missing = subprocess.run([*command[:-1], str(tmp_path / "none")], capture_output=True, text=True)
    assert missing.returncode == 1
    assert "function_durations_percentiles.anon.d01.csv: No such file" in missing.stderr
