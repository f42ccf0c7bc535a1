"""`kaos-runner schema`: the JSON schema of a recipe, an event or a result."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from typing import Any


class Kind(StrEnum):
    """What the schema is of."""

    RECIPE = "recipe"
    EVENT = "event"
    RESULT = "result"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("schema")(schema)


def schema(
    kind: Annotated[Kind, typer.Argument(metavar="recipe|event|result")] = Kind.RECIPE,
) -> int:
    """Print the JSON schema of a recipe, of an event line, or of a result.

    The recipe's holds every backend that is installed here, third parties' included.
    """
    import json

    print(json.dumps(_schema(kind), indent=2, ensure_ascii=False))
    return 0


def _schema(kind: Kind) -> dict[str, Any]:
    from kaos_runner.recipe.schema import data_folder, installed_schema

    if kind is Kind.RECIPE:
        return installed_schema()
    import json

    text = (data_folder("schemas") / f"{kind}.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
