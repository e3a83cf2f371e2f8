"""Programs of root's room that a command starts as processes of their own.

Room: command line, as root. May: run a module of the builder and read its JSON. May not: import it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from sandboxd.cli.context import Context, Failure, Misuse


def run_as_root(context: Context, command: str, module: str, *arguments: str) -> Any:
    """What a module prints as JSON. Raises Misuse where this is not root, Failure with the last line of its errors."""
    context.config  # noqa: B018  # a wrong configuration is reported here, by name
    if os.geteuid() != 0:
        raise Misuse(f"{command} has to be run as root")
    program = [sys.executable, "-I", "-m", module, *arguments]
    if context.config_file:
        program += ["--config", str(context.config_file.absolute())]
    done = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["failed"]
        raise Failure(f"{command}: {lines[-1].removeprefix(f'sandboxd {command}: ')}")
    return json.loads(done.stdout)
