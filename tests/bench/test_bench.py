"""scripts/bench runs and says what it measured; how fast anything was is not judged here."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.bench import cold, peers, plot, warm
from tests.bench.figures import Row, Sheet, percentile
from tests.support.places import REPOSITORY, TIME_FACTOR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts daemons")


def test_a_short_run_measures_every_figure_of_its_parts() -> None:
    command = [str(REPOSITORY / "scripts/bench"), "--rounds", "2", "--only", "cold,warm", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300 * TIME_FACTOR, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a floor was missed, which says something of the machine
    report = json.loads(done.stdout)
    figures = {row["name"]: row for row in report["figures"]}
    ours = [cold.STEM, cold.EMPTY, cold.EGRESS, cold.NODE_STEM, cold.NODE_EMPTY, cold.NODE_EGRESS]
    ours += [warm.latency(kind, clients) for kind in warm.KINDS for clients in warm.CLIENTS]
    for name in ours:
        row = figures[name]
        assert 0 < row["p50"] <= row["p90"] <= row["p99"] and row["count"] >= 2 and row["cpu_ms"] > 0, row
        peer = figures[row["peer"]]
        assert row["ratio"] == pytest.approx(row["p50"] / peer["p50"], rel=0.01)
    for name in (peers.PYTHON, peers.NODE, peers.BWRAP, peers.BWRAP_IMPORTS):
        assert figures[name]["count"] == 2, figures[name]
    assert all(row["p50"] or row["note"] for row in figures.values())
    judged = {row["figure"]: row["met"] for row in report["targets"] if not row["floor"]}
    assert isinstance(judged[cold.STEM], bool) and judged["burst of 200 functions, each, p99"] is None


def test_percentiles_are_of_the_values_that_were_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.99) == 7


def test_a_plot_has_a_bar_for_each_figure_that_was_measured() -> None:
    sheet = Sheet(1)
    for name, value in (("Python, first invocation", 4.0), ("a <peer>", 400.0), (warm.latency("signed", 1), 0.5)):
        sheet.rows[name] = Row("warm" if name.startswith("warm") else "cold", name, values=[value])
    sheet.row("cold", "not there", note="not installed")
    drawn = plot.plot(sheet)
    assert drawn.count("<rect") == 3 and drawn.count('class="ours"') == 2
    assert "a &lt;peer&gt;" in drawn and "not there" not in drawn
