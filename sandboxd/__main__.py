"""The `sandboxd` command.

Room: command line. May: nothing but start it.
"""

from __future__ import annotations

from sandboxd.cli import cli


def main() -> None:
    """Run the command line and exit with its code."""
    cli(prog_name="sandboxd")


if __name__ == "__main__":
    main()
