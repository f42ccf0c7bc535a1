"""Structured output: what a prompt asks the agent to answer, and whether it did.

The schema is the recipe's and the answer is the model's: neither is trusted. No reference leads out
of the schema, and no pattern takes longer than a moment.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(?P<body>.*?)\n\s*```\s*\Z", re.DOTALL | re.IGNORECASE)
PATTERN_SECONDS = 1.0
"""What one match of a pattern may take."""


def instruction(schema: dict[str, Any]) -> str:
    """The words that follow a prompt's text when it has an output schema."""
    return (
        "\n\nWhen you are done, end with a final message that is one JSON document and nothing "
        "else: no prose and no code fence around it. It must be valid against this JSON schema:\n"
        + json.dumps(schema, indent=2, ensure_ascii=False)
    )


def parse(message: str, schema: dict[str, Any]) -> tuple[Any, str | None]:
    """The final message as data, and what is wrong with it (None: it is valid).

    One code fence around the document is forgiven, since models add it even when told not to.
    """
    fence = _FENCE.match(message)
    try:
        value = json.loads(
            fence["body"] if fence else message, parse_constant=_refuse, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return None, f"the final message is not JSON: {error}"
    try:
        faults = sorted(_faults(value, schema), key=lambda e: list(map(str, e.absolute_path)))
    except RecursionError:
        return None, "the final message cannot be checked: the schema refers to itself without end"
    except Exception as error:  # whatever the library makes of a schema, the answer is not valid
        return None, f"the final message cannot be checked against the schema: {error}"
    if not faults:
        return value, None
    return value, "; ".join(f"{fault.json_path}: {fault.message[:500]}" for fault in faults[:10])


def _faults(value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    import referencing
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend, validator_for

    kind = extend(  # type: ignore[no-untyped-call]
        validator_for(schema, default=Draft202012Validator),
        {"pattern": _pattern, "patternProperties": _pattern_properties},
    )
    # A registry of its own: the library's default fetches files and URLs.
    return kind(schema, registry=referencing.Registry()).iter_errors(value)  # type: ignore[no-any-return]


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError(f"{instance[:200]!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Any, instance: Any, _schema: Any
) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for key, value in instance.items():
            if _found(pattern, key):
                yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _found(pattern: str, text: str) -> bool:
    import regex

    try:
        return regex.search(pattern, text, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        msg = f"the pattern {pattern!r} takes too long"
        raise ValueError(msg) from None


def _refuse(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = f"{text[:40]} is beyond all numbers"
        raise ValueError(msg)
    return number
