"""The real daemon with one of a test's own functions run in each room before that room begins.

`python -I patched.py MODULE:FUNCTION ARGUMENT daemon …` is the `sandboxd` command, but builder and service start
through this file too, and call FUNCTION(room's module, ARGUMENT) first. So a test can leave a step of a visible list
out, or stop a room at it, and production code needs no switch for that.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

REPOSITORY = Path(__file__).parents[2]
ROOMS = ("sandboxd.builder.room", "sandboxd.service")


def launcher(function: str, argument: str = "") -> list[str]:
    """What stands instead of `-m sandboxd`: `function` is "module:function" of the tests."""
    return [__file__, function, argument]


class _Popen(subprocess.Popen[bytes]):
    """Starts the rooms through this file."""

    given: ClassVar[list[str]] = []

    def __init__(self, command: list[str], **options: Any) -> None:
        if "-m" in command and command[command.index("-m") + 1] in ROOMS:
            at = command.index("-m")
            command = [*command[:at], __file__, *self.given, *command[at + 1 :]]
        super().__init__(command, **options)


def main() -> None:
    """Become the command, or a room of it."""
    sys.path.insert(0, str(REPOSITORY))
    module, _, function = sys.argv[1].partition(":")
    if sys.argv[3] not in ROOMS:
        from sandboxd.__main__ import main as command

        subprocess.Popen = _Popen  # type: ignore[misc]
        _Popen.given, sys.argv[1:] = sys.argv[1:3], sys.argv[3:]
        command()
        return
    room = sys.argv[3]
    patch, argument = getattr(importlib.import_module(module), function), sys.argv[2]
    sys.argv[1:] = sys.argv[4:]
    patch(room, argument)
    importlib.import_module(room).main()


if __name__ == "__main__":
    main()
