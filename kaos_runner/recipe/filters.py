"""Which of Jinja's filters and tests templates have, our own, and how values stand in text."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FILTERS = [
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "indent", "int",
    "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "replace", "reverse", "round", "select", "selectattr", "sh", "sort", "split", "string", "sum",
    "title", "tojson", "trim", "unique", "upper",
]  # fmt: skip
TESTS = [
    "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge", "gt",
    "in", "integer", "iterable", "le", "lt", "mapping", "ne", "none", "number", "odd", "sequence",
    "string", "true", "undefined",
]  # fmt: skip


def as_text(value: Any) -> str:
    """How a value stands in a text: as it would be written in YAML or JSON."""
    return value if isinstance(value, str) else to_json(value)


def to_json(value: Any) -> str:
    """The value as JSON on one line; Jinja's own `tojson` is for HTML and escapes quotes."""
    return json.dumps(value, ensure_ascii=False)


def quote_for_shell(value: Any) -> str:
    """The value as one word of a POSIX shell; a list as many."""
    if isinstance(value, list | tuple):
        return " ".join(shlex.quote(as_text(item)) for item in value)
    return shlex.quote(as_text(value))


OWN: dict[str, Callable[..., Any]] = {
    "sh": quote_for_shell,
    "split": str.split,
    "string": as_text,
    "tojson": to_json,
}
"""Filters that are not Jinja's."""
