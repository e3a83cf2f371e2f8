"""First invocations, one at a time, in turns with what other tools take to start an interpreter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandboxd.builder import demand
from tests.bench import peers
from tests.bench.clients import Caller, signed
from tests.bench.figures import Row, Sheet, busy_ms, progress, rest
from tests.bench.function import complaints, deploy, hello, permit, warm_up
from tests.support.daemon import Daemon
from tests.support.network import PUBLIC, NetworkedDaemon, World

STEM, EMPTY = "Python, first invocation, stem ready", "Python, first invocation, empty pool"
NODE_STEM, NODE_EMPTY = "Node.js, first invocation, stem ready", "Node.js, first invocation, empty pool"
EGRESS, NODE_EGRESS = "Python, first invocation, with egress", "Node.js, first invocation, with egress"
_EMPTIED = (
    "empty pool: the last of 17 functions without a pause, one more than there can be stems; CPU: of each of them"
)
_LINKED = "with egress: the stem gets a link to the network before its function comes"


@dataclass
class _Case:
    """Functions that have never been invoked, and the connection that they are invoked by."""

    row: Row
    daemon: Daemon
    caller: Caller
    names: list[str]
    at_once: int = 1

    def measure(self) -> None:
        """One sample: of several in a row the last, which finds what the others have left."""
        names = [self.names.pop() for _ in range(self.at_once)]
        busy = busy_ms()
        took = [self.caller.time_of(name, 1) for name in names][-1]
        for name in names:
            self.daemon.delete(name)  # and with it the environment: what the peers take apart counts as well
        rest()
        self.row.add(took, busy_ms() - busy, self.at_once)


def measure(sheet: Sheet, scratch: Path) -> None:
    """All cases and all peers, once in each round, so that a busy moment of the machine meets all of them."""
    with contextlib.ExitStack() as stack:
        cases = list(_cases(sheet, scratch, stack))
        others = stack.enter_context(peers.present(sheet, scratch))
        rest()
        for number in range(sheet.rounds):
            progress(f"cold: round {number + 1} of {sheet.rounds}")
            for peer in others:
                busy = busy_ms()
                took = peer.time_of()
                rest()
                sheet.row("cold", peer.name).add(took, busy_ms() - busy)
            for case in cases:
                case.measure()
        for case in cases:
            case.row.note = complaints(case.daemon) or case.row.note


def _cases(sheet: Sheet, scratch: Path, stack: contextlib.ExitStack) -> Iterator[_Case]:
    world = World()
    stack.callback(world.close)
    daemon, linked = stack.enter_context(Daemon()), stack.enter_context(NetworkedDaemon(world))
    for runtime, peer, stem, empty, egress in (
        ("python3.13", peers.BWRAP, STEM, EMPTY, EGRESS),
        ("nodejs22.x", peers.NODE, NODE_STEM, NODE_EMPTY, NODE_EGRESS),
    ):
        function = hello(runtime, scratch)
        for name, one, at_once, note in (
            (stem, daemon, 1, ""),
            (empty, daemon, demand.MOST + 1, _EMPTIED),
            (egress, linked, 1, _LINKED),
        ):
            progress(f"cold: functions for: {name}")
            prefix = f"{runtime[0]}{at_once}"
            names = deploy(one, function, prefix, sheet.rounds * at_once + 1)
            if one is linked:
                for each in names:
                    permit(one, each, [f"{PUBLIC[0]}/32:80"])
            with world.server.entered() if one is linked else contextlib.nullcontext():
                warm_up(one, names.pop())
                caller = Caller(signed(one))
            stack.callback(caller.close)
            yield _Case(sheet.row("cold", name, peer=peer, note=note), one, caller, names, at_once)
