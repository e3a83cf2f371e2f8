"""What a dead generation left: cgroup directories, half-unpacked packages; found by name, removed by `gc` and at start.

Room: root. May: remove what carries this instance's name and a generation that does not live. May not: touch others'.
As a program: `python -m sandboxd.builder.leftovers [--config FILE] [--dry-run]` prints a JSON list. The keeper passes
the descriptor of its configuration instead: it holds the lock, so nothing of this instance lives.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pickle
import re
import sys
import time
from pathlib import Path
from typing import Any

from sandboxd.builder import cgroups, code, host
from sandboxd.config import Config, load
from sandboxd.errors import SandboxdError

_CGROUP = re.compile(r"([0-9a-f]+)-\d+")
_KILL_SECONDS = 5.0


def remove(config: Config, keep_generation: str | None, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Remove what is not of the living generation; what was found, as rows of kind, name, removed."""
    found = _cgroups(config, keep_generation, dry_run)
    return found + _packages(config, dry_run) + _host_network(config, dry_run)


def _cgroups(config: Config, keep_generation: str | None, dry_run: bool) -> list[dict[str, Any]]:
    rows = []
    for mount in cgroups.mounts():
        base = Path(cgroups.base_path(mount, config.instance))
        if not base.is_dir():
            continue
        for group in sorted(p for p in base.iterdir() if p.is_dir()):
            match = _CGROUP.fullmatch(group.name)
            if match and match[1] != keep_generation:
                rows.append({"kind": "cgroup", "name": str(group), "removed": not dry_run and _remove_group(group)})
        if keep_generation is None:
            removed = False
            with contextlib.suppress(OSError):
                if not dry_run:
                    base.rmdir()
                    removed = True
            rows.append({"kind": "cgroup", "name": str(base), "removed": removed})
    return rows


def _remove_group(group: Path) -> bool:
    """End what may still run in a dead generation's group, then remove it."""
    deadline = time.monotonic() + _KILL_SECONDS
    while True:
        with contextlib.suppress(OSError):
            (group / "cgroup.kill").write_text("1")
        try:
            group.rmdir()
            return True
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)


def _packages(config: Config, dry_run: bool) -> list[dict[str, Any]]:
    """Trees whose unpacker or remover died with its builder; a living daemon's are its own business."""
    rows: list[dict[str, Any]] = []
    if not config.code_dir.is_dir():
        return rows
    directory = os.open(config.code_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in sorted(os.listdir(directory)):
            if name.startswith((".new-", ".old-")):
                if not dry_run:
                    code.remove_tree(directory, name)
                rows.append({"kind": "package", "name": name, "removed": not dry_run})
    finally:
        os.close(directory)
    return rows


def _host_network(config: Config, dry_run: bool) -> list[dict[str, Any]]:
    """The router's two rules, its chain and the forwarding switch; its link went with its namespace."""
    rows = [{"kind": "host network", "name": name, "removed": not dry_run} for name in host.there(config)]
    if rows and not dry_run:
        host.clear(config)
    return rows


def living_generation(config: Config) -> str | None:
    """The generation of the daemon that holds this instance's lock, or None where none does."""
    try:
        with open(config.run_dir / "daemon.lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip()
    except FileNotFoundError:
        pass
    return None


def main() -> int:
    """Find, and unless told otherwise remove, what dead generations left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("from_keeper", type=int, nargs="?")
    arguments = parser.parse_args()
    if arguments.from_keeper is not None:
        with os.fdopen(arguments.from_keeper, "rb") as file:
            remove(pickle.load(file), keep_generation=None)  # noqa: S301  # from the keeper, which is root
        return 0
    try:
        config = load(arguments.config)
        living = living_generation(config)
        rows = _cgroups(config, living, arguments.dry_run)
        if living is None:
            rows += _packages(config, arguments.dry_run) + _host_network(config, arguments.dry_run)
    except (SandboxdError, OSError) as error:
        print(f"sandboxd gc: {error}", file=sys.stderr)
        return 1
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
