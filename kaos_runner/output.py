"""Structured output: what a prompt asks the agent to answer, and whether it did."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(?P<body>.*?)\n\s*```\s*\Z", re.DOTALL | re.IGNORECASE)


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
    from jsonschema.validators import validator_for

    fence = _FENCE.match(message)
    try:
        value = json.loads(fence["body"] if fence else message, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return None, f"the final message is not JSON: {error}"
    validator = validator_for(schema)(schema)
    faults = sorted(validator.iter_errors(value), key=lambda e: list(map(str, e.absolute_path)))
    if not faults:
        return value, None
    return value, "; ".join(f"{fault.json_path}: {fault.message[:500]}" for fault in faults[:10])


def _refuse(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
