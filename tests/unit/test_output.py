"""Structured output."""

from __future__ import annotations

import pytest

from kaos_runner.output import parse

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
    ],
)
def test_says_what_is_wrong(message: str, fault: str) -> None:
    _, told = parse(message, SCHEMA)
    assert told is not None
    assert fault in told
