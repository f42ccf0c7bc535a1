"""Writes the expected problems anew: `python -m tests.recipes.regenerate`; read the difference."""

from __future__ import annotations

import contextlib
from pathlib import Path

from kaos_runner.recipe.load import load
from kaos_runner.recipe.report import as_text

HERE = Path(__file__).parent
FAULTY = sorted([*HERE.glob("invalid/*.yaml"), *HERE.glob("warned/*.yaml")])


def told(recipe: Path) -> str:
    """The problems of a recipe as `validate` words them, seen from the recipe's own folder."""
    with contextlib.chdir(recipe.parent):
        return as_text(load(recipe.name).problems) + "\n"


def main() -> None:
    """Write a `.txt` beside every faulty recipe."""
    for recipe in FAULTY:
        recipe.with_suffix(".txt").write_text(told(recipe), encoding="utf-8")


if __name__ == "__main__":
    main()
