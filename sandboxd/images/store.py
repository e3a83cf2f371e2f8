"""The images that are there: `images_dir/<runtime>.json` names a digest, `images_dir/<digest>/` is its tree.

Room: image maker, root. May: write below images_dir, remove what nobody uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sandboxd.config import Config
from sandboxd.images.recipe import ImageError

BUILDING = ".building-"

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One runtime's image: digest of the tree in hex, bytes of its files, time built (UTC, ISO 8601), and the digest
    of the recipe that it was made from."""

    runtime: str
    digest: str
    bytes: int
    built: str
    recipe: str


def read_entry(config: Config, runtime: str) -> ImageEntry | None:
    """The image of a runtime, or None where there is none; raises ImageError where the index is damaged."""
    path = config.images_dir / f"{runtime}.json"
    try:
        entry = ImageEntry(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ImageError(f"{path}: {error}; build the image again with --force") from error
    if not _DIGEST.fullmatch(entry.digest):
        raise ImageError(f"{path}: {entry.digest!r} is not a digest; build the image again with --force")
    return entry


def list_entries(config: Config) -> list[ImageEntry]:
    """Every runtime's image, sorted by runtime."""
    runtimes = sorted(path.stem for path in config.images_dir.glob("[!.]*.json"))
    return [entry for runtime in runtimes if (entry := read_entry(config, runtime))]


def write_entry(config: Config, entry: ImageEntry) -> None:
    """Make `entry` the image of its runtime, atomically."""
    temporary = config.images_dir / f".{entry.runtime}.json.new"
    with temporary.open("w") as file:
        json.dump(asdict(entry), file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, config.images_dir / f"{entry.runtime}.json")


def remove_entry(config: Config, runtime: str) -> None:
    """Forget a runtime's image; its tree goes with the next `remove_unused`. Raises ImageError where there is none."""
    try:
        os.unlink(config.images_dir / f"{runtime}.json")
    except FileNotFoundError:
        there = ", ".join(path.stem for path in sorted(config.images_dir.glob("[!.]*.json")))
        raise ImageError(f"there is no image of {runtime!r}; there are: {there or 'none'}") from None


def remove_unused(config: Config) -> list[str]:
    """Remove trees that no runtime names and no process has mounted; the digests removed.

    Not to be called while a daemon of this data directory runs: it may be about to mount a tree that it knows from
    an older index.
    """
    used = {entry.digest for entry in list_entries(config)}
    unused = [path.name for path in config.images_dir.glob("*") if _DIGEST.fullmatch(path.name)]
    unused = [digest for digest in sorted(unused) if digest not in used]
    mounted = "".join(_mount_tables()) if unused else ""
    unused = [digest for digest in unused if digest not in mounted]
    for digest in unused:
        # Renamed first: a tree under its digest is always whole.
        doomed = config.images_dir / f"{BUILDING}removed-{digest}"
        os.rename(config.images_dir / digest, doomed)
        shutil.rmtree(doomed)
    return unused


def _mount_tables() -> Iterator[str]:
    seen = set()
    for path in glob.glob("/proc/[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            namespace = os.readlink(path.replace("mountinfo", "ns/mnt"))
            if namespace not in seen:
                seen.add(namespace)
                yield Path(path).read_text(errors="replace")


@contextlib.contextmanager
def building_directory(config: Config, runtime: str) -> Iterator[Path]:
    """A directory for one build, gone on return; its lock tells that the builder lives. Removes dead builders' ones."""
    config.images_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    remove_stale(config)
    while True:
        path = config.images_dir / f"{BUILDING}{runtime}-{os.urandom(6).hex()}"
        path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.is_dir():  # else another build took it for stale in the moment before the lock
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        shutil.rmtree(path)
        os.close(descriptor)


def remove_stale(config: Config) -> list[str]:
    """Remove what builders left that no longer live; its names."""
    removed = []
    for path in sorted(config.images_dir.glob(f"{BUILDING}*")):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            removed.append(path.name)
        except (BlockingIOError, FileNotFoundError):
            continue
        finally:
            os.close(descriptor)
    return removed
