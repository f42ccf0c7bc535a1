"""Parameters' patterns: regular expressions of the `regex` library, matched against the clock.

A recipe may be hostile, and matching backtracks: `(a+)+$` on thirty characters can take minutes.
The library's timeout bounds matching; what its compiler would unroll is bounded here.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

from kaos_runner.recipe.words import shown

MAX_PATTERN = 1000
MAX_MATCHED = 2000
"""Characters of the longest value that a pattern is tried on."""
MAX_REPEATS = 10_000
"""Product of the counts in braces: the compiler copies what is repeated."""
SECONDS = 1.0

_BRACES = re.compile(r"\{[^{}]*\}")
_GROUPS = re.compile(r"(?<!\\)(?:\\\\)*\(\?(?![:=!><]|P[<=])")
"""Groups that set flags, recurse or call: a pattern has no flags, and these have no bound."""


class PatternError(Exception):
    """The pattern cannot be used; the message says why."""


def compile_pattern(source: str) -> Any:
    """The pattern, ready to match.

    Raises:
        PatternError: it is none, is too large, or uses what cannot be bounded.
    """
    import regex

    if len(source) > MAX_PATTERN or math.prod(map(_count, _BRACES.findall(source))) > MAX_REPEATS:
        msg = "the pattern is too large"
        raise PatternError(msg)
    if _GROUPS.search(source):
        msg = "flags such as `(?i)` and recursion cannot be used"
        raise PatternError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return regex.compile(source)
    except (regex.error, OverflowError, RecursionError, MemoryError, ValueError) as error:
        msg = f"not a regular expression: {error}"
        raise PatternError(msg) from None


def _count(braces: str) -> int:
    return max(1, *map(int, re.findall("[0-9]+", braces)), 1)


def mismatch(source: str, value: str) -> str | None:
    """Why the whole value does not match the pattern, which is known to compile."""
    if len(value) > MAX_MATCHED:
        return f"it is longer than {MAX_MATCHED} characters, which no pattern is tried on"
    try:
        found = compile_pattern(source).fullmatch(value, timeout=SECONDS)
    except (TimeoutError, MemoryError):
        return f"matching it against `{shown(source)}` takes too long"
    return None if found else f"`{shown(value)}` does not match `{shown(source)}`"
