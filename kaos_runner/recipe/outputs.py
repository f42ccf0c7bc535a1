"""`output.schema`: a JSON schema inside the recipe, checked by `jsonschema` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos_runner.recipe.nodes import problem_at
from kaos_runner.recipe.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.errors import Problem
    from kaos_runner.recipe.nodes import Node, Path


def schema_problems(node: Node, path: Path) -> Iterator[Problem]:
    """What is wrong with a JSON schema, at the place inside it."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    schema = node.plain()
    validator = validator_for(schema, default=Draft202012Validator)
    meta = validator(validator.META_SCHEMA)
    seen = set()
    for error in meta.iter_errors(schema):
        inner = tuple(error.absolute_path)
        if inner not in seen:
            seen.add(inner)
            spot = node.nearest(inner)
            message, hint = f"not a JSON schema: {error.message[:120]}", None
            if inner[-1:] == ("type",) and isinstance(spot.value, str):
                message, hint = (
                    f"`{spot.value[:40]}` is no JSON type",
                    did_you_mean(spot.value, _TYPES),
                )
            yield problem_at(spot, message, hint=hint, path=(*path, *inner))


_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
