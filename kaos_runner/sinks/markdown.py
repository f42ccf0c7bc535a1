"""Pieces of markdown that no content can break out of, and in which no content is rendered."""

from __future__ import annotations

import re

from kaos_runner.sinks.safe import one_line, visible


def fence(text: str, info: str = "text") -> str:
    """A fenced block, its fence longer than any run of backticks inside."""
    text = visible(text).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{info}\n{text}\n{marks}\n"


def code(text: str, limit: int = 200) -> str:
    """An inline code span on one line; nothing for an empty text."""
    line = one_line(text, limit)
    if not line:
        return ""
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    marks = "`" * (longest + 1)
    return f"{marks} {line} {marks}" if longest else f"{marks}{line}{marks}"


def cell(text: str, limit: int = 200) -> str:
    """A code span for a cell of a table."""
    return code(text, limit).replace("|", "\\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cut(text: str, limit: int) -> str:
    """The text, its middle left out where it has more than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
