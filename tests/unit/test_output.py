"""Structured output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.output import parse

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = {"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}}}


@pytest.mark.parametrize(
    "message",
    [
        '{"title": "x"}',
        '\n {"title": "x"}\n',
        '```json\n{"title": "x"}\n```',
        '```\n{"title": "x"}\n```\n',
    ],
)
def test_accepts_json_with_at_most_a_fence_around_it(message: str) -> None:
    assert parse(message, SCHEMA) == ({"title": "x"}, None)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Done!", "not JSON"),
        ('Here it is: {"title": "x"}', "not JSON"),
        ('{"title": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"title": 1}', "$.title: 1 is not of type 'string'"),
        ("{}", "'title' is a required property"),
        ('{"title": 1e400}', "beyond all numbers"),
        ('{"title": "\\ud800"}', "not JSON"),
    ],
)
def test_says_what_is_wrong(message: str, fault: str) -> None:
    _, told = parse(message, SCHEMA)
    assert told is not None
    assert fault in told


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$id": "http://127.0.0.1:9/x", "$dynamicRef": "y#z"},
        {"pattern": "("},
        {"pattern": "^(a+)+$"},
        {"patternProperties": {"^(a+)+$": True}},
    ],
)
def test_a_schema_that_cannot_be_applied_is_a_fault_within_a_moment(schema: dict[str, Any]) -> None:
    long = "a" * 60 + "!"
    for message in (json.dumps(long), json.dumps({long: long})):
        _, told = parse(message, schema)
        if told is not None:
            assert "hostname" not in told or "file:///" in told
    assert parse(json.dumps(long), {"pattern": "^a+!$"}) == (long, None)


def test_nothing_is_fetched_for_a_reference(tmp_path: Path) -> None:
    secret = tmp_path / "host.json"
    secret.write_text('{"const": "CONTENT-OF-THE-HOST"}')
    _, told = parse('"x"', {"$ref": secret.as_uri()})
    assert told is not None
    assert "CONTENT-OF-THE-HOST" not in told
