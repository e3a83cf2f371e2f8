"""No attack gets through, on any road to an environment; and each would, where no sandbox stands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import prctl
import pytest

from tests.escape.expected import EXPECTED, GROUPS, UNSHOWN
from tests.support import images, packages
from tests.support.attacks import Attacker, Canaries, Verdict, facts, judged, with_neighbour
from tests.support.network import NetworkedDaemon, World
from tests.support.places import FUNCTIONS, REPOSITORY, RUNS, TIME_FACTOR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts a daemon")

# How the attacker comes into being: a stem that is bound, boot and bind in one, a stem that gets a link.
ROADS = ("stem", "boot", "egress")
Verdicts = dict[str, Verdict]
ABSENT = ("ENOSYS", "ENOENT")  # outcomes of what a kernel lacks
# The root of some hosts is not allowed to fix a floor for what the out-of-memory killer thinks of a process.
NO_FLOOR = not prctl.cap_effective.sys_resource


@pytest.fixture(scope="module")
def roads(machine: None) -> Iterator[dict[str, Verdicts]]:
    """Every verdict, by road and name."""
    world = World()
    with NetworkedDaemon(world) as daemon, Canaries(daemon.base / "canary") as canaries:
        words = [str(daemon.data_dir), str(daemon.run_dir), daemon.instance]
        host = with_neighbour(daemon, facts(canaries, daemon.data_dir / "images", words))
        yield {
            "stem": _all(Attacker(daemon, _bound_to_a_stem(daemon), host)),
            "boot": _all(Attacker(daemon, _booted(daemon), host)),
            "egress": _all(Attacker(daemon, _bound_to_a_stem(daemon, "0.0.0.0/0:1-65535"), host)),
        }
        assert "Traceback" not in daemon.log(), daemon.log()
    world.close()


def _all(attacker: Attacker) -> Verdicts:
    return {name: verdict for group in GROUPS for name, verdict in attacker.try_group(group).items()}


def _bound_to_a_stem(daemon: NetworkedDaemon, *rules: str) -> str:
    for number in range(20):
        name = daemon.deploy(packages.load("attacker"), f"stem-{len(rules)}-{number}")
        daemon.permit(name, *rules)
        if not daemon.call(name, {"road": True}):
            return name
        time.sleep(0.3 * TIME_FACTOR)  # they are made again a moment after each use
    raise AssertionError("no environment came from a stem")


def _booted(daemon: NetworkedDaemon) -> str:
    name = daemon.deploy(packages.load("attacker"), "booted", Environment={"Variables": {"PYTHONNOTHING": "1"}})
    assert daemon.call(name, {"road": True})
    return name


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("name", EXPECTED)
def test_closed(roads: dict[str, Verdicts], tried: dict[str, bool], road: str, name: str) -> None:
    if name == "badness_lowered" and NO_FLOOR:
        pytest.skip("root of this host lacks CAP_SYS_RESOURCE")
    verdict = roads[road][name]
    tried[name] = tried.get(name, False) or verdict.open
    assert not verdict.open, f"{verdict.outcome}, not {EXPECTED[name]}"


@pytest.mark.parametrize("road", ROADS)
def test_every_attack_was_tried(roads: dict[str, Verdicts], road: str) -> None:
    assert set(roads[road]) == set(EXPECTED)


@pytest.fixture(scope="module")
def bare(machine: None) -> Verdicts:
    """Every verdict where no sandbox stands."""
    entry = json.loads((images.built() / "python3.13.json").read_text())
    scratch = RUNS / str(os.getpid()) / "bare"
    scratch.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.escape.bare", images.built() / entry["digest"], FUNCTIONS / "attacker", scratch],
        stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, timeout=60 * TIME_FACTOR, check=True,
    )  # fmt: skip
    assert not any(scratch.iterdir())
    shutil.rmtree(scratch)
    return {name: judged(name, outcome) for name, outcome in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in UNSHOWN])
def test_gets_through_where_no_sandbox_stands(bare: Verdicts, name: str) -> None:
    if name not in bare and Path("/proc/modules").exists():
        pytest.skip("asking for a protocol would load a module into this kernel")
    if bare[name].outcome in ABSENT and not bare[name].open:
        pytest.skip("this kernel has no such call or file")
    if bare[name].outcome == "nothing" and name.startswith(("read_", "list_")):
        pytest.skip("this kernel has the file, and nothing in it")
    assert bare[name].open, bare[name].outcome
