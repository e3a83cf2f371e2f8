"""A daemon whose rooms can be held at any point and killed there, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults import points
from tests.support import inventory, packages, patched
from tests.support.daemon import FUNCTIONS, Answer, Daemon
from tests.support.inventory import Inventory
from tests.support.places import TIME_FACTOR

ANSWER_SECONDS = 15 * TIME_FACTOR  # within which a caller hears something, whatever was killed
SERVING_SECONDS = 2 * TIME_FACTOR  # within which the daemon serves again
ROOMS = ("builder", "service", "keeper")
HITS: Counter[tuple[str, str]] = Counter()  # (point, process that was killed there)
SLOWEST: dict[str, float] = {}  # seconds until it served again, by process


@dataclass
class Call:
    """One request that was under way when something was killed: its answer, or how the connection ended."""

    answer: Answer | None = None
    error: Exception | None = None

    def check(self, status: int | None = None) -> None:
        """The status, if one is given; else what was asked for, or an error in AWS's shape, or, with the service itself
        gone, a cut connection."""
        assert status is None or (self.answer is not None and self.answer.status == status), self
        if self.answer is None:
            assert isinstance(self.error, OSError | EOFError) or "Incomplete" in repr(self.error), repr(self.error)
            assert not isinstance(self.error, TimeoutError), "nothing was heard"
        elif self.answer.status >= 400:
            assert (self.answer.status, self.answer.code) in (
                (500, "ServiceException"),
                (503, "ServiceException"),
                (404, "ResourceNotFoundException"),  # a function that was not there yet, or no more
                (409, "ResourceConflictException"),  # one whose creation is asked for again
            ), self.answer
            assert self.answer.message


@dataclass
class Faults:
    """One daemon under faults, with functions that must survive all of them."""

    daemon: Daemon
    before: dict[str, int] = field(default_factory=dict)
    functions: tuple[str, ...] = ("fast", "slow")  # those that survive
    resting: bool = False
    _memory: object = None

    def __post_init__(self) -> None:
        control = self.daemon.base / "points"
        self._memory = points.attach(control)
        self.daemon.launcher = patched.launcher("tests.faults.points:arm", str(control))
        self._pool = ThreadPoolExecutor(16)
        self._made = 0

    def begin(self) -> None:
        """Start, deploy what survives, and note what there is at rest."""
        self.daemon.start()
        hello = packages.load("counter")
        self.daemon.deploy(hello, "fast")
        self.daemon.deploy(hello, "slow", Environment={"Variables": {"PYTHONWARNINGS": "ignore"}})
        self.daemon.call("fast")
        self.note()

    def deploy(self, function: str, name: str, **members: object) -> None:
        """Have one function more that must survive."""
        self.functions += (self.daemon.deploy(packages.load(function), name, **members),)
        self.note()

    def note(self) -> None:
        """What there is now, at rest, is what there has to be after a fault."""
        self.rest()
        self.wait_ahead()
        self.before = self.counts()

    def wait_ahead(self) -> None:
        """Until two spares and two stems are there, of two processes each, and the zygote that has the stems."""
        eventually(lambda: len(self._runtimes()) == len(self._named("catatonit")) == 2)
        eventually(lambda: len(self._zygotes()) == len(self._named("sandboxd: zygote's mapper")) == 1)
        eventually(lambda: len(self._named("sandboxd: spare environment")) == 4)

    def _named(self, text: str) -> list[psutil.Process]:
        found = []
        for one in inventory.descendants():
            with contextlib.suppress(psutil.Error, OSError):
                if text in " ".join(one.cmdline()):
                    found.append(one)
        return found

    def _runtimes(self) -> list[psutil.Process]:
        return [one for one in self._named("/var/runtime/bootstrap") if one not in self._zygotes()]

    def _zygotes(self) -> list[psutil.Process]:
        mappers = self._named("sandboxd: zygote's mapper")
        return [one for one in self._called("zygote") if one.parent() in mappers]  # not a child that is being made

    @staticmethod
    def _called(name: str) -> list[psutil.Process]:
        found = []
        for one in inventory.descendants():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{one.pid}/comm").read_text().strip() == name:
                    found.append(one)
        return found

    def end(self) -> None:
        self._pool.shutdown()
        self._memory.close()

    # what is done

    def ask(self, work: Callable[[], Answer]) -> Future[Call]:
        """Do something in the background that the fault will hit."""

        def run() -> Call:
            try:
                return Call(answer=work())
            except Exception as error:
                return Call(error=error)

        return self._pool.submit(run)

    def cold(self) -> list[Future[Call]]:
        """First invocations by both roads, more than what is held ready."""
        return [self.ask(lambda name=name: self.invoke(name)) for name in ("slow", "fast", "slow", "slow", "slow")]

    def stem(self) -> list[Future[Call]]:
        """A first invocation in what was booted ahead, when it is there."""
        return self.warm()

    def warm(self) -> list[Future[Call]]:
        return [self.ask(lambda: self.invoke("fast"))]

    def restart(self) -> list[Future[Call]]:
        """Kill a room, so that a generation begins, and ask it for something."""
        os.kill(self.find("service").pid, signal.SIGKILL)
        return self.warm()

    def invoke(self, name: str) -> Answer:
        return self.daemon.request("POST", f"{FUNCTIONS}/{name}/invocations", b"{}", timeout=ANSWER_SECONDS)

    def retire(self) -> list[Future[Call]]:
        """End every environment of ours."""
        return [self.ask(lambda name=name: self._retire(name)) for name in self.functions]

    def _retire(self, name: str) -> Answer:
        return self.daemon.admin("PUT", f"/functions/{name}/policy", {"AllowEgress": []}, timeout=ANSWER_SECONDS)

    def publish(self) -> list[Future[Call]]:
        """A new function with a package that was never seen."""
        self._made += 1
        text = f"def handler(event, context):\n    return {self._made}\n"
        return [self.ask(lambda: self.create("new", {"app.py": text, "data.bin": os.urandom(200_000)}))]

    def create(self, name: str, files: dict[str, bytes | str]) -> Answer:
        import base64

        request = {
            "FunctionName": name, "Runtime": "python3.13", "Handler": "app.handler", "Timeout": 10,
            "Role": "arn:aws:iam::000000000000:role/test",
            "Code": {"ZipFile": base64.b64encode(packages.zip_of(files)).decode()},
        }  # fmt: skip
        return self.daemon.request("POST", FUNCTIONS, request, timeout=ANSWER_SECONDS)

    def delete(self) -> list[Future[Call]]:
        return [self.ask(lambda: self.daemon.request("DELETE", f"{FUNCTIONS}/new", timeout=ANSWER_SECONDS))]

    # holding and killing

    def arm(self, point: str) -> None:
        name = point.encode() + b"\0"
        self._memory[points.NAME : points.NAME + len(name)] = name
        self._memory[0] = points.ARMED

    def wait_held(self, seconds: float = 10 * TIME_FACTOR) -> None:
        deadline = time.monotonic() + seconds
        while self._memory[0] != points.HELD:
            assert time.monotonic() < deadline, "nobody came to the point"
            time.sleep(0.002)

    def release(self) -> None:
        self._memory[0] = points.IDLE

    def find(self, process: str) -> psutil.Process:
        """The process of a name: a room, even one that has no title yet, whoever is held, or a part of a sandbox."""
        if process == "keeper":
            return self.daemon.room(process)
        title = {"pid 1": "catatonit", "mapper": "sandboxd: zygote's mapper"}.get(process, f"sandboxd: {process}")
        module = {"builder": "sandboxd.builder.room", "service": "sandboxd.service"}.get(process, title)
        found: list[psutil.Process] = []
        deadline = time.monotonic() + 5
        while not found:
            assert time.monotonic() < deadline, f"no process {process}"
            others = {"held": self._held, "runtime": self._runtimes, "zygote": self._zygotes}
            found = others[process]() if process in others else self._named(title) or self._named(module)
        # A fork of a room has its title at first, and stands behind it.
        return found[0] if process in ROOMS else found[-1]

    def _held(self) -> list[psutil.Process]:
        found = self._called(points.HOLDS)
        unpackers = self._named("sandboxd: unpacker")  # and their children, the extractors, that cannot say it
        return found or [one for one in unpackers if one.parent() in unpackers]

    def kill(self, point: str, process: str) -> None:
        """kill -9, and wait for the end of what ends with it; a keeper is started again, as systemd would."""
        HITS[point, process] += 1
        rooms = [self.find(room) for room in ("builder", "service")] if process in ROOMS else []
        if process == "keeper":
            self.daemon.kill("keeper")
            self.daemon.spawn()
        else:
            os.kill(self.find(process).pid, signal.SIGKILL)
        self.release()
        eventually(lambda: not set(rooms) & set(inventory.descendants()))

    # what must hold

    def serves_again(self, process: str, killed: float) -> None:
        """New invocations succeed within two seconds of the kill."""
        while True:
            call = self.ask(lambda: self.invoke("fast")).result(ANSWER_SECONDS * 2)
            took = time.monotonic() - killed
            if call.answer is not None and call.answer.status == 200:
                break
            call.check()
            assert took < ANSWER_SECONDS, self.daemon.log()
            time.sleep(0.005)
        SLOWEST[process] = max(took, SLOWEST.get(process, 0))
        # Where others keep this machine's processors, too, everything takes as much longer as they are too few.
        crowded = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert took < SERVING_SECONDS * crowded, f"served after {took:.2f} s\n{self.daemon.log()[-3000:]}"

    def rest(self) -> None:
        """Remove what a case made, and its environments."""
        for one in self.retire():
            assert one.result(ANSWER_SECONDS).answer.status == 200
        if self.daemon.request("GET", f"{FUNCTIONS}/new").status == 200:
            eventually(lambda: self.delete()[0].result().answer.status in (204, 404))
        eventually(lambda: not self.daemon.environments())
        self.resting = True

    def begin_case(self) -> None:
        """What a case that failed has left does not stand in the way of the next."""
        if not self.resting:
            self.rest()
        self.resting = False

    def is_whole(self) -> None:
        """Functions and code are those of before, nothing is half-made, and nothing is left."""
        listed = self.daemon.request("GET", FUNCTIONS).json["Functions"]
        assert {row["FunctionName"] for row in listed} - {"new"} == set(self.functions)
        for row in listed:  # one that is there can be invoked
            answer = self.invoke(row["FunctionName"])
            assert answer.status == 200 and "x-amz-function-error" not in answer.headers, answer
        self.rest()
        self._until_as_before()

    def counts(self) -> dict[str, int]:
        found = Inventory.take().counts()
        found["descriptors"] = sum(
            len(inventory.open_files(self.daemon.room(room).pid)) for room in ("keeper", "builder", "service")
        )
        data = self.daemon.data_dir
        found["packages"] = len(os.listdir(data / "code"))
        found["zips"] = len(os.listdir(data / "service" / "zips"))
        found["volumes"] = len(os.listdir(data / "volumes"))
        return found

    def files(self) -> list[str]:
        """Everything in the data directory but images."""
        found = sorted(str(p.relative_to(self.daemon.data_dir)) for p in self.daemon.data_dir.glob("*/**/*"))
        return [name for name in found if not name.startswith("images/") and name.count("/") < 3]

    def _until_as_before(self) -> None:
        deadline = time.monotonic() + 10 * TIME_FACTOR
        while True:
            now = self.counts()
            more = {kind: (self.before[kind], now[kind]) for kind in now if now[kind] > self.before[kind]}
            if not more:
                return
            assert time.monotonic() < deadline, f"more than before: {more}, {self.files()}"
            time.sleep(0.02)


@contextlib.contextmanager
def running(daemon: Daemon) -> Iterator[Faults]:
    """Faults of a daemon that is started for them, and ended."""
    faults = Faults(daemon)
    try:
        faults.begin()
        yield faults
    finally:
        faults.release()
        faults.end()
        daemon.close()


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds * TIME_FACTOR
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def held_at(faults: Faults, point: str) -> Iterator[None]:
    """Arm a point, and let whoever is held go in the end."""
    faults.arm(point)
    try:
        yield
    finally:
        faults.release()
