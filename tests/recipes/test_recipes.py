"""Every recipe of `valid/`, `warned/` and `invalid/`, with the expected problems beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kaos_runner.cli import run_command_line
from kaos_runner.recipe.load import load
from tests.recipes.regenerate import FAULTY, HERE, told

if TYPE_CHECKING:
    from pathlib import Path

VALID = sorted(HERE.glob("valid/*.yaml"))


def _id(recipe: Path) -> str:
    return f"{recipe.parent.name}/{recipe.stem}"


def test_there_are_recipes_of_each_kind() -> None:
    invalid = [recipe for recipe in FAULTY if recipe.parent.name == "invalid"]
    assert len(invalid) >= 100
    assert len(VALID) >= 6


@pytest.mark.parametrize("recipe", VALID, ids=_id)
def test_valid_recipe_has_no_problem(recipe: Path) -> None:
    assert load(recipe).problems == ()


@pytest.mark.parametrize("recipe", FAULTY, ids=_id)
def test_faulty_recipe_has_its_problems(recipe: Path) -> None:
    golden = recipe.with_suffix(".txt").read_text(encoding="utf-8")
    assert told(recipe) == golden, "regenerate with `python -m tests.recipes.regenerate`"


@pytest.mark.parametrize("recipe", FAULTY, ids=_id)
def test_every_error_has_its_place(recipe: Path) -> None:
    problems = load(recipe).problems
    assert problems
    for problem in problems:
        assert problem.file
        if recipe.stem not in ("binary", "utf16"):
            assert problem.line
            assert problem.column


def test_no_golden_file_is_left_over() -> None:
    texts = {*HERE.glob("invalid/*.txt"), *HERE.glob("warned/*.txt")}
    assert texts == {recipe.with_suffix(".txt") for recipe in FAULTY}


def test_command_ends_with_2_on_each_invalid_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(HERE / "invalid")
    for recipe in FAULTY:
        if recipe.parent.name == "invalid":
            assert run_command_line(["validate", recipe.name]) == 2, recipe
            told = capsys.readouterr()
            assert told.out.startswith(recipe.with_suffix(".txt").read_text(encoding="utf-8"))
            assert told.err == ""


def _validate(*arguments: str, folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaos_runner", "validate", *arguments],
        cwd=HERE / folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_all_of_them_in_one_process() -> None:
    names = [recipe.name for recipe in FAULTY if recipe.parent.name == "invalid"]
    ended = _validate(*names, "--output", "json", folder="invalid")
    assert ended.returncode == 2
    recipes = json.loads(ended.stdout)["recipes"]
    assert [recipe["file"] for recipe in recipes] == names
    assert not any(recipe["valid"] for recipe in recipes)


def test_valid_recipes_end_with_0() -> None:
    names = [recipe.name for recipe in VALID]
    ended = _validate(*names, folder="valid")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count(": ok") == len(names)


def test_warnings_are_errors_only_when_strict() -> None:
    assert _validate("unused_parameter.yaml", folder="warned").returncode == 0
    strict = _validate("unused_parameter.yaml", "--strict", folder="warned")
    assert strict.returncode == 2
    assert "error: the parameter `target` is never used" in strict.stdout
