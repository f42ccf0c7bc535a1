"""Jinja's sandbox, cut down to plain data and to a budget of work.

Jinja parses, compiles and runs a template, and its own operators, filters and tests do the work.
Whatever makes a value, compares large ones or goes over a list passes a filter, an operator or a
test of this environment, which counts it. So no template takes more than a moment or a few MiB,
and none reads an attribute of a Python object.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache, wraps
from typing import TYPE_CHECKING, Any

from jinja2 import nodes, pass_context
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS

from kaos_runner.recipe.bounds import (
    MAX_WEIGHT,
    Missing,
    fail,
    present,
    refuse_growth,
    refuse_result,
    weight,
)
from kaos_runner.recipe.counting import ITEM, JOINED, MADE, TURNS, counted
from kaos_runner.recipe.filters import FILTERS, OWN, TESTS, as_text
from kaos_runner.recipe.template import whole_expression

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2 import Template

MAX_STEPS = 100_000
"""What one leaf may do: each turn of a loop counts the nodes in it, each value what it weighs."""
_WEIGHT_OF_A_STEP = 200
_TEXTUAL = frozenset(
    ["capitalize", "indent", "lower", "replace", "split", "title", "trim", "upper"]
)
_NUMERIC = frozenset(["divisibleby", "even", "odd", "round"])
_TAKES_NOTHING = frozenset(["d", "default", "defined", "none", "undefined"])
_LOOP = frozenset(["index", "index0", "revindex", "revindex0", "first", "last", "length"])


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's environment, with what the rendering under way has used of its budget."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing, finalize=_shown, optimized=False, keep_trailing_newline=True
        )
        self.steps = 0
        self.globals = {}
        table: dict[str, Any] = {**JINJA_FILTERS, **OWN}
        self.filters = {name: self._bounded(name, table[name]) for name in FILTERS}
        self.filters |= {
            MADE: self.spend, ITEM: self.item, TURNS: self.turns, JOINED: self.joined
        }  # fmt: skip
        tests: dict[str, Any] = {**JINJA_TESTS}
        self.tests = {name: self._bounded(name, tests[name]) for name in TESTS}
        self.tests["none"] = lambda value: value is None or isinstance(value, Missing)

    def text(self, source: str, context: Mapping[str, Any]) -> str:
        """What the template puts out."""
        length, parts = 0, []
        template, self.steps = _compiled(source, whole=False), 0
        for part in template.root_render_func(template.new_context(dict(context))):
            length += len(part)
            if length > MAX_WEIGHT:
                fail("the template's text is longer than 1 MiB")
            parts.append(part)
        return "".join(parts)

    def value(self, source: str, context: Mapping[str, Any]) -> Any:
        """The value of the one expression that the template is."""
        template, self.steps = _compiled(source, whole=True), 0
        known = template.new_context(dict(context))
        for _ in template.root_render_func(known):
            pass
        return _plain(present(known.vars["value"]))

    def is_safe_callable(self, obj: Any) -> bool:  # noqa: ARG002
        """Nothing can be called."""
        return False

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An entry of plain data, never an attribute."""
        return self.item(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """The same."""
        return self.item(obj, argument)

    def item(self, value: Any, key: Any, name: str | None = None) -> Any:
        """An entry of a mapping or list; `name` says how the template writes it."""
        self._pay(1)
        if isinstance(value, LoopContext) and key in _LOOP:
            return getattr(value, key)
        found = None
        if isinstance(present(value), dict):
            found = value.get(key) if isinstance(key, str | int) else None
        elif isinstance(value, list | tuple | str) and isinstance(key, int):
            found = value[key] if -len(value) <= key < len(value) else None
        return self.undefined(name=name or str(key)) if found is None else found

    def turns(self, value: Any, size: int) -> list[Any]:
        """What a loop of so many nodes goes over, paid for in advance."""
        if not isinstance(present(value), list | tuple | dict | str):
            fail("a loop goes over a list")
        self._pay(len(value) * size)
        return list(value)

    def joined(self, parts: list[Any]) -> Any:
        """What `~` makes."""
        return self.spend("".join([_shown(None, part) for part in parts]))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The operator's result, refused before it is made if it would be too large."""
        refuse_result(operator, left, right)
        return self.spend(super().call_binop(context, operator, left, right))

    def spend(self, value: Any) -> Any:
        """The value, if it is plain data of a bearable size, paid for."""
        total = weight(present(value))
        self._pay(1 + total // _WEIGHT_OF_A_STEP, total)
        return value

    def _pay(self, steps: int, total: int = 0) -> None:
        if total > MAX_WEIGHT:
            fail("the expression makes too large a value")
        self.steps += steps
        if self.steps > MAX_STEPS:
            fail("the template takes too many steps")

    def _bounded(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test of plain values, its input and its result paid for."""
        own = 1 if hasattr(work, "jinja_pass_arg") else 0

        @wraps(work)
        def bounded(*args: Any, **named: Any) -> Any:
            before, value, rest = args[:own], args[own], args[own + 1 :]
            if name not in _TAKES_NOTHING:
                value = _taken(name, self.spend(value), rest, named)
            for each in (*rest, *named.values()):
                self.spend(each)
            refuse_growth(name, value, (*rest, *named.values()))
            try:
                made = work(*before, value, *rest, **named)
                made = self._collected(made) if isinstance(made, Iterator) else made
            except (TypeError, ValueError, AttributeError, LookupError) as error:
                fail(f"`{name}` does not suit its value: {str(error)[:120]}")
            return made if isinstance(made, Missing) else self.spend(made)

        return bounded

    def _collected(self, made: Iterator[Any]) -> list[Any]:
        """The items of a lazy result, each weighed as it comes."""
        found, total = [], 0
        for item in made:
            total += weight(item)
            self._pay(0, total)
            found.append(item)
        return found


def _taken(name: str, value: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The value as the filter or test takes it."""
    if name in _NUMERIC and not isinstance(value, int | float):
        fail(f"`{name}` takes a number")
    if name == "join" and isinstance(value, list | tuple) and len(args) < 2 and not named:
        return [as_text(item) for item in value]
    return as_text(value) if name in _TEXTUAL else value


@pass_context
def _shown(_context: Any, value: Any) -> str:
    """A value as it is put out; that it takes the context keeps Jinja from doing it beforehand."""
    weight(present(value))
    return as_text(value)


@cache
def sandbox() -> Sandbox:
    """The one environment; a rendering is over before the next begins."""
    return Sandbox()


@lru_cache(maxsize=256)
def _compiled(source: str, *, whole: bool) -> Template:
    """The template; a whole one sets `value` to its value instead of putting it out."""
    own = sandbox()
    tree = counted(own.parse(source))
    if whole:
        target = nodes.Name("value", "store", lineno=1)
        tree.body = [nodes.Assign(target, whole_expression(tree), lineno=1)]
    tree.set_environment(own)
    return own.template_class.from_code(own, own.compile(tree), {})


def _plain(value: Any) -> Any:
    """The value with lists for tuples, and text for keys, as a document has them."""
    if isinstance(value, dict):
        return {as_text(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
