"""Where tests keep what is costly to make and may stay between runs: images and packed functions."""

from __future__ import annotations

import os
from pathlib import Path

# Below /var/cache because the service's own user must be able to walk to its data; a home directory may be closed.
CACHE = Path("/var/cache/sandboxd-tests")
PACKAGES = CACHE / "packages"
IMAGES = CACHE / "images-data"  # a data_dir whose images/ every test daemon gets as hard links
RUNS = CACHE / "runs"
FUNCTIONS = Path(__file__).parents[1] / "functions"
REPOSITORY = Path(__file__).parents[2]

# How much longer everything may take than on plain hardware: scripts/vm-test measures it in its machine.
TIME_FACTOR = float(os.environ.get("TEST_TIME_FACTOR", "1"))


def make_places() -> None:
    """Make the directories, open to be walked through."""
    for place in (CACHE, PACKAGES, IMAGES, RUNS):
        place.mkdir(mode=0o755, exist_ok=True)
