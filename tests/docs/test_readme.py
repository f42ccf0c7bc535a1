"""The README's commands and its recipe do what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def commands() -> list[str]:
    """Every `kaos-runner` command of the README that needs no key and no network."""
    lines = re.findall(r"^\$ (kaos-runner .*?)(?:\s+#.*)?$", README, re.MULTILINE)
    return [line for line in lines if "--model" not in line and "--record" not in line]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's reader stands in: a checkout, with a cassette of their own."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "schemas", folder / "schemas")
    shutil.copy(ROOT / "recipes" / "cassettes" / "quickstart.yaml", folder / "tape.yaml")
    return folder


def test_the_commands_of_the_readme_end_well(checkout: Path) -> None:
    assert len(commands()) >= 4
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", command.replace("kaos-runner", '"$PYTHON" -m kaos_runner', 1)],
            cwd=checkout,
            env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        # Only --replay's file lies outside of the recipe's folder, and that is the user's word.
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_recipe_of_the_readme_is_valid(checkout: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    file = checkout / "recipes" / "readme.yaml"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "kaos_runner", "validate", "--strict", file],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    for target in ("demo", "test"):
        assert f"$ make {target}" in README
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_run_by_a_test(recipe: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kaos_runner", "validate", "--strict", recipe],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(recipe.read_text())["description"]
    tests = "".join(file.read_text() for file in (ROOT / "tests" / "cli").glob("test_*.py"))
    assert recipe.name in tests, f"no test in tests/cli runs {shlex.quote(recipe.name)}"
