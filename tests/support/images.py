"""Runtime images for tests: built once per machine, handed to every test daemon as hard links."""

from __future__ import annotations

import fcntl
import functools
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from sandboxd.config import Config
from sandboxd.images import maker
from tests.support.places import IMAGES, make_places

PYTHONS = ("python3.13", "python3.11")
RUNTIMES = (*PYTHONS, "nodejs22.x", "provided.al2023")


@functools.cache
def built() -> Path:
    """The directory of the images, built where they are not yet or where a recipe has changed; older ones go."""
    make_places()
    config = replace(Config(), instance="imgs", data_dir=IMAGES, run_dir=IMAGES / "run")
    with open(IMAGES / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may want the same at once
        entries = [maker.build(config, runtime) for runtime in RUNTIMES]
        kept = [config.images_dir / name for e in entries for name in (f"{e.runtime}.json", e.digest)]
        for path in config.images_dir.iterdir():
            if path not in kept and path.is_dir():
                shutil.rmtree(path)
    return config.images_dir


def lay_into(images_dir: Path) -> None:
    """Give a daemon the images; one machine's copies share their blocks."""
    if images_dir.exists():
        return
    images_dir.mkdir(parents=True)
    with open(IMAGES / "lock", "w") as lock:
        source = built()
        fcntl.flock(lock, fcntl.LOCK_SH)
        subprocess.run(["cp", "-al", "--", *source.iterdir(), images_dir], check=True)
