"""The YAML 1.2 core schema: what a plain scalar means, as editors read it."""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INF_NAN = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
_FIRST = frozenset("0123456789+-.")
MAX_DIGITS = 300
"""Longer numbers are refused: Python's own parsing of them takes quadratic time."""


class ScalarError(Exception):
    """The text is no value of its type; the message says why."""


def resolve_plain(text: str) -> Scalar:
    """The value of an untagged plain scalar.

    Raises:
        ScalarError: infinity, NaN, or a number of absurd length.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] not in _FIRST:
        return text
    return _number(text)


def _number(text: str) -> Scalar:
    if _INT.match(text):
        return int(_short(text))
    if _OCTAL.match(text):
        return int(_short(text)[2:], 8)
    if _HEX.match(text):
        return int(_short(text)[2:], 16)
    if _FLOAT.match(text):
        value = float(_short(text))
        if value in (float("inf"), float("-inf")):
            msg = "the number is too large"
            raise ScalarError(msg)
        return value
    if _INF_NAN.match(text):
        msg = f"`{text}` is not a number that a recipe can use"
        raise ScalarError(msg)
    return text


def _short(text: str) -> str:
    if len(text) > MAX_DIGITS:
        msg = f"the number has more than {MAX_DIGITS} digits"
        raise ScalarError(msg)
    return text


def resolve_tagged(tag: str, text: str) -> Scalar:
    """The value of a scalar with one of the core schema's own tags.

    Raises:
        ScalarError: the text does not fit the tag.
        KeyError: the tag is not a scalar's of the core schema.
    """
    wanted = _TAGS[tag]
    if wanted is str:
        return text
    value = resolve_plain(text)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        msg = f"`{text[:40]}` does not fit its tag `!!{tag.rpartition(':')[2]}`"
        raise ScalarError(msg)
    return value


_TAGS: dict[str, type] = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
}
