"""scripts/bench: every figure of speed and density beside its peers, in one run, as table, JSON and plot."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import burst, cold, creation, memory, start, warm
from tests.bench.figures import Sheet, progress
from tests.bench.plot import plot
from tests.bench.report import tables
from tests.bench.targets import targets
from tests.support import images
from tests.support.places import RUNS

Part = Callable[[Sheet, Path], None]
_USAGE = """Each part starts daemons of its own; ours and the peers take turns. CPU is what the whole machine spent for
one call, with its client and what runs behind the answer, so nothing else should run meanwhile. The exit code is 0
when everything was measured, 1 if one of the two floors is missed (targets that are missed are only shown), 2 if
something answered wrongly or not at all."""


def main() -> int:
    """Measure what is asked for, and print it."""
    parts: dict[str, Part] = {
        "cold": cold.measure,
        "burst": burst.measure,
        "create": creation.measure,
        "warm": warm.measure,
        "idle": lambda sheet, scratch: memory.measure_idle(sheet, scratch, arguments.environments),
        "rooms": memory.measure_rooms,
        "start": start.measure,
    }
    arguments = _arguments(list(parts))
    sheet = Sheet(arguments.rounds)
    progress("images")
    images.built()
    with tempfile.TemporaryDirectory(prefix="sandboxd-bench-") as scratch:
        try:
            for name in arguments.only:
                parts[name](sheet, Path(scratch))
        except RuntimeError as error:
            print(f"scripts/bench: {error}", file=sys.stderr)
            return 2
        finally:
            shutil.rmtree(RUNS / str(os.getpid()), ignore_errors=True)
    figures, judged = sheet.described(), [one.described(sheet) for one in targets(arguments.environments)]
    if arguments.output == "json":
        print(json.dumps({"rounds": arguments.rounds, "figures": figures, "targets": judged}, indent=2))
    else:
        print(tables(figures, judged))
    if arguments.plot:
        arguments.plot.write_text(plot(sheet))
    return int(any(one["floor"] and one["met"] is False for one in judged))


def _arguments(names: list[str]) -> argparse.Namespace:
    def chosen(text: str) -> list[str]:
        wanted = text.split(",")
        if unknown := set(wanted) - set(names):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(names)}")
        return [name for name in names if name in wanted]

    def count(text: str) -> int:
        if not 0 < int(text) <= 1000:
            raise argparse.ArgumentTypeError("1 to 1000")
        return int(text)

    parser = argparse.ArgumentParser("scripts/bench", description=__doc__, epilog=_USAGE)
    parser.add_argument("--rounds", type=count, default=30, metavar="N", help="of first invocations; the rest follows")
    parser.add_argument("--only", type=chosen, default=names, metavar="NAME,...", help=f"of {', '.join(names)}")
    parser.add_argument("--environments", type=count, default=100, metavar="N", help="idle ones (1000 take 6 GB)")
    parser.add_argument("--output", choices=["table", "json"], default="table")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw the medians")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
