"""Flaws of a template, and Jinja's syntax errors in words that say what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong in a template, at a piece of one of its lines."""

    message: str
    hint: str | None = None
    word: str | None = None
    """The piece of the template to point at."""
    line: int = 1
    """The template's line that holds it, from 1."""


_TAG = re.compile(r"\{\{.*?(?=\{\{|\{%|\Z)|\{%.*?(?=\{\{|\{%|\Z)", re.DOTALL)
_BLOCK = re.compile(r"\{%-?\s*(end)?(if|for|raw|set)\b")
MAX_TAGS = 200


def syntax_flaw(error: Any, text: str) -> Flaw:
    """The flaw behind a syntax error, at the tag that has it."""
    message = str(error.message or "not a template")
    told = message[:1].lower() + message[1:].rstrip(".")
    for tag in list(_TAG.finditer(text))[:MAX_TAGS]:
        line = text.count("\n", 0, tag.start()) + 1
        found = _of_tag(tag.group(), told, line)
        if found:
            return found
    return _of_blocks(text) or Flaw(f"the template cannot be read: {told}", line=int(error.lineno))


def _of_tag(tag: str, told: str, line: int) -> Flaw | None:
    """What is wrong with one tag and the text up to the next, if anything is."""
    opening, closing = tag[:2], {"{{": "}}", "{%": "%}"}[tag[:2]]
    word = tag.split("\n", 1)[0].rstrip()[:24]
    if closing not in tag:
        return Flaw(f"`{opening}` is never closed", f"close it with `{closing}`", word, line)
    if opening == "{{" and _refused(tag[: tag.index(closing) + 2]):
        return Flaw(f"the expression cannot be read: {told}", None, word, line)
    return None


def _refused(expression: str) -> bool:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment(autoescape=False).parse(expression)
    except TemplateSyntaxError:
        return True
    except (RecursionError, MemoryError, ValueError, OverflowError):
        return True
    return False


def _of_blocks(text: str) -> Flaw | None:
    """A block without its end, or an end without its block."""
    opened: list[tuple[str, int]] = []
    for tag in _BLOCK.finditer(text):
        ends, name = tag.group(1), tag.group(2)
        line = text.count("\n", 0, tag.start()) + 1
        if not ends and name != "set":
            opened.append((name, line))
        elif ends and (not opened or opened.pop()[0] != name):
            message = f"`{{% end{name} %}}` closes nothing"
            return Flaw(message, "remove it", tag.group(), line)
    if opened:
        name, line = opened[-1]
        message = f"`{{% {name} … %}}` is never closed"
        return Flaw(message, f"close it with `{{% end{name} %}}`", "{%", line)
    return None
