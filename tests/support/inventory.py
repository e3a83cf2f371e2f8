"""What the machine holds of the kernel's objects, so that a test can tell whether anything was left.

Mounts, links, rules, sets and files are read for the whole machine. Processes, and the namespaces that they hold, are
those that descend from this test run, which adopts its orphans (PR_SET_CHILD_SUBREAPER): other programs on the machine
come and go as they like. For the same reason rows that name a sandboxd instance which is not of this test run do not
count.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path

import prctl
import psutil

from tests.support.places import RUNS, TIME_FACTOR

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_NAMED = re.compile(r"(?:sandboxd|SANDBOXD|sbx)-([a-z0-9]{1,6})(?![a-z0-9])")
STARTED: set[str] = set()  # the instance names that this test run has used


def adopt_orphans() -> None:
    """Make this process the parent of every orphan among its descendants."""
    prctl.set_child_subreaper(True)


def reap_orphans() -> None:
    """Collect adopted children that have ended; those that a Popen object waits for are left to it."""
    waited_for = {popen.pid for popen in _popens()}
    for child in psutil.Process().children():
        try:
            if child.status() == psutil.STATUS_ZOMBIE and child.pid not in waited_for:
                os.waitpid(child.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue


def _popens() -> list[subprocess.Popen[bytes]]:
    import gc

    return [thing for thing in gc.get_objects() if isinstance(thing, subprocess.Popen) and thing.returncode is None]


@dataclass(frozen=True)
class Inventory:
    """Everything that could be left, each as a set of lines."""

    mounts: frozenset[str]
    processes: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    sets: frozenset[str]
    loops: frozenset[str]
    cgroups: frozenset[str]
    files: frozenset[str]

    @classmethod
    def take(cls) -> Inventory:
        """Look now."""
        processes = descendants()
        return cls(
            mounts=_ours(_mounts()),
            processes=frozenset(f"{process.pid} {_title(process)}" for process in processes),
            namespaces=frozenset(_namespaces(processes)),
            links=_ours(_links()),
            rules=_ours(_rules()),
            sets=_ours(_lines("ipset", "list", "-n")),
            loops=frozenset(_loops()),
            cgroups=_ours(_cgroups()),
            files=frozenset(_files()),
        )

    def more_than(self, before: Inventory) -> dict[str, list[str]]:
        """What is here and was not before, by kind; empty where nothing was left."""
        rows = {f.name: sorted(getattr(self, f.name) - getattr(before, f.name)) for f in fields(self)}
        return {kind: lines for kind, lines in rows.items() if lines}

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {f.name: len(getattr(self, f.name)) for f in fields(self)}

    def less_than(self, before: Inventory) -> dict[str, list[str]]:
        """What was here before and is gone."""
        return before.more_than(self)


def assert_nothing_left(before: Inventory, seconds: float = 10) -> None:
    """The machine holds no more and no less than before; what the kernel ends in the background gets some seconds."""
    deadline = time.monotonic() + seconds * TIME_FACTOR
    while True:
        now = Inventory.take()
        difference = now.more_than(before), now.less_than(before)
        if not any(difference) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert difference == ({}, {}), f"left behind, and gone: {difference}"


def descendants() -> list[psutil.Process]:
    """The processes below this test run, without what has ended and waits for its parent."""
    # The init of a pid namespace does not end before every process of it is collected, adopted ones by us.
    reap_orphans()
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.is_running() and _state(process) != psutil.STATUS_ZOMBIE]


def _state(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _namespaces(processes: list[psutil.Process]) -> set[str]:
    found = set()
    for pid in [os.getpid(), *(process.pid for process in processes)]:
        try:
            for kind in os.listdir(f"/proc/{pid}/ns"):
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            continue
    return found


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process are, in the order of their numbers."""
    directory = f"/proc/{pid}/fd"
    found = []
    for number in sorted(map(int, os.listdir(directory))):
        try:
            found.append(f"{number} {os.readlink(f'{directory}/{number}')}")
        except FileNotFoundError:
            continue
    return found


def _mounts() -> set[str]:
    """The mounts of this namespace but those of another test run's own directories."""
    runs, own = f" {RUNS}/", f" {RUNS / str(os.getpid())}/"
    with open("/proc/self/mountinfo") as table:
        return {line.rstrip("\n") for line in table if runs not in line or own in line}


def _lines(*command: str) -> set[str]:
    if shutil.which(command[0]) is None:
        return set()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(done.stdout.splitlines())


def _links() -> set[str]:
    return {re.sub(r"^\d+: ", "", line).split(":")[0] for line in _lines("ip", "-o", "link")}


def _rules() -> set[str]:
    """Rules and chains of our own making: counters and the order of loading tables do not matter."""
    found = set()
    for program in ("iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"):
        for line in _lines(program):
            chain = re.match(r":(\S+) -", line)
            if line.startswith("-A ") or chain:
                found.add(f"{program} {chain[0] if chain else line}")
    return found


def _loops() -> set[str]:
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = path.read_text().strip()
        except OSError:
            continue
        if backing.startswith(str(RUNS / str(os.getpid()))):
            found.add(f"{path.parts[3]} {backing}")
    return found


def _cgroups() -> set[str]:
    """Every directory of sandboxd's in every hierarchy, and those below."""
    found: set[str] = set()
    for directory, names, _ in os.walk(_CGROUP_ROOT):
        found |= {f"{directory}/{name}" for name in names if "/sandboxd-" in f"{directory}/{name}"}
    return found


def _ours(lines: set[str]) -> frozenset[str]:
    """Lines but those that name only instances which are not of this test run."""
    return frozenset(line for line in lines if not (names := set(_NAMED.findall(line))) or names & STARTED)


def _files() -> set[str]:
    """Files outside its own directories that an instance of this test run could leave, by its name."""
    places = ("/run", "/run/netns", "/dev/shm", "/tmp", "/var/tmp", "/var/lock")
    names = [path for place in places if os.path.isdir(place) for path in Path(place).iterdir()]
    return {str(path) for path in names if any(instance in path.name for instance in STARTED)}
