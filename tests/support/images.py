"""Runtime images for tests: built once per machine, handed to every test daemon as hard links."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from sandboxd.config import Config
from sandboxd.images import maker
from tests.support.places import IMAGES, make_places

RUNTIMES = ("python3.13", "python3.11")


def built() -> Path:
    """The directory of all images, built where they are not yet or where a recipe has changed."""
    make_places()
    config = replace(Config(), instance="imgs", data_dir=IMAGES, run_dir=IMAGES / "run")
    for runtime in RUNTIMES:
        maker.build(config, runtime)
    return config.images_dir


def lay_into(images_dir: Path) -> None:
    """Give a daemon the images; one machine's copies share their blocks."""
    source = built()
    if images_dir.exists():
        return
    images_dir.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-al", "--", source, images_dir], check=True)


def remove(images_dir: Path) -> None:
    """Remove a daemon's hard links."""
    if os.path.isdir(images_dir):
        shutil.rmtree(images_dir)
