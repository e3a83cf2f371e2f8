"""`sandboxd simulate`.

Room: command line. May: read and write trace files. Talks to no daemon.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from sandboxd.cli.context import Context, host_output_option
from sandboxd.cli.output import show_json, show_table
from sandboxd.scheduler.keep_alive import POLICIES
from sandboxd.scheduler.simulate import Progress, Simulation
from sandboxd.scheduler.trace import generate, read

_COLUMNS = {
    "Policy": "POLICY",
    "Invocations": "INVOCATIONS",
    "ColdPercent": "COLD %",
    "ColdPercentOfFunctions": "COLD % OF FUNCTIONS P50 P75 P99",
    "Rejected": "REJECTED",
    "Evicted": "EVICTED",
    "MemoryMeanMB": "MEAN MB",
    "MemoryPeakMB": "PEAK MB",
    "DecisionMicroseconds": "DECISION us P50 P99",
}


@click.command(epilog="Example: sandboxd simulate trace.csv --generate 5000")
@click.argument("trace", type=click.Path(file_okay=False, path_type=Path))
@click.option("--policy", "policies", type=click.Choice(list(POLICIES)), multiple=True, help="Default: each of them.")
@click.option("--memory", type=click.IntRange(1), default=65_536, show_default=True, help="MB for all environments.")
@click.option("--keep-alive", type=click.FloatRange(0), default=2700, show_default=True, help="Seconds.")
@click.option("--concurrency", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--init", type=click.FloatRange(0), default=0.25, show_default=True, help="Seconds of a cold start.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of arrivals within a minute, and of --generate.")
@click.option("--generate", "functions", type=click.IntRange(1), help="First make TRACE, of so many functions.")
@click.option("--minutes", type=click.IntRange(1, 1440), default=120, show_default=True, help="Of --generate.")
@click.option("--busiest", type=click.FloatRange(0.001), default=60, show_default=True,
              help="Invocations a minute of --generate that no function exceeds.")  # fmt: skip
@host_output_option
@click.pass_obj
def simulate(
    context: Context,
    trace: Path,
    policies: tuple[str, ...],
    memory: int,
    keep_alive: float,
    concurrency: int,
    init: float,
    seed: int,
    functions: int | None,
    minutes: int,
    busiest: float,
) -> None:
    """Replay a trace through the scheduler, on a virtual clock, and compare policies of eviction.

    TRACE is a directory with files of the Azure Functions trace of 2019. Example:

      sandboxd simulate /tmp/trace --generate 50000
    """
    if functions is not None:
        generate(trace, functions, minutes, seed, busiest)
    traced = read(trace)
    rows = []
    for name in policies or POLICIES:
        simulation = Simulation(POLICIES[name](keep_alive), memory << 20, concurrency, init, seed)
        with _progress(name) as show:
            outcome = simulation.run(traced, show)
        rows.append(
            {
                "Policy": name,
                "Invocations": outcome.invocations,
                "ColdPercent": round(100 * outcome.cold / max(outcome.invocations, 1), 3),
                "ColdPercentOfFunctions": [round(100 * outcome.cold_share(p), 2) for p in (50, 75, 99)],
                "Rejected": outcome.rejected,
                "Evicted": outcome.evicted,
                "MemoryMeanMB": round(outcome.mean_memory / (1 << 20)),
                "MemoryPeakMB": round(outcome.peak_memory / (1 << 20)),
                "DecisionMicroseconds": [round(outcome.decision(p), 1) for p in (50, 99)],
            }
        )
    if context.output == "json":
        show_json({"Policies": rows})
    else:
        show_table(list(_COLUMNS), rows, list(_COLUMNS.values()))


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Progress]:
    """A line that grows on a terminal, minute by minute; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    yield lambda done, of: click.echo(f"\r{label}: minute {done} of {of}", nl=False, err=True)
    click.echo(err=True)
