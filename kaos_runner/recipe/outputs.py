"""`output.schema`: a JSON schema inside the recipe, checked by `jsonschema` itself."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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
    for place, told in _dead_ends(schema, schema, ()):
        found.setdefault(place, told)
    return found


def _dead_ends(
    schema: Any, root: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """References that lead out of the schema or nowhere, and patterns that are none."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _dead_ends(item, root, (*path, index))
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        place = (*path, key)
        if key in ("const", "enum", "default", "examples"):
            continue
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            if told := _reference_fault(value, root):
                yield place, told
        elif key == "pattern" and isinstance(value, str):
            if told := _pattern_fault(value):
                yield place, told
        elif key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                if told := _pattern_fault(pattern):
                    yield (*place, pattern), told
            yield from _dead_ends(value, root, place)
        else:
            yield from _dead_ends(value, root, place)


def _reference_fault(reference: str, root: Any) -> str | None:
    if not reference.startswith("#"):
        return "a reference must begin with `#`: nothing is fetched"
    if reference == "#":
        return None
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = DRAFT202012.create_resource(root)
    try:
        Registry().with_resource("", resource).resolver().lookup(reference)
    except (Unresolvable, ValueError):
        return f"`{reference[:80]}` leads nowhere in this schema"
    return None


def _pattern_fault(pattern: str) -> str | None:
    import regex

    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
    return None


_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
