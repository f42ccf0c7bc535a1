"""The filters and tests of templates: plain functions over plain data, nothing of Jinja's runtime.

They are called like Jinja's own and do the same on text, numbers, lists and mappings. None of them
reads an attribute of a Python object.
"""

from __future__ import annotations

import json
import math
import shlex
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class FilterError(Exception):
    """The value does not suit the filter; the message says why."""


class Missing:
    """A value that is not there: only `default`, `is defined` and truth can take it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __bool__(self) -> bool:
        return False


def as_text(value: Any) -> str:
    """How a value stands in a text: as it would be written in YAML or JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return to_json(value) if isinstance(value, list | tuple | dict) else str(value)


def to_json(value: Any, *_: Any, **__: Any) -> str:
    """The value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def quote_for_shell(value: Any) -> str:
    """The value as one word of a POSIX shell; a list as many."""
    if isinstance(value, list | tuple):
        return " ".join(shlex.quote(as_text(item)) for item in value)
    return shlex.quote(as_text(value))


def _items(value: Any) -> list[Any]:
    """The items that a loop would go over."""
    if not isinstance(value, list | tuple | dict | str):
        msg = f"it takes a list, not {_described(value)}"
        raise FilterError(msg)
    return list(value)


def _described(value: Any) -> str:
    if value is None or isinstance(value, Missing):
        return "nothing"
    if isinstance(value, bool):
        return as_text(value)
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, dict) else "a number"


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = f"it takes a mapping, not {_described(value)}"
        raise FilterError(msg)
    return value


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _float(value: Any, default: float = 0.0) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _round(value: Any, precision: int = 0, method: str = "common") -> float:
    if method == "common":
        return round(float(value), precision)
    scale = 10.0**precision
    return float((math.ceil if method == "ceil" else math.floor)(value * scale) / scale)


def _join(value: Any, d: str = "", attribute: Any = None) -> str:
    items = _items(value)
    if attribute is not None:
        items = [_get(item, attribute) for item in items]
    return as_text(d).join(as_text(item) for item in items)


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    return as_text(value).replace(as_text(old), as_text(new), count)


def _split(value: Any, separator: str | None = None) -> list[str]:
    return as_text(value).split(separator)


def _indent(value: Any, width: int = 4, first: bool = False) -> str:
    text = as_text(value).replace("\n", "\n" + " " * width)
    return " " * width + text if first else text


def _first(value: Any) -> Any:
    items = _items(value)
    return items[0] if items else Missing("the first of nothing")


def _last(value: Any) -> Any:
    items = _items(value)
    return items[-1] if items else Missing("the last of nothing")


def _least(value: Any, attribute: Any = None) -> Any:
    items = _sort(value, attribute=attribute)
    return items[0] if items else Missing("the least of nothing")


def _greatest(value: Any, attribute: Any = None) -> Any:
    items = _sort(value, attribute=attribute)
    return items[-1] if items else Missing("the greatest of nothing")


def _compare(one: Any, other: Any) -> int:
    if isinstance(one, str) and isinstance(other, str):
        one, other = one.casefold(), other.casefold()
    return int(one > other) - int(one < other)


def _sort(value: Any, reverse: bool = False, attribute: Any = None) -> list[Any]:
    key = cmp_to_key(_compare)
    return sorted(
        _items(value),
        key=lambda item: key(item if attribute is None else _get(item, attribute)),
        reverse=bool(reverse),
    )


def _sum(value: Any, attribute: Any = None, start: Any = 0) -> Any:
    items = _items(value)
    numbers = [item if attribute is None else _get(item, attribute) for item in items]
    if not all(isinstance(number, int | float) for number in numbers):
        msg = "it takes a list of numbers"
        raise FilterError(msg)
    return sum(numbers, start)


def _unique(value: Any) -> list[Any]:
    seen: dict[str, Any] = {}
    for item in _items(value):
        seen.setdefault(to_json(item), item)
    return list(seen.values())


def _get(item: Any, attribute: Any) -> Any:
    """A value inside mappings and lists, by a dotted path."""
    for step in str(attribute).split("."):
        if isinstance(item, dict):
            item = item.get(step)
        elif isinstance(item, list | tuple) and step.isdigit() and int(step) < len(item):
            item = item[int(step)]
        else:
            item = None
    return item


def _map(value: Any, name: Any = None, *args: Any, **named: Any) -> list[Any]:
    items = _items(value)
    if "attribute" in named:
        fallback = named.get("default")
        found = [_get(item, named["attribute"]) for item in items]
        return [fallback if item is None else item for item in found]
    if name not in FILTERS or name == "map":
        msg = "`map` takes the name of another filter, or `attribute=`"
        raise FilterError(msg)
    return [FILTERS[name](item, *args, **named) for item in items]


def _select(wanted: bool, attribute: bool) -> Callable[..., list[Any]]:
    def chosen(value: Any, *args: Any) -> list[Any]:
        name, rest = None, list(args)
        if attribute:
            if not rest:
                msg = "it takes the name of an attribute"
                raise FilterError(msg)
            name = rest.pop(0)
        test = TESTS.get(rest.pop(0)) if rest else bool
        if test is None:
            msg = "it takes the name of a test"
            raise FilterError(msg)
        items = _items(value)
        return [
            item
            for item in items
            if bool(test(item if name is None else _get(item, name), *rest)) == wanted
        ]

    return chosen


def _pairs(value: Any) -> list[list[Any]]:
    return [[key, item] for key, item in _mapping(value).items()]


def _reverse(value: Any) -> Any:
    return value[::-1] if isinstance(value, str) else _items(value)[::-1]


def _by_text(work: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: work(as_text(value))


def _trim(value: Any, chars: str | None = None) -> str:
    return as_text(value).strip(chars)


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "capitalize": _by_text(str.capitalize),
    "count": lambda value: len(_items(value)),
    "dictsort": lambda value: sorted(_pairs(value), key=lambda pair: str(pair[0]).casefold()),
    "first": _first,
    "float": _float,
    "indent": _indent,
    "int": _int,
    "items": _pairs,
    "join": _join,
    "last": _last,
    "length": lambda value: len(_items(value)),
    "list": _items,
    "lower": _by_text(str.lower),
    "map": _map,
    "max": _greatest,
    "min": _least,
    "reject": _select(wanted=False, attribute=False),
    "rejectattr": _select(wanted=False, attribute=True),
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "select": _select(wanted=True, attribute=False),
    "selectattr": _select(wanted=True, attribute=True),
    "sh": quote_for_shell,
    "sort": _sort,
    "split": _split,
    "string": as_text,
    "sum": _sum,
    "title": _by_text(str.title),
    "tojson": to_json,
    "trim": _trim,
    "unique": _unique,
    "upper": _by_text(str.upper),
}
"""By name; `default` (or `d`) is part of the evaluation, since it takes what is missing."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contains(value: Any, where: Any) -> bool:
    return value in where


TESTS: dict[str, Callable[..., Any]] = {
    "boolean": lambda value: isinstance(value, bool),
    "divisibleby": lambda value, number: value % number == 0,
    "eq": lambda value, other: value == other,
    "equalto": lambda value, other: value == other,
    "even": lambda value: value % 2 == 0,
    "false": lambda value: value is False,
    "float": lambda value: isinstance(value, float),
    "ge": lambda value, other: value >= other,
    "gt": lambda value, other: value > other,
    "in": _contains,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "iterable": lambda value: isinstance(value, str | list | tuple | dict),
    "le": lambda value, other: value <= other,
    "lt": lambda value, other: value < other,
    "mapping": lambda value: isinstance(value, dict),
    "ne": lambda value, other: value != other,
    "number": _is_number,
    "odd": lambda value: value % 2 == 1,
    "sequence": lambda value: isinstance(value, str | list | tuple),
    "string": lambda value: isinstance(value, str),
    "true": lambda value: value is True,
}


def names(table: Iterable[str], *more: str) -> list[str]:
    """The names of filters or tests, with those that the evaluation knows itself."""
    return sorted([*table, *more])
