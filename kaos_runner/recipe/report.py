"""Problems for people and machines: as a compiler prints them, as JSON, as GitHub annotations."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kaos_runner.errors import Problem

MAX_WIDTH = 160


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, sorted by place."""
    unique = dict.fromkeys(problems)
    return tuple(
        sorted(unique, key=lambda p: (p.file or "", p.line or 0, p.column or 0, p.path, p.message))
    )


def as_text(problems: Sequence[Problem]) -> str:
    """All problems as a compiler would print them."""
    return "\n".join(_block(problem) for problem in problems)


def _block(problem: Problem) -> str:
    place = ":".join(str(p) for p in (problem.file, problem.line, problem.column) if p is not None)
    lines = [
        f"{place}: {problem.severity}: {problem.message}"
        if place
        else f"{problem.severity}: {problem.message}"
    ]
    if problem.source is not None and problem.line is not None:
        lines += _quoted(problem)
    if problem.hint:
        lines.append(f"  hint: {problem.hint}")
    return "\n".join(printable(line) for line in lines)


def _quoted(problem: Problem) -> list[str]:
    """The source line with a caret under the fault; a long line is cut around it."""
    assert problem.source is not None
    column = (problem.column or 1) - 1
    source = problem.source.replace("\t", " ")
    begin = max(0, column - MAX_WIDTH // 2) if len(source) > MAX_WIDTH else 0
    source, column = source[begin : begin + MAX_WIDTH], column - begin
    length = max(1, min(problem.length, len(source) - column))
    gutter = f"{problem.line} | "
    margin = " " * (len(gutter) - 2) + "| "
    return [f"  {gutter}{source}", f"  {margin}{' ' * column}^{'~' * (length - 1)}"]


def printable(text: str) -> str:
    """The text without what would steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def as_json(problems: Sequence[Problem]) -> str:
    """All problems as one JSON document."""
    return json.dumps({"problems": [plain(p) for p in problems]}, indent=2, ensure_ascii=False)


def plain(problem: Problem) -> dict[str, object]:
    """A problem's facts as plain data."""
    return {key: value for key, value in asdict(problem).items() if key not in ("source", "length")}


def as_github(problems: Sequence[Problem]) -> str:
    """All problems as GitHub workflow commands, which become annotations."""
    return "\n".join(_annotation(problem) for problem in problems)


def _annotation(problem: Problem) -> str:
    facts = {"file": problem.file, "line": problem.line, "col": problem.column}
    if problem.column is not None:
        facts["endColumn"] = problem.column + problem.length
    properties = ",".join(
        f"{name}={_escape(str(value), ':,')}" for name, value in facts.items() if value is not None
    )
    message = problem.message + (f"\nhint: {problem.hint}" if problem.hint else "")
    command = f"::{problem.severity} {properties}" if properties else f"::{problem.severity}"
    return f"{command}::{_escape(message)}"


def _escape(text: str, more: str = "") -> str:
    """GitHub's own escapes: `%`, line ends, and in properties `:` and `,`."""
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text
