"""YAML syntax errors in words that say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.nodes import Key, problem_at

if TYPE_CHECKING:
    from kaos_runner.errors import Problem
    from kaos_runner.recipe.source import Source


def explain_syntax(source: Source, error: Any) -> Problem:
    """The problem behind an error of the YAML parser."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    index = min(mark.index if mark else 0, len(source.text))
    told = str(getattr(error, "problem", None) or "")
    context = str(getattr(error, "context", None) or "")
    begun = getattr(error, "context_mark", None)
    message, hint, index = _in_words(source, told, context, index, begun.index if begun else None)
    return problem_at(Key(source, index, index + 1), message, hint=hint, length=1)


def _in_words(
    source: Source, told: str, context: str, index: int, begun: int | None
) -> tuple[str, str | None, int]:
    text = source.text
    char = text[index : index + 1]
    begin = text.rfind("\n", 0, index) + 1
    tab = text.find("\t", begin, index + 1)
    if tab >= 0 and not text[begin:tab].strip():
        return "a tab is used for indentation", "YAML indents with spaces only", tab
    if "cannot start any token" in told:
        if char == "\t":
            return "a tab stands where only spaces can", "YAML indents with spaces only", index
        return f"a value cannot begin with `{char}`", "quote the text", index
    if "unexpected ':'" in told:
        return "a `:` without a space after it", "write `key: value`, or quote the text", index
    if "mapping values are not allowed" in told:
        return (
            "a `:` where no key can be",
            "quote a text that holds `: `; else compare the indentation with the line above",
            index,
        )
    if "quoted scalar" in context and begun is not None:
        if "escape" in told:
            return (
                "an unknown escape in a double-quoted text",
                "use single quotes, or write `\\\\`",
                index,
            )
        return "a quoted text that is never closed begins here", None, begun
    if "flow" in context and begun is not None:
        opened = text[begun : begun + 1]
        closing = {"{": "}", "[": "]"}.get(opened, "")
        return f"`{opened}` is never closed", f"close it with `{closing}`, or quote the text", begun
    return _about_layout(text, told, context, index, begun)


def _about_layout(
    text: str, told: str, context: str, index: int, begun: int | None
) -> tuple[str, str | None, int]:
    if "simple key" in context and begun is not None:
        line = text[begun:].split("\n", 1)[0]
        hint = f"write `{line.strip()[:30]}: …`, or indent it as part of the text above"
        return "a line that is neither `key: value` nor part of a text", hint, begun
    if "block mapping" in context:
        if text[index : index + 1] == "-":
            return (
                "a list item among the keys of a mapping",
                "a list goes under its key, indented the same for every item",
                index,
            )
        return (
            "the indentation fits nothing above",
            "keys of one mapping begin in the same column",
            index,
        )
    if "block collection" in context:
        return (
            "a key among the items of a list",
            "items of one list begin with `- ` in the same column",
            index,
        )
    if "undefined tag handle" in told or "tag" in context:
        return "a YAML tag that a recipe cannot use", "quote a text that begins with `!`", index
    return f"not valid YAML: {told or 'unknown reason'}", None, index
