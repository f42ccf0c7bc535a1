"""The schema as the library runs it, and what is said of schemas that only third parties write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kaos_runner.recipe.check import Checker
from kaos_runner.recipe.compose import compose
from kaos_runner.recipe.source import Source


def _told(schema: dict[str, Any], document: Any) -> list[str]:
    text = json.dumps(document)
    node, _ = compose(Source("f", Path("f"), text, text.encode()))
    assert node is not None
    return [f"{p.path}: {p.message}" for p in Checker({"$defs": {}, **schema}).check(node).problems]


def _of(part: dict[str, Any], **definitions: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": part}, "$defs": definitions}


def test_a_type_may_hold_itself() -> None:
    box = {
        "type": "object",
        "properties": {"in": {"$ref": "#/$defs/Box"}, "size": {"type": "integer"}},
        "additionalProperties": False,
    }
    schema = _of({"$ref": "#/$defs/Box"}, Box=box)
    assert _told(schema, {"a": {"in": {"in": {"size": 1}}}}) == []
    assert _told(schema, {"a": {"in": {"in": {"size": "x"}}}}) == [
        'a.in.in.size: expected a whole number, found `"x"`'
    ]


def test_rules_beside_a_reference_do_not_replace_those_of_its_type() -> None:
    schema = _of(
        {"$ref": "#/$defs/Short", "maxLength": 9}, Short={"type": "string", "maxLength": 3}
    )
    assert _told(schema, {"a": "abc"}) == []
    assert _told(schema, {"a": "abcd"}) == ["a: `abcd` is not text"]


def test_a_pattern_ends_where_the_text_does() -> None:
    schema = _of({"type": "string", "pattern": "^[a-z]$"})
    assert _told(schema, {"a": "x"}) == []
    assert _told(schema, {"a": "x\n"}) == ["a: `x` is not text"]


def test_nothing_is_a_keyword_among_the_names_of_keys() -> None:
    names = ["$ref", "description", "default", "pattern", "allOf", "enum", "x-one-of"]
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}
    found = _told(schema, dict.fromkeys(names, "x"))
    assert len(found) == len(names)


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ({"type": "array", "uniqueItems": True}, [1, 1], "[1, 1] has non-unique elements"),
        ({"type": "integer", "multipleOf": 4}, 6, "6 is not a multiple of 4"),
        ({"not": {"type": "string"}}, "x", "this is not allowed here"),
        ({"type": "array", "maxItems": 1}, [1, 2], "the list takes at most 1 entries"),
    ],
)
def test_every_keyword_counts(part: dict[str, Any], value: Any, told: str) -> None:
    assert _told(_of(part), {"a": value}) == [f"a: {told}"]


def test_false_allows_nothing() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": False}}
    assert _told(schema, {"a": 1}) == ["a: this is not allowed here"]
    names: dict[str, Any] = {"type": "object", "propertyNames": False}
    assert _told(names, {"a": 1}) == ["a: `a` is not something else"]
