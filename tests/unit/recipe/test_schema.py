"""The schema: fresh, and complete for an editor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from kaos_runner.recipe.generate import ROOT, generated
from kaos_runner.recipe.schema import BUILTIN_BACKENDS, committed_schema

if TYPE_CHECKING:
    from pathlib import Path

KNOWN_KEYWORDS = {
    "$ref", "$schema", "$defs", "type", "enum", "const", "anyOf", "allOf", "not", "if", "then",
    "properties", "patternProperties", "additionalProperties", "propertyNames", "required", "items",
    "minItems", "maxItems", "minLength", "maxLength", "pattern", "minimum", "maximum",
    "exclusiveMinimum", "title", "description", "examples", "default",
    "errorMessage", "patternErrorMessage",
}  # fmt: skip
"""What `faults.py` has words for, and what says nothing about validity."""


@pytest.mark.parametrize("path", generated(), ids=str)
def test_generated_file_is_fresh(path: Path) -> None:
    written = (ROOT / path).read_text(encoding="utf-8")
    assert written == generated()[path], f"{path} is stale: run `make schemas`"


def test_schema_is_a_schema() -> None:
    for name in ("recipe", "event", "result"):
        text = (ROOT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
        Draft202012Validator.check_schema(json.loads(text))


def test_our_backends_are_in_the_committed_schema() -> None:
    assert tuple(committed_schema()["x-backends"]) == BUILTIN_BACKENDS


def _parts(part: Any, path: str = "#") -> list[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema; `properties` and the like are not schemas themselves."""
    found = [(path, part)]
    for key, value in part.items():
        if key in ("properties", "patternProperties", "$defs"):
            for name, each in value.items():
                found += _parts(each, f"{path}/{key}/{name}")
        elif key in ("items", "not", "if", "then", "propertyNames") or (
            key == "additionalProperties" and isinstance(value, dict)
        ):
            found += _parts(value, f"{path}/{key}")
        elif key in ("anyOf", "allOf"):
            for index, each in enumerate(value):
                found += _parts(each, f"{path}/{key}/{index}")
    return found


def test_there_are_words_for_every_keyword() -> None:
    unknown = {
        (path, key)
        for path, part in _parts(committed_schema())
        for key in part
        if key not in KNOWN_KEYWORDS and not key.startswith("x-")
    }
    assert unknown == set()


def test_every_field_tells_what_it_is() -> None:
    schema = committed_schema()
    homes = {"": schema, **schema["$defs"]}
    silent = [
        f"{home}.{name}"
        for home, part in homes.items()
        for name, field in part.get("properties", {}).items()
        if not (field.get("description") or _target(field).get("description"))
    ]
    assert silent == []


def _target(field: dict[str, Any]) -> dict[str, Any]:
    name = field.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = committed_schema()["$defs"].get(name, {})
    return found


def test_free_text_without_default_has_an_example() -> None:
    schema = committed_schema()
    homes = {name: part for name, part in schema["$defs"].items() if not _of_backend(name)}
    bare = [
        f"{home}.{name}"
        for home, part in {"": schema, **homes}.items()
        for name, field in part.get("properties", {}).items()
        if (field.get("type") == "string" or field.get("$ref") == "#/$defs/Text")
        and not field.keys() & {"examples", "default", "const", "enum"}
    ]
    assert bare == []


def _of_backend(name: str) -> bool:
    return name.startswith(("backend_", *(f"{each}_" for each in BUILTIN_BACKENDS)))


def test_defaults_and_examples_fit_their_fields() -> None:
    schema = committed_schema()
    for path, part in _parts(schema):
        for value in [*part.get("examples", ()), *([part["default"]] if "default" in part else [])]:
            whole = {**part, "$defs": schema["$defs"]}
            assert Draft202012Validator(whole).is_valid(value), f"{path}: {value!r}"
