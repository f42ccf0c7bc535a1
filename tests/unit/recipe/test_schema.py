"""The schema: fresh, complete for an editor, and of one mind with `jsonschema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kaos_runner.recipe.check import Checker
from kaos_runner.recipe.compose import compose
from kaos_runner.recipe.generate import ROOT, generated
from kaos_runner.recipe.schema import BUILTIN_BACKENDS, committed_schema
from kaos_runner.recipe.source import Source, read_source

RECIPES = Path(__file__).parents[2] / "recipes"
KNOWN_KEYWORDS = {
    "$ref", "$schema", "$defs", "type", "enum", "const", "anyOf", "allOf", "not", "if", "then",
    "properties", "patternProperties", "additionalProperties", "propertyNames", "required", "items",
    "minItems", "maxItems", "minLength", "maxLength", "pattern", "minimum", "maximum",
    "exclusiveMinimum", "title", "description", "examples", "default",
    "errorMessage", "patternErrorMessage",
}  # fmt: skip
"""What `check.py` understands, and what says nothing about validity."""


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


def test_no_keyword_is_overlooked() -> None:
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


LIBRARY = Draft202012Validator(committed_schema())
CHECKER = Checker(committed_schema())


def _plain(path: Path) -> Any:
    node, _ = compose(read_source(path, path.name))
    assert node is not None
    return node.plain()


VALID = {path.stem: _plain(path) for path in sorted(RECIPES.glob("valid/*.yaml"))}


def _agree(document: Any) -> None:
    text = json.dumps(document)
    node, problems = compose(Source("f", Path("f"), text, text.encode()))
    assert problems == []
    assert node is not None
    ours = [str(problem) for problem in CHECKER.check(node).problems]
    theirs = [error.message for error in LIBRARY.iter_errors(document)]
    assert bool(ours) == bool(theirs), (document, ours, theirs)


@pytest.mark.parametrize("name", VALID)
def test_library_agrees_on_valid_recipes(name: str) -> None:
    _agree(VALID[name])


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _paths(item, (*path, index))
    return found


KEYS = sorted({key for _, part in _parts(committed_schema()) for key in part.get("properties", {})})
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.sampled_from([0.5, 2.0, -1.0, 1e9]),
    st.sampled_from(["", "x", "30m", "0s", "400k", "local", "e2b", "sprites", "boxlite", "nowhere",
                     "true", "{{ params.target }}", " {{ x }} ", "{{ a }}b", "always", "A-B", "1B",
                     "shell", "*", "allow", "string", "on_success", "plan.md", "a b"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, "x-free", "nothing"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_library_agrees_on_mutated_recipes(data: st.DataObject) -> None:
    document = json.loads(json.dumps(VALID[data.draw(st.sampled_from(sorted(VALID)))]))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(document)))
        home = document
        for step in path[:-1]:
            home = home[step]
        change = data.draw(st.sampled_from(["set", "drop", "add"]))
        if change == "set":
            home[path[-1]] = data.draw(VALUES)
        elif change == "drop":
            del home[path[-1]]
        elif isinstance(home, dict):
            home[data.draw(st.sampled_from([*KEYS, "x-free", "nothing"]))] = data.draw(VALUES)
        if not _paths(document):
            break
    _agree(document)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "x-free"]), VALUES, max_size=6))
@example({"version": True})
@example({"version": 1.0, "name": "a", "backend": {"type": "local"}, "prompts": [{"file": "x"}]})
@example({"extends": "x", "backend": {"type": "sprites", "image": "x"}, "image": "y"})
def test_library_agrees_on_made_up_documents(document: dict[str, Any]) -> None:
    _agree(document)
