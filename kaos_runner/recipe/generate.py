"""Writes `schemas/` and `docs/recipe.md`: `python -m kaos_runner.recipe.generate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.schema import SCHEMA_ID

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).parents[2]


def generated() -> dict[Path, str]:
    """Every generated file, relative to the repository, with its text."""
    from kaos_runner.events import Record
    from kaos_runner.recipe.reference import reference
    from kaos_runner.recipe.registry import backend_classes
    from kaos_runner.recipe.schema import BUILTIN_BACKENDS, recipe_schema
    from kaos_runner.result import Result

    ours = {n: b for n, b in backend_classes().items() if n in BUILTIN_BACKENDS}
    recipe = recipe_schema(ours)
    schemas = {"recipe": recipe, "event": _schema_of(Record), "result": _schema_of(Result)}
    texts = {Path(f"schemas/{name}.schema.json"): _json(each) for name, each in schemas.items()}
    return {**texts, Path("docs/recipe.md"): reference(recipe)}


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": SCHEMA_ID, "title": schema.pop("title"), **schema}


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
