"""Slots: small numbers from which the host uids of environments follow.

Room: root, parent side. May: count.
"""

from __future__ import annotations

import errno

from sandboxd.errors import StepFailed


class Slots:
    """Small numbers, each in one hand at a time: an environment's host uids follow from its slot."""

    def __init__(self, count: int) -> None:
        self._count, self._next = count, 0
        self._free: list[int] = []

    def take(self) -> int:
        """A slot that nobody has, fresh ones first, then the longest unused; StepFailed where none is left."""
        if self._next < self._count:
            self._next += 1
            return self._next - 1
        if not self._free:
            raise StepFailed("uid", errno.EAGAIN, f"all {self._count} are in use")
        return self._free.pop(0)

    def give_back(self, slot: int) -> None:
        """The slot's last process and file are gone."""
        self._free.append(slot)
