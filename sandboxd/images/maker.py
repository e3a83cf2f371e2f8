"""Builds images: Debian packages unpacked, AWS's runtime client added, tailored, sealed, put in place in one step.

Room: image maker, root. May: run programs, those of the image only inside the build's namespace, and write below
images_dir. May not: be part of the daemon.

Packages are unpacked and never configured, so no maintainer script runs at all. What does run of an image (its
interpreter, which compiles its own library) runs as an unprivileged user of the host (namespace.py).
"""

from __future__ import annotations

import datetime
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandboxd.config import Config
from sandboxd.images import npm, store
from sandboxd.images.namespace import UIDS, Namespace, StepFailedInNamespace, build_namespace
from sandboxd.images.recipe import ImageError, Recipe, ingredients, load_recipe
from sandboxd.images.seal import Sealed, seal
from sandboxd.images.store import ImageEntry

Progress = Callable[[str, float], None]

# Each phase with the share of the whole time that it takes.
PHASES = {
    "package lists": 0.25,
    "download": 0.1,
    "unpack": 0.15,
    "runtime client": 0.1,
    "tailor": 0.05,
    "compile": 0.25,
    "seal": 0.1,
}

TOOLS = "/tmp/scratch/tools"  # inside the build's namespace

_MMDEBSTRAP_PHASES = {
    "running apt-get update": "package lists",
    "downloading packages": "download",
    "extracting archives": "unpack",
}
_UNREACHABLE = re.compile(r"Failed to fetch|Could not (resolve|connect)|Unable to connect|Temporary failure|timed out")
_FULL = re.compile(r"No space left on device|don't have enough free space")
_PROGRAMS = {
    "mmdebstrap": "mmdebstrap debian-archive-keyring",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}


def build(
    config: Config, runtime: str, *, force: bool = False, mirror: str | None = None, progress: Progress | None = None
) -> ImageEntry:
    """The image of a runtime, built unless it is there and made from the same recipe (or with `force` in any case).

    `mirror` replaces Debian's. `progress` gets the phase's name (of PHASES) and how much of it is done, 0 to 1. Raises
    ImageError; then, and when interrupted, nothing of the build is left.
    """
    _check_host()
    recipe = load_recipe(runtime)
    if not force and (entry := current(config, recipe)):
        return entry
    report = progress or (lambda phase, done: None)
    umask = os.umask(0o022)  # the namespace's root reads, as anybody else, what is laid out for it
    try:
        with store.building_directory(config, runtime) as work:
            sealed = _make(recipe, work, mirror, report)
            return _put_in_place(config, recipe, work / "space" / "rootfs", sealed)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ImageError(_disk_full(config)) from error
        raise ImageError(f"building {runtime}: {error}") from error
    except StepFailedInNamespace as error:
        if _FULL.search(error.output):
            raise ImageError(_disk_full(config)) from error
        raise
    finally:
        os.umask(umask)


def current(config: Config, recipe: Recipe) -> ImageEntry | None:
    """The image that is there of exactly this recipe, or None."""
    try:
        entry = store.read_entry(config, recipe.runtime)
    except ImageError:
        return None
    there = entry is not None and entry.recipe == recipe.digest and (config.images_dir / entry.digest).is_dir()
    return entry if there else None


def _check_host() -> None:
    if os.geteuid() != 0:
        raise ImageError("images are built by root: it gives the build a range of uids of its own (use sudo)")
    for program, packages in _PROGRAMS.items():
        if not shutil.which(program):
            raise ImageError(f"{program} is missing; install it with: apt-get install {packages}")


def _disk_full(config: Config) -> str:
    return f"the disk is full: a build takes up to 1 GB below {config.images_dir}; nothing of it was kept"


def _make(recipe: Recipe, work: Path, mirror: str | None, report: Progress) -> Sealed:
    space = work / "space"
    build_directory = space / "build"
    for name, path in ingredients(recipe.directory, recipe.runtime).items():
        target = build_directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    with build_namespace(space) as namespace:
        _unpack_packages(recipe.suite, recipe.packages, "/tmp/rootfs", namespace, mirror, report)
        report("runtime client", 0)
        if recipe.requirements:
            fetch_client(recipe, build_directory / "wheels")
        if recipe.npm:
            npm.fetch(recipe.npm, build_directory / "npm", work / "npm-cache")
        if recipe.tools:
            _unpack_packages(recipe.suite, recipe.tools, TOOLS, namespace, mirror, lambda phase, done: None)
        _tailor(recipe, namespace, report)
    entries = sum(len(directories) + len(files) for _, directories, files in os.walk(space / "rootfs"))
    report("seal", 0)
    sealed = seal(space / "rootfs", UIDS, recipe.modes, lambda count: report("seal", min(1, count / (entries + 1))))
    size = max(sealed.bytes, sealed.allocated) / (1 << 20)
    if size > recipe.max_mb:
        raise ImageError(f"the image of {recipe.runtime} has {size:.1f} MB, which is over its {recipe.max_mb} MB")
    return sealed


def fetch_client(recipe: Recipe, target: Path) -> None:
    """Download the runtime client and what it needs as wheels; they are unpacked later, inside the namespace.

    Raises ImageError.
    """
    machine, short = os.uname().machine, recipe.python.replace(".", "")
    # A download that outlived a killed maker would write into a directory that the next build removes.
    pip = ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = ["--quiet", "--only-binary=:all:", f"--dest={target}", f"--python-version={recipe.python}"]
    options += [f"--platform={name}_{machine}" for name in ("manylinux2014", "manylinux_2_28")]
    options += ["--implementation=cp", f"--abi=cp{short}", "--abi=abi3", "--abi=none"]
    command = [*pip, "download", *options, *recipe.requirements]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.strip()] or ["pip failed"]
        if "No module named pip" in done.stderr:
            raise ImageError(f"{sys.executable} has no pip; install it with: {sys.executable} -m ensurepip")
        raise ImageError(f"the runtime client cannot be downloaded ({', '.join(recipe.requirements)}): {errors[-1]}")


def _unpack_packages(
    suite: str, names: Sequence[str], target: str, namespace: Namespace, mirror: str | None, report: Progress
) -> None:
    options = ["--verbose", "--mode=unshare", "--variant=extract", "--format=directory", "--aptopt=Acquire::Retries 2"]
    options += [f"--aptopt={option}" for option in _apt_proxies()]
    merged = 'for d in bin lib lib64 sbin; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
    options += [f"--setup-hook={merged}", f"--include={','.join(names)}"]

    phase, packages = "package lists", 0

    def line(text: str) -> None:
        nonlocal phase, packages
        if match := re.match(r"\d+ upgraded, (\d+) newly installed", text):
            packages = int(match[1])
        elif (match := re.match(r"Get:(\d+) ", text)) and phase == "download":
            report(phase, min(1, int(match[1]) / max(1, packages)))
        for start, next_phase in _MMDEBSTRAP_PHASES.items():
            if text.startswith(f"I: {start}"):
                phase = next_phase
                report(phase, 0)

    try:
        namespace.run(["mmdebstrap", *options, suite, target, *([mirror] if mirror else [])], line)
    except StepFailedInNamespace as error:
        reasons = [line for line in error.output.splitlines() if _UNREACHABLE.search(line)]
        if reasons:
            raise ImageError(f"the package mirror cannot be reached: {reasons[0].strip()}") from error
        raise


def _apt_proxies() -> list[str]:
    """The proxies that the host's apt is told to use; mmdebstrap reads nothing of the host's configuration."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    lines = [line.strip() for line in done.stdout.splitlines()]
    return [line for line in lines if re.match(r'Acquire::https?::(Proxy|Proxy::\S+) "[^"]+";$', line)]


def _tailor(recipe: Recipe, namespace: Namespace, report: Progress) -> None:
    files = compiled = 0

    def line(text: str) -> None:
        nonlocal files, compiled
        if match := re.fullmatch(r"tailor: compile (\d+)", text):
            files = int(match[1])
            report("compile", 0)
        elif text.startswith("Compiling "):
            compiled += 1
            report("compile", min(1, compiled / max(1, files)))

    report("tailor", 0)
    command = ["/bin/sh", "/tmp/build/tailor", *recipe.prune]
    namespace.run(command, line, ROOT="/tmp/rootfs", BUILD="/tmp/build", TOOLS=TOOLS, PYTHON=recipe.python)


def _is_whole(tree: Path, recipe: Recipe, sealed: Sealed) -> bool:
    try:
        return seal(tree, {0}, recipe.modes).digest == sealed.digest
    except ImageError:
        return False


def _put_in_place(config: Config, recipe: Recipe, tree: Path, sealed: Sealed) -> ImageEntry:
    os.sync()  # a tree under its digest is whole, even after a power failure
    target = config.images_dir / sealed.digest
    if target.is_dir() and not _is_whole(target, recipe, sealed):
        os.rename(target, tree.parent / "damaged")
    if not target.is_dir():  # else the same content is there already, and may be mounted: it stays
        os.rename(tree, target)
    built = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = ImageEntry(recipe.runtime, sealed.digest, sealed.bytes, built, recipe.digest)
    store.write_entry(config, entry)
    return entry
