"""What a value of a template weighs, and when it is too large or none at all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, UndefinedError

from kaos_runner.recipe.evaluate import TemplateError
from kaos_runner.recipe.filters import as_text

if TYPE_CHECKING:
    from typing import NoReturn

MAX_WEIGHT = 1 << 20
"""Characters of a value, and sixteen for each item in it; also of the whole text."""
MAX_BITS = 4096
MAX_INDENT = 300


class Missing(StrictUndefined):
    """A value that is not there: only `default`, `is defined` and truth can take it."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False

    @property
    def _undefined_message(self) -> str:
        hint = self._undefined_hint
        return hint.rstrip(".") if hint else f"`{self._undefined_name}` has no value"


def fail(message: str, hint: str | None = None) -> NoReturn:
    """Raise a template's error; its line is found out where it is caught."""
    raise TemplateError(message, hint=hint)


def present(value: Any) -> Any:
    """The value, unless there is none."""
    if value is None:
        fail("the value is `none`, which has no text", "write `… | default('…')`")
    if isinstance(value, Missing):
        raise UndefinedError(value._undefined_message)
    return value


def weight(value: Any) -> int:
    """Characters of a value and sixteen for each item, all that is inside counted, up to a limit.

    It stops as soon as the limit is passed: a list may hold the same list many times over.
    """
    total, todo = 0, [value]
    while todo and total <= MAX_WEIGHT:
        part = todo.pop()
        total += 16 + (len(part) if isinstance(part, str) else 0)
        if isinstance(part, dict):
            todo += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            todo += part
        elif isinstance(part, int | float):
            total += _digits(part)
        elif not isinstance(part, str) and part is not None:
            present(part)
            fail("the expression makes no plain value")
    return total


def _digits(number: float) -> int:
    """About how many, for those with more than a few."""
    bits = number.bit_length() if isinstance(number, int) else 0
    if bits > MAX_BITS or not (bits or math.isfinite(number)):
        fail("the expression makes too large a number")
    return bits // 3


def refuse_result(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large, before it is made."""
    pair = [value for value in (left, right) if isinstance(value, str | list | tuple)]
    if operator == "%" and pair:
        fail("`%` formats no text here", "use `~` to join values")
    times = next((value for value in (left, right) if isinstance(value, int)), 1)
    size = sum(len(part) if isinstance(part, str) else weight(part) for part in pair)
    if size * (times if operator == "*" else 1) > MAX_WEIGHT:
        fail("the expression makes too large a value")
    bits = left.bit_length() if isinstance(left, int) else 64
    if operator == "**" and isinstance(right, int | float) and bits * abs(right) > MAX_BITS:
        fail("the expression makes too large a number")


def refuse_growth(name: str, value: Any, args: tuple[Any, ...]) -> None:
    """Refuse a filter whose result could be out of all proportion to its input."""
    numbers = [abs(arg) for arg in args if isinstance(arg, int)]
    if name in ("indent", "round") and max(numbers, default=0) > MAX_INDENT:
        fail(f"`{name}` takes no number above {MAX_INDENT}")
    if name in ("indent", "join", "replace"):
        longest = max(
            [1, *(numbers if name == "indent" else ()), *(len(as_text(arg)) for arg in args)]
        )
        if weight(value) * longest > MAX_WEIGHT * 8:
            fail(f"`{name}` would make too large a value")
    if name == "sum" and any(isinstance(arg, list | tuple) for arg in args):
        fail("`sum` adds up numbers")
