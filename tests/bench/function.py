"""The smallest function that can prove which invocation of its environment this is, in both languages."""

from __future__ import annotations

from pathlib import Path

from tests.bench.clients import Caller, signed
from tests.support.daemon import Daemon
from tests.support.packages import Function, zip_of

_SOURCES = {
    "python3.13": (
        "app.py",
        "count = 0\ndef handler(event, context):\n    global count\n    count += 1\n"
        '    return {"hello": event["name"], "count": count}\n',
    ),
    "nodejs22.x": ("app.js", "let count = 0\nexports.handler = async e => ({ hello: e.name, count: ++count })\n"),
}


def hello(runtime: str, scratch: Path) -> Function:
    """The function for a runtime; its package lies in the directory `scratch`."""
    name, source = _SOURCES[runtime]
    package = scratch / f"{name}.zip"
    package.write_bytes(zip_of({name: source}))
    return Function("bench", runtime, "app.handler", memory=128, timeout=60, package=package)


def deploy(daemon: Daemon, function: Function, prefix: str, count: int) -> list[str]:
    """So many functions of the same package."""
    return [daemon.deploy(function, f"{prefix}-{number}") for number in range(count)]


def permit(daemon: Daemon, name: str, rules: list[str]) -> None:
    """Let a function reach what the rules name."""
    answer = daemon.admin("PUT", f"/functions/{name}/policy", {"AllowEgress": rules})
    if answer.status != 200:
        raise RuntimeError(f"{name}: {answer.status} {answer.body!r}")
    daemon.wait_settled(name)


def complaints(daemon: Daemon) -> str:
    """What a row has to say if the daemon was not well: something in its log beside the line that it serves."""
    lines = [line for line in daemon.log().splitlines() if "serving" not in line]
    return f"the daemon's log has {len(lines)} lines, the first: {lines[0]}" if lines else ""


def warm_up(daemon: Daemon, name: str) -> None:
    """One invocation, after which the daemon knows that this image is used."""
    caller = Caller(signed(daemon))
    caller.time_of(name, 1)
    caller.close()
