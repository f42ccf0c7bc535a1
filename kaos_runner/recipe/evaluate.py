"""Renders templates in Jinja's sandbox, and puts what goes wrong into words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from kaos_runner.recipe.template import Template


class TemplateError(Exception):
    """The template cannot be rendered: `message`, the template's line, and a hint."""

    def __init__(self, message: str, line: int = 0, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.hint = hint


def render_text(template: Template, context: Mapping[str, Any]) -> str:
    """The whole text of a template.

    Raises:
        TemplateError: a value is missing, or a bound is reached.
    """
    from kaos_runner.recipe.sandbox import sandbox

    return str(_guarded(lambda: sandbox().text(template.text, context)))


def render_value(template: Template, context: Mapping[str, Any]) -> Any:
    """The value of a template that is one whole expression, its type kept.

    Raises:
        TemplateError: a value is missing, or a bound is reached.
    """
    from kaos_runner.recipe.sandbox import sandbox

    return _guarded(lambda: sandbox().value(template.text, context))


def _guarded(work: Callable[[], Any]) -> Any:
    """Run, with whatever Jinja and Python object to turned into a template's error."""
    try:
        return work()
    except Exception as error:
        found = _in_words(error)
        found.line = found.line or _line(error.__traceback__)
        raise found from None


def _in_words(error: Exception) -> TemplateError:
    from jinja2 import UndefinedError

    if isinstance(error, TemplateError):
        return error
    if isinstance(error, UndefinedError):
        message = str(error)
        name = message.split("`")[1] if "`" in message else "…"
        hint = f"give it one, or write `{name} | default('…')`"
        return TemplateError(message[:1].lower() + message[1:], hint=hint)
    if isinstance(error, ZeroDivisionError):
        return TemplateError("division by zero")
    if isinstance(error, RecursionError | MemoryError | SyntaxError):
        return TemplateError("the template is too deeply nested")
    return TemplateError(f"the expression does not fit its values: {str(error)[:120]}")


def _line(trace: TracebackType | None) -> int:
    """The template's line that was being rendered; 1 before it began."""
    line = 1
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line
