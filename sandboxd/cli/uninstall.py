"""`sandboxd uninstall`: remove every trace of an instance, and of the installation that this command is part of.

Room: command line, as root. May: remove what scripts/install and the daemon made, by name. May not: touch what somebody
else put there: it refuses before it has removed anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from sandboxd.cli.context import Context, Failure, Misuse, host_output_option
from sandboxd.cli.output import show_json, show_table
from sandboxd.cli.rooms import run_as_root
from sandboxd.config import Config

_UNITS = ("sandboxd.socket", "sandboxd.service")
_RUN_FILES = {"api.sock", "daemon.lock", "network"}
_DATA_FILES = {"images", "code", "service", "volumes", "daemon.lock"}
_STOP_SECONDS = 960  # a drain may last for as long as an invocation

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Installation:
    """What scripts/install lays below `root`; the machine's own is /."""

    root: Path = Path("/")

    @property
    def prefix(self) -> Path:
        """Where the releases are."""
        return self.root / "opt/sandboxd"

    @property
    def link(self) -> Path:
        """The command's name on the PATH."""
        return self.root / "usr/local/bin/sandboxd"

    @property
    def pages(self) -> Path:
        """The links to the manual's pages, with a wildcard."""
        return self.root / "usr/local/share/man/man1/sandboxd*.1"

    @property
    def units(self) -> list[Path]:
        """The units that are there, and what `systemctl edit` put beside them."""
        directory = self.root / "etc/systemd/system"
        named = [directory / f"{unit}{suffix}" for unit in _UNITS for suffix in ("", ".d")]
        return [path for path in named if path.exists()]

    @property
    def pid_file(self) -> Path:
        """Of the daemon where no systemd runs."""
        return self.root / "run/sandboxd.pid"

    def is_ours(self) -> bool:
        """Whether this very command runs from it: a checkout's or another's uninstall leaves it alone."""
        return Path(sys.prefix).resolve().is_relative_to(self.prefix.resolve())

    def obstacles(self) -> list[str]:
        """What is in the way and was not made by scripts/install."""
        found = []
        if self.link.exists() and not (self.link.is_symlink() and self.link.readlink().is_relative_to(self.prefix)):
            found.append(f"{self.link} is not the link of {self.prefix}")
        if self.prefix.exists() and not (self.prefix / "releases").is_dir():
            found.append(f"{self.prefix} has no releases")
        return found + _mounted_below(self.prefix)

    def manual(self) -> list[Path]:
        """The manual's pages that are there and ours."""
        found = self.pages.parent.glob(self.pages.name)
        return [page for page in found if page.is_symlink() and page.readlink().is_relative_to(self.prefix)]

    def remove_manual(self) -> None:
        """Remove them."""
        for page in self.manual():
            page.unlink(missing_ok=True)

    def systemctl(self, *arguments: str) -> None:
        """Tell systemd, where one runs."""
        if (self.root / "run/systemd/system").is_dir():
            subprocess.run(["systemctl", "--quiet", *arguments], check=False)

    def stop(self) -> None:
        """End the daemon that scripts/install started, after its drain."""
        if self.units:
            self.systemctl("disable", "--now", *_UNITS)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            pid = int(self.pid_file.read_text())
            if b"sandboxd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)

    def paths(self) -> list[Path]:
        """Everything to be removed, the command itself last."""
        files = [*self.units, self.pid_file, self.root / "var/log/sandboxd.log", self.link, self.prefix]
        return [path for path in files if path.exists() or path.is_symlink()]


@click.command(epilog="Example: sandboxd uninstall --dry-run")
@click.option("--data", is_flag=True, help="Remove functions, images, logs and settings too.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@host_output_option
@click.pass_obj
def uninstall(context: Context, data: bool, dry_run: bool, yes: bool) -> None:
    """Stop the daemon and remove all that it and scripts/install made. Run again, it removes what is left.

    Functions, images, logs and settings stay without --data, and with them the daemon's user.
    """
    config = context.config
    if os.geteuid() != 0:
        raise Misuse("uninstall has to be run as root")
    installation = Installation()
    ours = installation if installation.is_ours() else None
    obstacles = _obstacles(config, data) + (ours.obstacles() if ours else [])
    if obstacles:
        raise Failure(f"nothing was removed: {'; '.join(obstacles)}")
    steps = _steps(config, ours, data)
    if not (dry_run or yes):
        for row, _ in steps:
            click.echo(f"{row['kind']}: {row['name']}", err=True)
        click.confirm("Remove all of this?", abort=True, err=True)
    if not dry_run:
        if ours:
            ours.stop()
        _wait_for_end(config, _STOP_SECONDS if ours else 0)
    collected = run_as_root(context, "uninstall", "sandboxd.builder.leftovers", *(["--dry-run"] if dry_run else []))
    rows: list[Row] = [dict(row) for row in collected]
    for row, remove in steps:
        if not dry_run:
            remove()
        rows.append(row | {"removed": not dry_run})
    if ours and not dry_run:
        ours.systemctl("daemon-reload")
    if context.output == "json":
        show_json(rows)
    elif rows:
        show_table(["kind", "name", "removed"], rows, ["KIND", "NAME", "REMOVED"])
    else:
        click.echo("nothing is there")


def _steps(config: Config, installation: Installation | None, data: bool) -> list[tuple[Row, Callable[[], None]]]:
    """What is to be removed beyond what `gc` collects, in order, each with how."""
    directories = [config.run_dir, *([config.data_dir] if data else [])]
    paths = [path for path in directories if path.exists()]
    if installation is not None:
        settings = installation.root / "etc/sandboxd"
        paths += [*([settings] if data and settings.exists() else []), *installation.paths()]
    steps: list[tuple[Row, Callable[[], None]]] = [
        ({"kind": "files", "name": str(path)}, lambda path=path: _remove(path))  # type: ignore[misc]
        for path in paths
    ]
    if installation is not None and installation.manual():
        steps.insert(0, ({"kind": "files", "name": str(installation.pages)}, installation.remove_manual))
    if installation is not None and data and _made_by_us(config.user):
        row: Row = {"kind": "user", "name": config.user}
        steps.append((row, lambda: _must(["userdel", config.user])))
    return steps


def _obstacles(config: Config, data: bool) -> list[str]:
    found: list[str] = []
    for directory, known in ((config.run_dir, _RUN_FILES), *(((config.data_dir, _DATA_FILES),) if data else ())):
        if directory.is_symlink():
            found.append(f"{directory} is a link")
        elif directory.is_dir():
            strange = sorted(set(os.listdir(directory)) - known)
            found += [f"{directory / name} is not sandboxd's" for name in strange[:3]]
            found += _mounted_below(directory)
    return found


def _mounted_below(directory: Path) -> list[str]:
    """Mounts in or at a directory: removing it would empty them."""
    with open("/proc/self/mountinfo") as table:
        points = [Path(line.split()[4]) for line in table]
    return [f"something is mounted at {point}" for point in points if point.is_relative_to(directory.resolve())]


def _wait_for_end(config: Config, seconds: float) -> None:
    """Until no daemon of this instance lives; raises Failure where one that is not ours to stop does."""
    deadline = time.monotonic() + seconds
    while _lives(config):
        if time.monotonic() > deadline:
            raise Failure(f"nothing was removed: a daemon of instance {config.instance!r} runs; stop it first")
        time.sleep(0.1)


def _lives(config: Config) -> bool:
    with contextlib.suppress(FileNotFoundError), open(config.run_dir / "daemon.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _made_by_us(user: str) -> bool:
    """Whether it is the account that scripts/provision makes: of the system, without a home or a shell."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return False
    return account.pw_dir == "/nonexistent" and account.pw_shell.endswith("/nologin") and account.pw_uid < 1000


def _must(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{command[0]}: {done.stderr.strip()}")
