"""The manual pages, as scripts/install has them made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.cli import COMMANDS
from tests.cli.test_command_line import leaves

pytestmark = pytest.mark.skipif(shutil.which("groff") is None, reason="shows pages with groff")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("share") / "man" / "man1"
    subprocess.run([sys.executable, "-I", "-m", "sandboxd.cli.manual", directory], timeout=120, check=True)
    return directory


def groff(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["groff", "-man", "-Tutf8", "-P-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def words(page: Path) -> str:
    """What a page says; the width is large enough that no option is split, and overstruck letters are plain."""
    return " ".join(groff("-rHY=0", "-rLL=200n", "-P-buo", page).stdout.split())


def test_every_command_has_a_page(pages: Path) -> None:
    made = {page.name for page in pages.iterdir()}
    assert {f"sandboxd-{'-'.join(leaf)}.1" for leaf in leaves()} <= made
    assert {f"sandboxd-{name}.1" for name in COMMANDS} | {"sandboxd.1"} <= made


def test_pages_are_without_a_fault(pages: Path) -> None:
    assert groff("-ww", "-z", *sorted(pages.iterdir())).stderr == ""


def test_what_a_page_says(pages: Path) -> None:
    page = words(pages / "sandboxd-invoke.1")
    assert "sandboxd-invoke - Invoke the function NAME" in page
    assert """sandboxd invoke hello --payload '{"name": "world"}' --log""" in page  # to be copied into a shell
    assert "-p, --payload JSON|@FILE|- The event; - reads standard input." in page
    assert "-h, --help" in page and page.startswith("SANDBOXD-INVOKE(1) sandboxd SANDBOXD-INVOKE(1) NAME")
    whole = words(pages / "sandboxd.1")
    assert "125 the daemon cannot be reached" in whole
    assert all(f"sandboxd-{name}(1)" in whole for name in COMMANDS)
    assert "sandboxd-layer-permission(1)" in words(pages / "sandboxd-layer.1")


def test_the_commands_do_without_what_makes_pages() -> None:
    code = "import sys, sandboxd.cli as c\nfor n in c.COMMANDS: c.cli.get_command(None, n)\nprint(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "sandboxd.cli.layer" in shown and "click_man" not in shown
