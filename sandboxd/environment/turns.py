"""What is done some turns of the event loop later: behind what this turn has set off.

Room: service. May: nothing but wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# From the end of an invocation until its answer is written: its task, the one that waits for it, and the connection.
ANSWER = 4


def after_turns(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    """Call back in so many turns of the loop."""
    if turns:
        loop.call_soon(after_turns, loop, turns - 1, callback)
    else:
        callback()
