"""What /proc says of an environment is what its readers parse: here psutil, pointed at our files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sandboxd.builder import facts


@pytest.fixture
def proc(tmp_path: Path) -> Iterator[Path]:
    """A /proc of our files, and psutil's for the test."""
    ordinary, psutil.PROCFS_PATH = psutil.PROCFS_PATH, str(tmp_path)
    (tmp_path / "meminfo").write_text(facts.memory(512))
    (tmp_path / "stat").write_text(facts.idle_processors() + facts.booted_now())
    (tmp_path / "cpuinfo").write_text(facts.processors())
    (tmp_path / "loadavg").write_text(facts.LOAD)
    yield tmp_path
    psutil.PROCFS_PATH = ordinary


def test_memory_is_the_limit_and_free(proc: Path) -> None:
    seen = psutil.virtual_memory()
    assert seen.total == seen.available == seen.free == 512 << 20
    assert seen.used == 0


def test_no_field_of_memory_is_missing(proc: Path) -> None:
    """Without one of them psutil warns, and warnings are errors here."""
    names = {line.partition(":")[0] for line in (proc / "meminfo").read_text().splitlines()}
    assert names >= {"Buffers", "Cached", "Shmem", "Active", "Inactive", "Slab", "SReclaimable", "SwapTotal"}


def test_processors_are_those_that_there_are_and_idle(proc: Path) -> None:
    assert len(psutil.cpu_times(percpu=True)) == os.cpu_count()
    assert sum(psutil.cpu_times()) == 0
    assert psutil.cpu_stats().ctx_switches == 0


def test_the_machine_boots_now(proc: Path) -> None:
    assert abs(psutil.boot_time() - time.time()) < 5


def test_what_a_new_network_namespace_has_is_not_taken_from_the_hosts() -> None:
    files = facts.sys_files("somewhere")
    assert files["net/core/somaxconn"] == "4096\n"
    assert files["kernel/hostname"] == "somewhere\n"
    assert files["kernel/osrelease"].strip() == os.uname().release
