"""Parameter patterns: regular expressions whose matching time is bounded.

A recipe may be hostile, and Python's own engine backtracks: `(a+)+$` on thirty characters takes
minutes. A pattern here is Python's syntax without look-around, back-references and lazy or
possessive tricks that need them; it is matched by following all its states at once.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

MAX_STATES = 1000
MAX_MATCHED = 2000
"""Characters of the longest value that a pattern is tried on."""


_BEGINNINGS = ("AT_BEGINNING", "AT_BEGINNING_STRING")
_ENDS = ("AT_END", "AT_END_STRING")


class PatternError(Exception):
    """The pattern cannot be used; the message says why."""


class Pattern:
    """A compiled pattern; states are numbers, `steps` consume a character, `jumps` do not."""

    def __init__(self, source: str) -> None:
        self.steps: list[tuple[re.Pattern[str], int] | None] = []
        self.jumps: list[list[int]] = []
        parts = list(_parsed(source))
        if parts and str(parts[-1][0]) == "AT" and str(parts[-1][1]) in _ENDS:
            parts.pop()  # the whole text must match, so a last `$` says nothing
        self.end = self._sequence(parts, self._state())

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        states = self._closure({0})
        for char in text:
            after = set()
            for state in states:
                step = self.steps[state]
                if step is not None and step[0].match(char):
                    after.add(step[1])
            states = self._closure(after)
            if not states:
                return False
        return self.end in states

    def _closure(self, states: set[int]) -> set[int]:
        found, todo = set(states), list(states)
        while todo:
            for state in self.jumps[todo.pop()]:
                if state not in found:
                    found.add(state)
                    todo.append(state)
        return found

    def _state(self) -> int:
        if len(self.steps) >= MAX_STATES:
            msg = "the pattern is too large"
            raise PatternError(msg)
        self.steps.append(None)
        self.jumps.append([])
        return len(self.steps) - 1

    def _sequence(self, parts: Any, start: int) -> int:
        for kind, argument in parts:
            start = self._part(str(kind), argument, start)
        return start

    def _part(self, kind: str, argument: Any, start: int) -> int:
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "CATEGORY"):
            end = self._state()
            self.steps[start] = (_single(kind, argument), end)
            return end
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, body = argument
            return self._repeat(low, high, body, start)
        if kind == "BRANCH":
            return self._branch(argument[1], start)
        if kind == "SUBPATTERN" and not argument[1] and not argument[2]:
            return self._sequence(argument[3], start)
        if kind == "AT" and str(argument) in _BEGINNINGS and start == 0:
            return start
        if kind == "AT":
            msg = "`^` and `$` may only stand at the beginning and the end"
            raise PatternError(msg)
        msg = "only literals, classes, groups, `|`, `*`, `+`, `?` and `{m,n}` can be used"
        raise PatternError(msg)

    def _repeat(self, low: int, high: Any, body: Any, start: int) -> int:
        unbounded = str(high) == "MAXREPEAT"
        for _ in range(low):
            start = self._sequence(body, self._after(start))
        if unbounded:
            loop = self._after(start)
            end = self._sequence(body, self._after(loop))
            self.jumps[end].append(loop)
            return self._after(loop)
        exits = [start]
        for _ in range(int(high) - low):
            start = self._sequence(body, self._after(start))
            exits.append(start)
        end = self._state()
        for state in exits:
            self.jumps[state].append(end)
        return end

    def _after(self, state: int) -> int:
        """A fresh state that follows at once: a state has one step, so each part begins anew."""
        fresh = self._state()
        self.jumps[state].append(fresh)
        return fresh

    def _branch(self, branches: Any, start: int) -> int:
        ends = [self._sequence(branch, self._after(start)) for branch in branches]
        end = self._state()
        for state in ends:
            self.jumps[state].append(end)
        return end


def _parsed(source: str) -> Any:
    """The pattern's syntax tree, from Python's own parser."""
    from re import _parser  # type: ignore[attr-defined]

    if len(source) > 1000:
        msg = "the pattern is longer than 1000 characters"
        raise PatternError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            tree = _parser.parse(source)
    except (re.error, OverflowError, RecursionError) as error:
        msg = f"not a regular expression: {error}"
        raise PatternError(msg) from None
    if tree.state.flags & ~re.UNICODE:
        msg = "flags such as `(?i)` cannot be used"
        raise PatternError(msg)
    return tree


def _single(kind: str, argument: Any) -> re.Pattern[str]:
    """A pattern for the one character that a part takes."""
    if kind == "ANY":
        return re.compile(r"[^\n]")
    if kind in ("LITERAL", "NOT_LITERAL"):
        negated = "^" if kind == "NOT_LITERAL" else ""
        return re.compile(f"[{negated}{re.escape(chr(argument))}]")
    members = argument if kind == "IN" else [("CATEGORY", argument)]
    return re.compile("[" + "".join(_member(str(k), a) for k, a in members) + "]")


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S", "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip


def _member(kind: str, argument: Any) -> str:
    if kind == "NEGATE":
        return "^"
    if kind == "LITERAL":
        return re.escape(chr(argument))
    if kind == "RANGE":
        return f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}"
    return _CATEGORIES[str(argument)]


@cache
def compile_pattern(source: str) -> Pattern:
    """The pattern, ready to match.

    Raises:
        PatternError: it is none, is too large, or uses what cannot be bounded.
    """
    return Pattern(source)
