"""Durations, sizes and counts as types: seconds, bytes and plain numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from kaos_runner.recipe.quantities import parse_count, parse_duration, parse_size

# How they are written stands in `schema.py`, whose `units` replace these in the schema.
type Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
type Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
type Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
