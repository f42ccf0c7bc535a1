"""Durations, sizes and counts: written with units, kept as seconds, bytes and plain numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from kaos_runner.recipe.quantities import (
    COUNT_PATTERN,
    DURATION_PATTERN,
    SIZE_PATTERN,
    parse_count,
    parse_duration,
    parse_size,
)

type Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0),
    WithJsonSchema(
        {
            "title": "Duration",
            "description": "A duration with its unit: ms, s, m, h or d.",
            "type": "string",
            "pattern": DURATION_PATTERN,
            "examples": ["90s", "15m", "2h"],
        }
    ),
]
type Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(gt=0),
    WithJsonSchema(
        {
            "title": "Size",
            "description": "A size with its unit: B, KiB, MiB, GiB, TiB, KB, MB, GB or TB.",
            "type": "string",
            "pattern": SIZE_PATTERN,
            "examples": ["512MiB", "8GiB"],
        }
    ),
]
type Count = Annotated[
    int,
    BeforeValidator(parse_count),
    Field(gt=0),
    WithJsonSchema(
        {
            "title": "Count",
            "description": "A whole number above 0; `k` stands for thousands, `m` for millions.",
            "anyOf": [
                {"title": "Count", "type": "integer", "exclusiveMinimum": 0, "maximum": 10**15},
                {"title": "Count", "type": "string", "pattern": COUNT_PATTERN},
            ],
            "examples": [80, "400k", "2m"],
        }
    ),
]
