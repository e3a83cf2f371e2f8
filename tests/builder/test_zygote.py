"""Zygotes: what they are to the kernel, what their children share and do not, and what happens when one is no good."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from sandboxd.builder import zygote
from sandboxd.builder.zygotes import Zygotes, _Held
from tests.support import packages
from tests.support.daemon import FUNCTIONS, Daemon
from tests.support.patched import launcher
from tests.support.places import TIME_FACTOR

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts a daemon")
_SECONDS = 30 * TIME_FACTOR
IS_CHILD = "result = 'Seccomp_filters:\\t2' in open('/proc/self/status').read()"
CHANCE = """
import hashlib, os, random, ssl, uuid
result = [os.getpid(), random.random(), ssl.RAND_bytes(8).hex(), str(uuid.uuid4()), os.urandom(8).hex(), hash("word")]
"""
ANOTHER = """
import time
def also(child, start=init.start_here):
    os.fork() or (init.linux.close_from(0), time.sleep(1000))
    start(child)
init.start_here = also
"""


@pytest.fixture(scope="module")
def daemon(machine: None) -> Iterator[Daemon]:
    with Daemon() as own:
        own.deploy(packages.load("evaluate"), "first")
        yield own


def zygotes(daemon: Daemon) -> list[psutil.Process]:
    """What the mappers of a daemon forked."""
    return [one for one in daemon.room("builder").children(recursive=True) if _is_zygote(one)]


def _is_zygote(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        name, parent = Path(f"/proc/{process.pid}/comm").read_text().strip(), process.parent()
        return name == "zygote" and parent is not None and "mapper" in " ".join(parent.cmdline())
    return False


def the_zygote(daemon: Daemon) -> psutil.Process:
    found: list[psutil.Process] = []
    eventually(lambda: found.extend(zygotes(daemon)) or found)
    return found[-1]


def eventually(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def child(daemon: Daemon, name: str) -> str:
    """A function whose environment is a zygote's child; stems are made again a moment after each use."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        daemon.deploy(packages.load("evaluate"), name)
        if daemon.call(name, {"code": IS_CHILD}):
            return name
        assert daemon.request("DELETE", f"{FUNCTIONS}/{name}").status == 204
        time.sleep(0.3)
    raise AssertionError("no environment came from a zygote")


def status(process: psutil.Process) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_a_zygote_has_no_privilege(daemon: Daemon) -> None:
    child(daemon, "born")
    process, builder = the_zygote(daemon), daemon.room("builder")
    said = status(process)
    assert {said[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (said["NoNewPrivs"], said["Seccomp"], said["Groups"], said["Threads"]) == ("1", "2", "", "1")
    assert min(map(int, said["Uid"].split())) >= 1 << 30
    for kind in ("user", "mnt", "net", "ipc", "uts", "cgroup"):
        assert os.stat(f"/proc/{process.pid}/ns/{kind}").st_ino != os.stat(f"/proc/{builder.pid}/ns/{kind}").st_ino
    mounts = {line.split()[4] for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()}
    assert mounts == {"/", "/proc", "/dev", "/mnt"}
    assert not os.listdir(f"/proc/{process.pid}/root/mnt/r"), "no sandbox is put together in its own tree"


def test_what_it_holds(daemon: Daemon) -> None:
    process = the_zygote(daemon)
    eventually(lambda: sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2", "3"])  # not while it forks
    held = {os.readlink(f"/proc/{process.pid}/fd/{number}").partition(":")[0] for number in range(4)}
    assert held == {"/dev/null", "socket"}
    environ = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"FUNCTION" not in environ and b"KEY" not in environ and b"_HANDLER" not in environ


def test_children_of_one_zygote_do_not_share_chance(daemon: Daemon) -> None:
    rows = [daemon.call(child(daemon, f"chance-{number}"), {"code": CHANCE}) for number in range(3)]
    pids, *others, seeds = zip(*rows, strict=True)
    assert len(set(pids)) == 1, "or OpenSSL would see by the pid that it was forked"
    assert all(len(set(values)) == 3 for values in others), rows
    assert len(set(seeds)) == 1, "the seed of hashes cannot be renewed: zygotes are"


def test_a_zygote_is_renewed_after_so_many_children(machine: None) -> None:
    own = Daemon()
    own.launcher = launcher("tests.builder.test_zygote:few_children")
    with own:
        child(own, "first")
        old = the_zygote(own)
        for number in range(6):
            own.deploy(packages.load("evaluate"), f"more-{number}")
            assert own.call(f"more-{number}", {"code": "result = 1"}) == 1
            time.sleep(0.3)
        eventually(lambda: not old.is_running())
        assert the_zygote(own) != old
        assert own.call("first", {"code": IS_CHILD}), "what it bore lives on"


def test_it_is_not_renewed_while_somebody_waits_for_its_child() -> None:
    kind = bytes(32), 0
    renewed = Zygotes(None, [], str, print, print)  # type: ignore[arg-type]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        old = zygote.Zygote(ours, theirs, unborn={ours: time.monotonic()})
        renewed._held[kind] = _Held(old, None, until=0.0)  # type: ignore[arg-type]
        assert not renewed.wants(kind)
        old.unborn.clear()
        assert renewed.wants(kind)


def test_a_crowd_of_children_comes_one_by_one_where_its_group_has_no_room(machine: None) -> None:
    own = Daemon()
    own.launcher = launcher("tests.builder.test_zygote:room_for_one")
    with own:
        name = child(own, "first")
        old = the_zygote(own)
        with ThreadPoolExecutor(8) as pool:
            crowd = pool.map(lambda _: own.call(name, {"code": f"import time; time.sleep(1); {IS_CHILD}"}), range(8))
            assert all(crowd), own.log()
        assert old.is_running() and "ended" not in own.log()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("keep_capabilities", "CapBnd of its child is"),
        ("keep_filter", "Seccomp_filters of its child is 1"),
        ("keep_another", "its child keeps another process"),
        ("keep_thread", "CapBnd of its child is"),
        ("keep_maker", "its child keeps another process"),
        ("let_in_another", "ended: ('zygote', 1)"),
        ("keep_ids", "ended: ('last user namespace', 1)"),
        ("keep_network", "the net namespace of its child is not its own"),
        ("say_two_doors", "ended: ('runtime door', 1)"),
        ("lie", "ended: ('child', 0)"),
        ("hang", "a zygote's child did not come"),
        ("end", "ended: ('child', 0)"),
    ],
)
def test_a_zygote_that_is_no_good_is_done_without(machine: None, change: str, said: str) -> None:
    own = Daemon()
    own.launcher = launcher("tests.builder.test_zygote:bad_ladder", change)
    with own:
        assert not own.call(own.deploy(packages.load("evaluate"), "served"), {"code": IS_CHILD})
        eventually(lambda: said in own.log())
        builder = own.room("builder")
        assert Path(f"/proc/{builder.pid}/cgroup").read_text() == Path(f"/proc/{builder.ppid()}/cgroup").read_text()
        other = own.deploy(packages.load("evaluate"), "served-too")
        assert not own.call(other, {"code": IS_CHILD})


# In the builder, before it begins.


def few_children(room: str, _: str) -> None:
    if room.startswith("sandboxd.builder."):
        from sandboxd.builder import zygotes

        zygotes.CHILDREN = 4


def room_for_one(room: str, _: str) -> None:
    if room.startswith("sandboxd.builder."):
        zygote.PIDS = 3  # mapper, zygote and a child


def bad_ladder(room: str, change: str) -> None:
    """A zygote whose image does other than it is told: here, by other code of the builder's."""
    if not room.startswith("sandboxd.builder."):
        return
    code = {
        "keep_capabilities": "init.DROP[:] = [step for step in init.DROP if step[0] != 'capabilities']",
        "keep_filter": "init.DROP[:] = [step for step in init.DROP if step[0] != 'seccomp']",
        "keep_ids": "init.namespaces.become_in_child = lambda identity: None",
        "keep_another": ANOTHER,
        "keep_thread": "import _thread, time; init.DROP.insert(4, ('thread', lambda _:"
        " _thread.start_new_thread(time.sleep, (1000,))))",  # of which it gives up nothing
        "keep_maker": "import time; os._exit = lambda _: (init.linux.close_from(0), time.sleep(1000))",
        "let_in_another": "init.FIRST.append(('again', lambda maker: maker.channel.send(\n"
        "    init.RECORD.pack(init.Said.IN_NAMESPACES, os.getpid(), 0, b''))))",
        "keep_network": "init.namespaces.FIRST_NAMESPACES &= ~init.linux.CLONE_NEWNET; "
        "init.AHEAD[:] = [step for step in init.AHEAD if step[0] != 'loopback']",
        "say_two_doors": "init.AHEAD.append(init.AHEAD[-1]); init.RUNTIME_API_PORT = 0",
        "lie": "os.getpid = lambda: 1",  # as which the builder stands in its pid namespace
        "hang": "import time; init.run_maker = lambda *_: time.sleep(1000)",
        "end": "os._exit(1)",
    }[change]
    original: Callable[[], bytes] = zygote._ladder
    zygote._LATE_SECONDS = 1.0

    def changed() -> bytes:
        import io
        import zipfile

        given, packed = zipfile.ZipFile(io.BytesIO(original())), io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in given.namelist():
                more = f"\n{code}\n" if name.endswith("zygote_main.py") else ""
                archive.writestr(name, given.read(name).decode() + more)
        return packed.getvalue()

    zygote._ladder = changed
