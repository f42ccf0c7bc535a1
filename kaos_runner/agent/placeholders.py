"""The workdir in a cassette's strings: written as `${workdir}`, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "${workdir}"
_ESCAPED = "$${workdir}"


def put(text: str, workdir: str) -> str:
    """The text with the workdir as a placeholder."""
    return text.replace(MARK, _ESCAPED).replace(workdir, MARK)


def fill(text: str, workdir: str) -> str:
    """The text with the placeholder as the workdir."""
    parts = text.split(_ESCAPED)
    return MARK.join(part.replace(MARK, workdir) for part in parts)


def over(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON-like value with every string in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k): over(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [over(v, change) for v in value]
    return value
