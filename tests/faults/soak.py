"""scripts/soak: many environments, many warm invocations with random faults, the fuzz; and what was left."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.faults.harness import Faults
from tests.support import inventory, packages
from tests.support.daemon import FUNCTIONS, Daemon, UnixConnection
from tests.support.network import PORTS, PUBLIC, Namespace, World
from tests.support.places import REPOSITORY, TIME_FACTOR

_THREADS = 4
_SLACK_MB = 16  # a service that has just begun was seen to hold so much less than one that has worked
_ROOMS = ("keeper", "builder", "service")
_POLICY = "/sandboxd/v1/functions/{}/policy"
_RETIRE: dict[str, dict[str, list[str]]] = {  # a policy that is put, changed or not, ends the environments
    "fast": {"AllowEgress": []},
    "out": {"AllowEgress": [f"{PUBLIC[0]}:{PORTS[0]}"]},
}
_KILLED = ("builder", "service", "keeper", "router")  # each of them ends a generation
_FAULTS = (*(f"kill {room}" for room in _KILLED), "kill pid 1", "kill runtime", "crash", "timeout", "cut connection")
_FUNCTION = f"""
import os, socket, time
def handler(event, context):
    if context.function_name == "out":
        with socket.create_connection(("{PUBLIC[0]}", {PORTS[0]}), 5) as connection:
            return connection.recv(100).decode()
    what = (event or {{}}).get("do")
    if what == "crash":
        os._exit(3)
    if what == "timeout":
        time.sleep(30)
    return 1
"""


@dataclass
class Soak:
    """One run: its daemon, and what it saw. The function `out` uses a permission to reach the network."""

    faults: Faults
    every: dict[str, float]  # seconds between two faults of a kind
    hits: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    memory: dict[str, list[float]] = field(default_factory=lambda: {room: [] for room in _ROOMS})
    rates: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, environments: int, invocations: int) -> dict[str, Any]:
        """Both parts one after the other; the report."""
        daemon = self.faults.daemon
        daemon.request("PUT", f"{FUNCTIONS}/fast/code", _zip({"app.py": _FUNCTION}))
        daemon.wait_settled("fast")
        daemon.request("PUT", f"{FUNCTIONS}/fast/configuration", {"Timeout": 1})
        daemon.wait_settled("fast")
        daemon.create(packages.load("counter"), "out", Code=_zip({"app.py": _FUNCTION}), Handler="app.handler")
        daemon.wait_settled("out")
        self._come_to_rest()
        self.faults.before = self._counts()
        self._part("environments", environments, self._environment, faulty=False)
        self._come_to_rest()
        self._part("invocations", invocations, self._invocation, faulty=True)
        self.faults.serves_again("soak", time.monotonic())
        self._come_to_rest()
        return self._report()

    def _come_to_rest(self) -> None:
        """After one more use of the network, so that its router is there: no environment but what is held ready."""
        with contextlib.closing(_Client(self.faults.daemon)) as client:
            assert client.ask("PUT", _POLICY.format("out"), _RETIRE["out"]) == "200"
            assert client.invoke("out", {}) == "200"
            for name, policy in _RETIRE.items():
                assert client.ask("PUT", _POLICY.format(name), policy) == "200"
        self.faults.rest()
        self.faults.wait_ahead()
        deadline = time.monotonic() + 10 * TIME_FACTOR  # the router forgets an address behind its environment's end
        while self._set_entries() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _set_entries(self) -> int:
        """What the router's sets hold."""
        router = Namespace.of(self.faults.find("router").pid)
        lines = router.run("ipset", "save").splitlines()
        router.close()
        return sum(line.startswith("add ") for line in lines)

    def _counts(self) -> dict[str, int]:
        """What the machine holds, and what the router's own network namespace does."""
        found = self.faults.counts()
        found["set entries"] = self._set_entries()
        router = Namespace.of(self.faults.find("router").pid)
        found["router's links"] = len(router.links())
        router.close()
        return found

    def _part(self, name: str, count: int, work: Callable[[_Client], None], *, faulty: bool) -> None:
        self._over.clear()
        began = time.monotonic()
        left = iter(range(count))
        done = Counter[str]()

        def worker() -> None:
            with contextlib.closing(_Client(self.faults.daemon)) as client:
                while not self._over.is_set():
                    with self._lock:
                        if next(left, None) is None:
                            return
                    work(client)
                    with self._lock:
                        done[name] += 1

        def until_over(work: Callable[[], None]) -> None:
            try:
                work()
            finally:
                self._over.set()

        with ThreadPoolExecutor(_THREADS + 2) as pool:
            others = [pool.submit(until_over, lambda: self._watch(name, done, count))]
            if faulty:
                others.append(pool.submit(until_over, self._break_things))
            workers = [pool.submit(worker) for _ in range(_THREADS)]
            wait(workers)
            self._over.set()
            for future in others + workers:
                future.result()
        self.rates[name] = round(count / (time.monotonic() - began), 1)

    def _environment(self, client: _Client) -> None:
        """One environment more: the function's are retired every few invocations."""
        name = random.choice([*_RETIRE])
        self._note(client.invoke(name, {}))
        client.ask("PUT", _POLICY.format(name), _RETIRE[name])

    def _invocation(self, client: _Client) -> None:
        with self._lock:
            event = {"do": self._wanted.pop()} if self._wanted else {}
        if event.get("do") == "cut":
            client.cut("fast")
        else:
            self._note(client.invoke("fast" if event else random.choice([*_RETIRE]), event))

    _wanted: list[str] = field(default_factory=list)

    def _note(self, answer: str) -> None:
        with self._lock:
            self.answers[answer] += 1

    def _break_things(self) -> None:
        """Faults in random order, each kind at its own rate."""
        due = {fault: time.monotonic() + random.uniform(0, seconds) for fault, seconds in self.every.items()}
        while not self._over.wait(0.02):
            fault = min(due, key=lambda name: due[name])
            if due[fault] > time.monotonic():
                continue
            due[fault] += random.expovariate(1 / self.every[fault])
            word, _, process = fault.partition(" ")
            if process == "keeper":  # and start it again, as systemd would
                self.faults.daemon.kill(process)
                self.faults.daemon.spawn()
            elif word == "kill":
                try:
                    os.kill(self.faults.find(process).pid, signal.SIGKILL)
                except (ProcessLookupError, AssertionError, IndexError):  # between two generations
                    continue
            else:
                with self._lock:
                    self._wanted.append(word)
            self.hits[fault] += 1

    def _watch(self, name: str, done: Counter[str], count: int) -> None:
        """Memory of every room, and a line of progress on a terminal."""
        while not self._over.wait(0.5):
            for room in _ROOMS:
                try:
                    self.memory[room].append(self.faults.find(room).memory_full_info().uss / 1e6)
                except (psutil.Error, AssertionError, IndexError):  # it is between two generations
                    continue
            if sys.stderr.isatty():
                print(f"\r{name}: {done[name]} of {count}   ", end="", file=sys.stderr, flush=True)

    def _report(self) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        now = self._counts()
        while time.monotonic() < deadline and any(now[k] > self.faults.before[k] for k in now):
            time.sleep(0.2)
            now = self._counts()
        quarter = {room: max(1, len(values) // 4) for room, values in self.memory.items()}
        return {
            "left": {kind: {"before": self.faults.before[kind], "after": now[kind]} for kind in now},
            "memory_mb": {
                room: {
                    "first": round(sum(values[: quarter[room]]) / quarter[room], 1),
                    "last": round(sum(values[-quarter[room] :]) / quarter[room], 1),
                }
                for room, values in self.memory.items()
                if values
            },
            "rates_per_second": self.rates,
            "faults": dict(self.hits),
            "answers": dict(self.answers),
        }


class _Client:
    """One connection, made again where it was cut."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._connection = daemon, UnixConnection(daemon.socket, 30)

    def close(self) -> None:
        self._connection.close()

    def invoke(self, name: str, event: Any) -> str:
        """What came of it: a status with its error, or how the connection ended."""
        return self.ask("POST", f"{FUNCTIONS}/{name}/invocations", event)

    def ask(self, method: str, path: str, body: Any) -> str:
        try:
            self._connection.request(method, path, json.dumps(body).encode())
            response = self._connection.getresponse()
            response.read()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            self._connection.close()
            time.sleep(0.05)  # without a keeper nobody listens: this many refusals are as good as any more
            return "cut connection"
        error = response.headers.get("X-Amz-Function-Error") or response.headers.get("X-Amzn-ErrorType", "")
        return f"{response.status} {error}".strip()

    def cut(self, name: str) -> None:
        """Ask, and go away without an answer."""
        connection = UnixConnection(self._daemon.socket, 30)
        try:
            connection.request("POST", f"{FUNCTIONS}/{name}/invocations", b"{}")
        except OSError:  # nobody listens at this moment
            pass
        finally:
            connection.close()


def _zip(files: dict[str, bytes | str]) -> dict[str, str]:
    import base64

    return {"ZipFile": base64.b64encode(packages.zip_of(files)).decode()}


def soak(environments: int, invocations: int, pause: float) -> dict[str, Any]:
    """Run on a daemon of its own; `pause`: seconds between two kills of a room, on average."""
    every = {fault: pause if fault.removeprefix("kill ") in _KILLED else pause / 4 for fault in _FAULTS}
    with contextlib.closing(World()) as world, world.server.entered():
        faults = Faults(Daemon(keep_alive=600))
        try:
            faults.begin()
            return Soak(faults, every).run(environments, invocations)
        finally:
            faults.end()
            faults.daemon.close()


def judge(report: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    wrong = [f"{kind}: {row['after']}, before {row['before']}" for kind, row in report["left"].items()
             if row["after"] > row["before"]]  # fmt: skip
    for room, row in report["memory_mb"].items():
        if row["last"] > row["first"] * 1.2 + _SLACK_MB:
            wrong.append(f"memory of {room}: {row['last']} MB, at first {row['first']} MB")
    allowed = {"200", "200 Unhandled", "503 ServiceException", "500 ServiceException", "cut connection"}
    return wrong + [f"answer: {one}" for one in report["answers"] if one.partition(":")[0] not in allowed]


def _show(report: dict[str, Any], wrong: list[str]) -> None:
    print(f"{'kind':14}{'before':>9}{'after':>9}")
    for kind, row in report["left"].items():
        print(f"{kind:14}{row['before']:9}{row['after']:9}")
    print(f"\n{'memory, MB':14}{'first':>9}{'last':>9}")
    for room, row in report["memory_mb"].items():
        print(f"{room:14}{row['first']:9}{row['last']:9}")
    for title in ("rates_per_second", "faults", "answers"):
        print(f"\n{title.replace('_', ' ')}: " + ", ".join(f"{k} {v}" for k, v in sorted(report[title].items())))
    print("\n" + ("\n".join(wrong) or "nothing left, memory flat"))


def main() -> int:
    """Run it all and print the table; 1 where something is left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", type=int, default=10_000)
    parser.add_argument("--invocations", type=int, default=200_000)
    parser.add_argument("--fuzz-cases", type=int, default=50_000, help="0: no fuzz")
    parser.add_argument("--every-fault", action="store_true", help="kill every process at every point, too")
    parser.add_argument("--output", choices=["table", "json"], default="table")
    given = parser.parse_args()
    inventory.adopt_orphans()
    report = soak(given.environments, given.invocations, pause=10)
    wrong = judge(report)
    pytest = [sys.executable, "-m", "pytest", "-q"]
    if (
        given.fuzz_cases
        and subprocess.run(
            [*pytest, "tests/fuzz", f"--fuzz-cases={given.fuzz_cases}"], cwd=REPOSITORY, stdout=sys.stderr
        ).returncode
    ):
        wrong.append("the fuzz failed")
    if (
        given.every_fault
        and subprocess.run(
            [*pytest, "tests/faults/test_killed.py", "--every-fault"], cwd=REPOSITORY, stdout=sys.stderr
        ).returncode
    ):
        wrong.append("a fault at a point did harm")
    if given.output == "json":
        print(json.dumps(report | {"wrong": wrong}))
    else:
        _show(report, wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
