"""What changes with every change of policies and of whom they are, of one account.

Room: service. May: count.
"""

from __future__ import annotations


class Generation:
    """A number that is another one after each such change: what was decided by policies stands while it is the same."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def end(self) -> None:
        """Something changed."""
        self.number += 1
