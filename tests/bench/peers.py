"""What other tools take for the same: a fresh process, with a sandbox or without, over the tree of the same image.

All are started by one `subprocess.run`, which waits for their end. One that is not installed, or that does not run on
this machine, is a row that says so.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.clients import Load
from tests.bench.figures import Sheet, busy_ms
from tests.support.places import IMAGES

PASS = ("python3", "-I", "-S", "-c", "pass")
IMPORTS = ("python3", "-I", "-S", "-c", "import json, http.client")
PYTHON, PYTHON_IMPORTS = "python3 -I -S -c pass, no sandbox", "python3 with json and http.client, no sandbox"
NODE = "node -e 0, no sandbox"
BWRAP, BWRAP_IMPORTS = "bubblewrap, python3 -I -S -c pass", "bubblewrap, python3 with json and http.client"
_BWRAP = ("bwrap", "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev")
_NSJAIL = ("nsjail", "-Mo", "-Q", "--chroot")
_SECONDS = 60


@dataclass(frozen=True)
class Peer:
    """One other way to start a process. `command` is asked anew each time, as some need a new name."""

    name: str
    command: Callable[[], Sequence[str]]

    def time_of(self) -> float:
        """Milliseconds from its start to its end. Raises RuntimeError where it fails."""
        command = self.command()
        began = time.perf_counter_ns()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
        took = (time.perf_counter_ns() - began) / 1e6
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise RuntimeError(said[-1] if said else f"exit code {done.returncode}")
        return took


def tree(runtime: str) -> Path:
    """The root of a runtime's image."""
    entry = json.loads((IMAGES / "images" / f"{runtime}.json").read_text())
    return IMAGES / "images" / str(entry["digest"])


def bwrap(command: Sequence[str]) -> list[str]:
    """A command in all of bubblewrap's namespaces over Python's image."""
    return [*_BWRAP, "--ro-bind", str(tree("python3.13")), "/", *command]


@contextlib.contextmanager
def present(sheet: Sheet, scratch: Path) -> Iterator[list[Peer]]:
    """The peers that run here, each tried once; the others get their rows."""
    root, node = tree("python3.13"), tree("nodejs22.x") / "var/lang/bin/node"
    wanted = [
        Peer(PYTHON, lambda: ["chroot", str(root), *PASS]),  # the image's needs the image's libraries
        Peer(PYTHON_IMPORTS, lambda: ["chroot", str(root), *IMPORTS]),
        Peer(NODE, lambda: [str(node), "-e", "0"]),
        Peer(BWRAP, lambda: bwrap(PASS)),
        Peer(BWRAP_IMPORTS, lambda: bwrap(IMPORTS)),
        Peer("nsjail, python3 -I -S -c pass", lambda: [*_NSJAIL, str(root), "--", "/usr/bin/python3", *PASS[1:]]),
        *(Peer(f"{tool}, python3 -I -S -c pass", _runner(tool, scratch / tool, root)) for tool in ("crun", "runc")),
    ]  # fmt: skip
    running = [peer for peer in wanted if _runs(peer, sheet)]
    with _docker(sheet, root) as docker:
        yield running + [peer for peer in docker if _runs(peer, sheet)]


def _runs(peer: Peer, sheet: Sheet) -> bool:
    row = sheet.row("cold", peer.name)
    if shutil.which(peer.command()[0]) is None:
        row.note = "not installed"
        return False
    try:
        peer.time_of()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        row.note = f"does not run here: {error}"
        return False
    return True


def _runner(tool: str, bundle: Path, root: Path) -> Callable[[], Sequence[str]]:
    """An OCI runtime with its own default specification, but for tree, command and terminal."""

    def command() -> Sequence[str]:
        if not bundle.exists() and shutil.which(tool):
            bundle.mkdir()
            subprocess.run([tool, "spec", "--bundle", str(bundle)], cwd=bundle, check=True)
            spec = json.loads((bundle / "config.json").read_text())
            spec["root"] = {"path": str(root), "readonly": True}
            spec["process"] |= {"terminal": False, "args": [*PASS]}
            # Where a mount has no directory the runtime makes one, in the image that others use too.
            spec["mounts"] = [m for m in spec["mounts"] if (root / Path(m["destination"]).parts[1]).is_dir()]
            (bundle / "config.json").write_text(json.dumps(spec))
        return [tool, "run", "--bundle", str(bundle), f"bench-{uuid.uuid4()}"]

    return command


@contextlib.contextmanager
def _docker(sheet: Sheet, root: Path) -> Iterator[list[Peer]]:
    """`docker run` with an image of the same tree, where a daemon answers; the image goes afterwards."""
    name, image = "docker run, python3 -I -S -c pass", f"sandboxd-bench-{uuid.uuid4()}"
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        there = subprocess.run(asked, capture_output=True, timeout=_SECONDS, check=False).returncode == 0
    except FileNotFoundError:
        sheet.row("cold", name, note="not installed")
        yield []
        return
    if not there:
        sheet.row("cold", name, note="its daemon does not answer")
        yield []
        return
    packed = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["docker", "import", "-", image], stdin=packed.stdout, stdout=subprocess.DEVNULL, check=True)
    packed.wait()
    try:
        yield [Peer(name, lambda: ["docker", "run", "--rm", "--network=none", "--read-only", image, *PASS])]
    finally:
        subprocess.run(["docker", "image", "rm", image], stdout=subprocess.DEVNULL, check=True)


def at_once(peer: Peer, clients: int, seconds: float) -> Load:
    """So many of a peer at one time, one after the other for so long."""
    load, end = Load(), time.monotonic() + seconds
    failed: list[Exception] = []

    def work() -> None:
        try:
            while time.monotonic() < end:
                load.times.append(peer.time_of())
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began, busy = time.perf_counter(), busy_ms()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds, load.cpu_ms = time.perf_counter() - began, busy_ms() - busy
    if failed:
        raise failed[0]
    return load
