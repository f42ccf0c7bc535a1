"""Writes `schemas/` and `docs/recipe.md`: `python -m kaos_runner.recipe.generate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def generated() -> dict[Path, str]:
    """Every generated file, relative to the repository, with its text."""
    from kaos_runner.recipe.registry import backend_classes
    from kaos_runner.recipe.schema import BUILTIN_BACKENDS, recipe_schema

    ours = {n: b for n, b in backend_classes().items() if n in BUILTIN_BACKENDS}
    return {Path("schemas/recipe.schema.json"): _json(recipe_schema(ours))}


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every file that has changed."""
    for path, text in generated().items():
        target = ROOT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
