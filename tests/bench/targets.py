"""What the figures are held against: ratios to a peer of the same run, or plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.bench import burst, cold, creation, memory, peers, warm
from tests.bench.figures import Sheet


@dataclass(frozen=True)
class Target:
    """A figure, or its ratio to a peer's, and what it should be. A floor that is missed is an exit code of 1."""

    figure: str
    bound: float
    unit: str = ""  # of a plain number; a ratio has none
    peer: str | None = None
    share: float = 0.5
    at_least: bool = False
    floor: bool = False
    note: str = ""

    def described(self, sheet: Sheet) -> dict[str, Any]:
        """As JSON has it; `met` is null where something was not measured."""
        found = sheet.ratio(self.figure, self.peer) if self.peer else sheet.at(self.figure, self.share)
        met = None if found is None else found >= self.bound if self.at_least else found <= self.bound
        bound = f"{self.bound:.4g} {self.unit}".strip()
        return {
            "figure": self.figure + ("" if self.share == 0.5 else f", p{self.share:.0%}"[:-1]),
            "peer": self.peer,
            "target": f"{'at least' if self.at_least else 'at most'} {bound}",
            "measured": None if found is None else float(f"{found:.4g}"),
            "met": met,
            "floor": self.floor,
            "note": self.note,
        }


def targets(environments: int) -> list[Target]:
    """All of them, for a run with so many idle environments."""
    most, one = warm.CLIENTS[-1], warm.CLIENTS[0]
    several = creation.CLIENTS[-1]
    return [
        Target(cold.STEM, 1 / 4, peer=peers.BWRAP),
        Target(cold.EMPTY, 2 / 3, peer=peers.BWRAP),
        Target(cold.NODE_STEM, 1 / 5, peer=peers.NODE),
        Target(burst.EACH, 1200, "ms", share=0.99),
        Target(
            creation.rate(several), 4, peer=creation.peer_rate(several), at_least=True, note="the aim is 8"
        ),
        Target(warm.latency("unsigned", one), 2.5, peer=warm.peer_latency("unsigned", one)),
        Target(warm.latency("signed", one), 3, peer=warm.peer_latency("signed", one)),
        *(
            Target(
                warm.throughput(warm.latency(kind, most)), 1 / 3, at_least=True,
                peer=warm.throughput(warm.peer_latency(kind, most)),
            )
            for kind in warm.KINDS
        ),
        Target(memory.environment(environments), 4, "MB"),
        Target(memory.ROOMS, 110, "MB"),
        Target(cold.STEM, 1, peer=peers.BWRAP_IMPORTS, floor=True),
        Target(warm.latency("signed", one), 1 / 8, peer=peers.BWRAP_IMPORTS, floor=True),
    ]  # fmt: skip
