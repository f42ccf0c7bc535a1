"""`output.schema`: a JSON schema inside the recipe, checked by `jsonschema` itself."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from kaos_runner.recipe.nodes import problem_at
from kaos_runner.recipe.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.errors import Problem
    from kaos_runner.recipe.nodes import Node, Path


def schema_problems(node: Node, path: Path) -> Iterator[Problem]:
    """What is wrong with a JSON schema, at the place inside it."""
    for inner, told in _faults(json.dumps(node.plain())).items():
        spot = node.nearest(inner)
        message, hint = f"not a JSON schema: {told[:120]}", None
        if inner[-1:] == ("type",) and isinstance(spot.value, str):
            message, hint = (
                f"`{spot.value[:40]}` is no JSON type",
                did_you_mean(spot.value, _TYPES),
            )
        yield problem_at(spot, message, hint=hint, path=(*path, *inner))


@lru_cache(maxsize=256)
def _faults(text: str) -> dict[tuple[str | int, ...], str]:
    """The first fault at each place of a schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    schema = json.loads(text)
    validator = validator_for(schema, default=Draft202012Validator)
    found: dict[tuple[str | int, ...], str] = {}
    for error in validator(validator.META_SCHEMA).iter_errors(schema):
        found.setdefault(tuple(error.absolute_path), error.message)
    return found


_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
