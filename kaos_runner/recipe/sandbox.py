"""Jinja's sandbox, cut down to plain data and to a budget of work.

Jinja parses, compiles and runs a template, and its own operators, filters and tests do the work.
Before it is compiled, the tree is led through the filters of `_INNER`: whatever could make a value,
compare large ones, or go over a list is counted there. So no template takes more than a moment or
a few MiB, and none reads an attribute of a Python object.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, UndefinedError, nodes, pass_context
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.visitor import NodeTransformer

from kaos_runner.recipe.evaluate import TemplateError
from kaos_runner.recipe.filters import FILTERS, OWN, TESTS, as_text
from kaos_runner.recipe.template import whole_expression

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType
    from typing import NoReturn

MAX_STEPS = 100_000
"""What one leaf may do: each turn of a loop counts the nodes in it, each value what it weighs."""
MAX_WEIGHT = 1 << 20
"""Characters of a value, and sixteen for each item in it; also of the whole text."""
MAX_BITS = 4096
MAX_DEPTH = 60
MAX_BRANCHED = 100_000
"""Branches times names: Jinja's compiler follows each name through each branch."""
MAX_INDENT = 300
_WEIGHT_OF_A_STEP = 200
_TEXTUAL = frozenset(
    ["capitalize", "indent", "lower", "replace", "split", "title", "trim", "upper"]
)
_NUMERIC = frozenset(["divisibleby", "even", "odd", "round"])
_TAKES_NOTHING = frozenset(["d", "default", "defined", "none", "undefined"])
_LOOP = frozenset(["index", "index0", "revindex", "revindex0", "first", "last", "length"])


class Missing(StrictUndefined):
    """A value that is not there: only `default`, `is defined` and truth can take it."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False

    @property
    def _undefined_message(self) -> str:
        hint = self._undefined_hint
        return hint.rstrip(".") if hint else f"`{self._undefined_name}` has no value"


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment for one rendering, with what is left of its budget."""

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
            "[made]": self.spend, "[.]": self.item, "[for]": self.items, "[~]": self.joined
        }  # fmt: skip
        tests: dict[str, Any] = {**JINJA_TESTS}
        self.tests = {name: self._bounded(name, tests[name]) for name in TESTS}
        self.tests["none"] = lambda value: value is None or isinstance(value, Missing)

    def text(self, source: str, context: Mapping[str, Any]) -> str:
        """What the template puts out."""
        length, parts = 0, []
        template = self.template_class.from_code(self, _compiled(source, whole=False), {})
        for part in template.root_render_func(template.new_context(dict(context))):
            length += len(part)
            if length > MAX_WEIGHT:
                _fail("the template's text is longer than 1 MiB")
            parts.append(part)
        return "".join(parts)

    def value(self, source: str, context: Mapping[str, Any]) -> Any:
        """The value of the one expression that the template is."""
        template = self.template_class.from_code(self, _compiled(source, whole=True), {})
        known = template.new_context(dict(context))
        for _ in template.root_render_func(known):
            pass
        return _plain(_present(known.vars["value"]))

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
        if isinstance(_present(value), dict):
            found = value.get(key) if isinstance(key, str | int) else None
        elif isinstance(value, list | tuple | str) and isinstance(key, int):
            found = value[key] if -len(value) <= key < len(value) else None
        return self.undefined(name=name or str(key)) if found is None else found

    def items(self, value: Any, nodes: int) -> list[Any]:
        """What a loop with so many nodes goes over, paid for in advance."""
        if not isinstance(_present(value), list | tuple | dict | str):
            _fail("a loop goes over a list")
        self._pay(len(value) * nodes)
        return list(value)

    def joined(self, parts: list[Any]) -> Any:
        """What `~` makes."""
        return self.spend("".join([_shown(None, part) for part in parts]))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The operator's result, refused before it is made if it would be too large."""
        sized = [len(v) if isinstance(v, str) else _weight(v) for v in (left, right) if _sized(v)]
        if operator == "%" and sized:
            _fail("`%` formats no text here", "use `~` to join values")
        if operator == "*" and sized:
            times = next((v for v in (left, right) if isinstance(v, int)), 1)
            self._pay(sized[0] * max(times, 0) // _WEIGHT_OF_A_STEP, sized[0] * times)
        if operator == "**":
            bits = left.bit_length() if isinstance(left, int) else 64
            if isinstance(right, int | float) and bits * abs(right) > MAX_BITS:
                _fail("the expression makes too large a number")
        return self.spend(super().call_binop(context, operator, left, right))

    def spend(self, value: Any) -> Any:
        """The value, if it is plain data of a bearable size, paid for."""
        weight = _weight(_present(value))
        self._pay(1 + weight // _WEIGHT_OF_A_STEP, weight)
        return value

    def _pay(self, steps: int, weight: int = 0) -> None:
        if weight > MAX_WEIGHT:
            _fail("the expression makes too large a value")
        self.steps += steps
        if self.steps > MAX_STEPS:
            _fail("the template takes too many steps")

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
            _refuse_growth(name, value, (*rest, *named.values()))
            try:
                made = work(*before, value, *rest, **named)
                made = self._collected(made) if isinstance(made, Iterator) else made
            except (TypeError, ValueError, AttributeError, LookupError) as error:
                _fail(f"`{name}` does not suit its value: {str(error)[:120]}")
            return made if isinstance(made, Missing) else self.spend(made)

        return bounded

    def _collected(self, made: Iterator[Any]) -> list[Any]:
        """The items of a lazy result, each weighed as it comes."""
        found, total = [], 0
        for item in made:
            total += _weight(item)
            self._pay(0, total)
            found.append(item)
        return found


def _taken(name: str, value: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The value as the filter or test takes it."""
    if name in _NUMERIC and not isinstance(value, int | float):
        _fail(f"`{name}` takes a number")
    if name == "join" and isinstance(value, list | tuple) and len(args) < 2 and not named:
        return [as_text(item) for item in value]
    return as_text(value) if name in _TEXTUAL else value


@pass_context
def _shown(_context: Any, value: Any) -> str:
    """A value as it is put out; that it takes the context keeps Jinja from doing it beforehand."""
    _weight(_present(value))
    return as_text(value)


class _Counting(NodeTransformer):
    """Leads what may cost something through the filters that count."""

    def __init__(self) -> None:
        self.depth = 0

    def generic_visit(self, node: Any, *args: Any, **named: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            message = "the template is too deeply nested"
            raise TemplateError(message, node.lineno)
        super().generic_visit(node, *args, **named)
        self.depth -= 1
        stored = getattr(node, "ctx", "load") != "load"
        return self._filter("[made]", node) if isinstance(node, _MADE) and not stored else node

    def visit_Const(self, node: nodes.Const) -> Any:
        try:
            _weight(node.value)
        except TemplateError as error:
            error.line = node.lineno
            raise
        return node

    def visit_Compare(self, node: nodes.Compare) -> Any:
        self.generic_visit(node)
        node.expr = self._filter("[made]", node.expr)
        for operand in node.ops:
            operand.expr = self._filter("[made]", operand.expr)
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> Any:
        node.expr2 = node.expr2 or nodes.Const("", lineno=node.lineno)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> Any:
        self.generic_visit(node)
        return self._filter("[~]", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getattr(self, node: nodes.Getattr) -> Any:
        name = _named(node)
        self.generic_visit(node)
        return self._filter("[.]", node.node, nodes.Const(node.attr), nodes.Const(name))

    def visit_Getitem(self, node: nodes.Getitem) -> Any:
        name = _named(node)
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._filter("[made]", node.node)
            return node
        return self._filter("[.]", node.node, node.arg, nodes.Const(name))

    def visit_For(self, node: nodes.For) -> Any:
        size = sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = self._filter("[for]", node.iter, nodes.Const(size))
        return node

    def visit_Filter(self, node: Any) -> Any:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            message = "`*` and `**` have no place in a template"
            raise TemplateError(message, node.lineno)
        return self.generic_visit(node)

    visit_Test = visit_Filter

    def _filter(self, name: str, node: Any, *args: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


_MADE = (nodes.List, nodes.Tuple, nodes.Dict)


@lru_cache(maxsize=256)
def _compiled(source: str, *, whole: bool) -> CodeType:
    """The template's code; for a whole one, that which sets `value` to its value."""
    sandbox = Sandbox()
    tree = sandbox.parse(source)
    named = sum(name.ctx == "store" for name in tree.find_all(nodes.Name))
    if named * sum(1 for _ in tree.find_all(nodes.If)) > MAX_BRANCHED:
        _fail("the template has too many branches and names")
    tree = _Counting().visit(tree)
    if whole:
        target = nodes.Name("value", "store", lineno=1)
        tree.body = [nodes.Assign(target, whole_expression(tree), lineno=1)]
    tree.set_environment(sandbox)
    return sandbox.compile(tree)


def _fail(message: str, hint: str | None = None) -> NoReturn:
    raise TemplateError(message, hint=hint)


def _present(value: Any) -> Any:
    """The value, unless there is none."""
    if value is None:
        _fail("the value is `none`, which has no text", "write `… | default('…')`")
    if isinstance(value, Missing):
        raise UndefinedError(value._undefined_message)
    return value


def _sized(value: Any) -> bool:
    return isinstance(value, str | list | tuple)


def _weight(value: Any) -> int:
    """Characters of a value and sixteen for each item, all that is inside counted, up to a limit.

    It stops as soon as the limit is passed: a list may hold the same list many times over.
    """
    total, todo = 0, [value]
    while todo and total <= MAX_WEIGHT:
        part = todo.pop()
        total += 16 + (len(part) if isinstance(part, str) else 0)
        if isinstance(part, dict):
            todo += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            todo += part
        elif isinstance(part, int | float):
            total += _digits(part)
        elif not isinstance(part, str) and part is not None:
            _present(part)
            _fail("the expression makes no plain value")
    return total


def _digits(number: float) -> int:
    """About how many, for those with more than a few."""
    bits = number.bit_length() if isinstance(number, int) else 0
    if bits > MAX_BITS or not (bits or math.isfinite(number)):
        _fail("the expression makes too large a number")
    return bits // 3


def _refuse_growth(name: str, value: Any, args: tuple[Any, ...]) -> None:
    """Refuse a filter whose result could be out of all proportion to its input."""
    numbers = [abs(arg) for arg in args if isinstance(arg, int)]
    if name in ("indent", "round") and max(numbers, default=0) > MAX_INDENT:
        _fail(f"`{name}` takes no number above {MAX_INDENT}")
    if name in ("indent", "join", "replace"):
        longest = max(
            [1, *(numbers if name == "indent" else ()), *(len(as_text(arg)) for arg in args)]
        )
        if _weight(value) * longest > MAX_WEIGHT * 8:
            _fail(f"`{name}` would make too large a value")
    if name == "sum" and any(_sized(arg) for arg in args if not isinstance(arg, str)):
        _fail("`sum` adds up numbers")


def _plain(value: Any) -> Any:
    """The value with lists for tuples, and text for keys, as a document has them."""
    if isinstance(value, dict):
        return {as_text(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _named(node: Any) -> str:
    """The access as it is written, for a message."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_named(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{_named(node.node)}[{node.arg.value!r}]"
    return "…"
