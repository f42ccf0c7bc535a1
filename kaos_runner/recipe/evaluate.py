"""Evaluates a template's tree over plain data, with a budget on every operation.

Nothing is compiled and no attribute of a Python object is ever read: a value is a string, a number,
a boolean, a list, a mapping or nothing, and only the nodes below exist. So a template cannot reach
Python's internals, and no expression can take more than a moment or a few MiB.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NoReturn

from kaos_runner.recipe.filters import FILTERS, TESTS, FilterError, Missing, as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kaos_runner.recipe.template import Template

MAX_STEPS = 50_000
"""Nodes that one leaf may evaluate, each turn of a loop counted."""
MAX_LENGTH = 1 << 20
"""Characters of any string, and items of any list, that an expression may make."""
MAX_WEIGHT = 1 << 20
"""Characters of a list or mapping, and sixteen for each item in it."""
MAX_BITS = 4096
MAX_LOOPS = 10_000
MAX_ARGUMENT = 300


class TemplateError(Exception):
    """The template cannot be rendered: `message`, the template's line, and a hint."""

    def __init__(self, message: str, line: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.hint = hint


def render_text(template: Template, context: Mapping[str, Any]) -> str:
    """The whole text of a template.

    Raises:
        TemplateError: a value is missing, or a bound is reached.
    """
    assert template.tree is not None
    evaluator = _Evaluator(context)
    evaluator.guarded(lambda: evaluator.body(template.tree.body, dict(context)))  # type: ignore[union-attr]
    return "".join(evaluator.out)


def render_value(template: Template, context: Mapping[str, Any]) -> Any:
    """The value of a template that is one whole expression, its type kept.

    Raises:
        TemplateError: a value is missing, or a bound is reached.
    """
    assert template.expression is not None
    evaluator = _Evaluator(context)
    value = evaluator.guarded(lambda: evaluator.value(template.expression, dict(context)))
    return evaluator.present(value, template.expression.lineno)


class _Evaluator:
    def __init__(self, context: Mapping[str, Any]) -> None:
        self.context = context
        self.out: list[str] = []
        self.length = 0
        self.steps = 0
        self.line = 1

    def guarded(self, work: Callable[[], Any]) -> Any:
        """Run, with whatever Python objects to turned into a template's error."""
        try:
            return work()
        except TemplateError:
            raise
        except ZeroDivisionError:
            msg = "division by zero"
            raise TemplateError(msg, self.line) from None
        except (RecursionError, MemoryError):
            msg = "the template is too deeply nested"
            raise TemplateError(msg, self.line) from None
        except FilterError as error:
            msg = f"the filter does not suit its value: {error}"
            raise TemplateError(msg, self.line) from None
        except (TypeError, ValueError, OverflowError, LookupError, AttributeError) as error:
            msg = f"the expression does not fit its values: {str(error)[:120]}"
            raise TemplateError(msg, self.line) from None

    def body(self, nodes: Any, scope: dict[str, Any]) -> None:
        for node in nodes:
            self._tick(node)
            kind = type(node).__name__
            if kind == "Output":
                self._output(node, scope)
            elif kind == "If":
                self._if(node, scope)
            elif kind == "For":
                self._for(node, scope)
            elif kind == "Assign":
                self._bind(node.target, self.value(node.node, scope), scope)
            else:
                self._fail("this has no place in a recipe's template")

    def _output(self, node: Any, scope: dict[str, Any]) -> None:
        for part in node.nodes:
            if type(part).__name__ == "TemplateData":
                self._put(part.data)
            else:
                self._put(as_text(self.present(self.value(part, scope), part.lineno)))

    def _put(self, text: str) -> None:
        self.length += len(text)
        if self.length > MAX_LENGTH:
            self._fail("the template's text is longer than 1 MiB")
        self.out.append(text)

    def present(self, value: Any, line: int) -> Any:
        """The value, unless there is none."""
        if value is None:
            msg = "the value is `none`, which has no text"
            raise TemplateError(msg, line, "write `… | default('…')`")
        if isinstance(value, Missing):
            msg = f"`{value.name}` has no value"
            raise TemplateError(msg, line, f"give it one, or write `{value.name} | default('…')`")
        return value

    def _if(self, node: Any, scope: dict[str, Any]) -> None:
        for branch in (node, *node.elif_):
            if self.value(branch.test, scope):
                self.body(branch.body, scope)
                return
        self.body(node.else_, scope)

    def _for(self, node: Any, scope: dict[str, Any]) -> None:
        if node.recursive:
            self._fail("a loop cannot be recursive")
        items = self.present(self.value(node.iter, scope), node.lineno)
        if not isinstance(items, list | tuple | dict | str):
            self._fail("a loop goes over a list")
        if len(items) > MAX_LOOPS:
            self._fail(f"a loop goes over at most {MAX_LOOPS} items")
        rows: list[dict[str, Any]] = []
        for item in items:
            self._tick(node)
            inner = dict(scope)
            self._bind(node.target, item, inner)
            if node.test is None or self.value(node.test, inner):
                rows.append(inner)
        for index, inner in enumerate(rows):
            self._tick(node)
            inner["loop"] = _loop(index, len(rows))
            self.body(node.body, inner)
        if not rows:
            self.body(node.else_, scope)

    def _bind(self, target: Any, value: Any, scope: dict[str, Any]) -> None:
        if type(target).__name__ == "Name":
            scope[target.name] = value
            return
        if type(target).__name__ not in ("Tuple", "List") or not isinstance(value, list | tuple):
            self._fail("the value cannot be assigned to these names")
        if len(target.items) != len(value):
            self._fail(f"{len(value)} values for {len(target.items)} names")
        for part, item in zip(target.items, value, strict=True):
            self._bind(part, item, scope)

    def value(self, node: Any, scope: dict[str, Any]) -> Any:
        """The value of an expression."""
        self._tick(node)
        work = getattr(self, f"_{type(node).__name__.lower()}", None)
        if work is None:
            self._fail("this has no place in a recipe's template")
        return self._bounded(work(node, scope))

    def _tick(self, node: Any) -> None:
        self.line = node.lineno or self.line
        self.steps += 1
        if self.steps > MAX_STEPS:
            self._fail("the template takes too many steps")

    def _bounded(self, value: Any) -> Any:
        """The value, if it is plain data of a bearable size; what is shared counts each time."""
        if isinstance(value, str):
            if len(value) > MAX_LENGTH:
                self._fail("the expression makes too large a value")
        elif isinstance(value, list | tuple | dict):
            weight = _weight(value)
            self.steps += weight // 200
            if weight > MAX_WEIGHT:
                self._fail("the expression makes too large a value")
        elif isinstance(value, float):
            if not math.isfinite(value):
                self._fail("the expression makes too large a number")
        elif isinstance(value, bool | Missing) or value is None:
            pass
        elif not isinstance(value, int):
            self._fail("the expression makes no plain value")
        elif value.bit_length() > MAX_BITS:
            self._fail("the expression makes too large a number")
        return value

    def _fail(self, message: str, hint: str | None = None) -> NoReturn:
        raise TemplateError(message, self.line, hint)

    def _const(self, node: Any, _scope: dict[str, Any]) -> Any:
        return node.value

    def _name(self, node: Any, scope: dict[str, Any]) -> Any:
        return scope[node.name] if node.name in scope else Missing(node.name)

    def _list(self, node: Any, scope: dict[str, Any]) -> Any:
        return [self.present(self.value(item, scope), node.lineno) for item in node.items]

    _tuple = _list

    def _dict(self, node: Any, scope: dict[str, Any]) -> Any:
        return {
            as_text(self.value(pair.key, scope)): self.present(
                self.value(pair.value, scope), node.lineno
            )
            for pair in node.items
        }

    def _getattr(self, node: Any, scope: dict[str, Any]) -> Any:
        return self._item(self.value(node.node, scope), node.attr, _named(node))

    def _getitem(self, node: Any, scope: dict[str, Any]) -> Any:
        value = self.present(self.value(node.node, scope), node.lineno)
        if type(node.arg).__name__ == "Slice":
            if not isinstance(value, str | list | tuple):
                self._fail("only text and lists can be sliced")
            bounds = [
                self.value(part, scope) if part is not None else None
                for part in (node.arg.start, node.arg.stop, node.arg.step)
            ]
            return value[slice(*bounds)]
        return self._item(value, self.value(node.arg, scope), _named(node))

    def _item(self, value: Any, key: Any, name: str) -> Any:
        self.present(value, self.line)
        if isinstance(value, dict):
            found = value.get(key, Missing(name)) if isinstance(key, str | int) else Missing(name)
            return Missing(name) if found is None else found
        if isinstance(value, list | tuple | str) and isinstance(key, int):
            return value[key] if -len(value) <= key < len(value) else Missing(name)
        return Missing(name)

    def _filter(self, node: Any, scope: dict[str, Any]) -> Any:
        value = self.value(node.node, scope)
        args, named = self._arguments(node, scope)
        if node.name in ("default", "d"):
            return self._default(value, args, named)
        self.present(value, node.lineno)
        self._cost(value, [*args, *named.values()])
        return FILTERS[node.name](value, *args, **named)

    def _default(self, value: Any, args: list[Any], named: dict[str, Any]) -> Any:
        fallback = args[0] if args else named.get("default_value", "")
        falsy = args[1] if len(args) > 1 else named.get("boolean", False)
        return fallback if isinstance(value, Missing) or (falsy and not value) else value

    def _cost(self, value: Any, args: list[Any]) -> None:
        """Refuse a filter whose result, or work, could be out of all proportion to its input."""
        sizes = [max(_weight(v) - 16, 1) for v in (value, *args)]
        numbers = [abs(arg) for arg in args if isinstance(arg, int)]
        self.steps += sum(sizes) // 200
        if sizes[0] * max([*sizes[1:], *numbers, 1]) > MAX_WEIGHT * 8:
            self._fail("the filter would make too large a value")
        if any(isinstance(arg, int) and abs(arg) > MAX_ARGUMENT for arg in args):
            self._fail(f"the filter takes no number above {MAX_ARGUMENT}")

    def _test(self, node: Any, scope: dict[str, Any]) -> Any:
        value = self.value(node.node, scope)
        if node.name in ("defined", "undefined"):
            return isinstance(value, Missing) == (node.name == "undefined")
        if node.name == "none":
            return isinstance(value, Missing) or value is None
        args, named = self._arguments(node, scope)
        return TESTS[node.name](self.present(value, node.lineno), *args, **named)

    def _arguments(self, node: Any, scope: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self._fail("`*` and `**` have no place in a template")
        args = [self.present(self.value(arg, scope), node.lineno) for arg in node.args or ()]
        named = {
            each.key: self.present(self.value(each.value, scope), node.lineno)
            for each in node.kwargs or ()
        }
        return args, named

    def _compare(self, node: Any, scope: dict[str, Any]) -> Any:
        left = self.present(self.value(node.expr, scope), node.lineno)
        for operand in node.ops:
            right = self.present(self.value(operand.expr, scope), node.lineno)
            if not _COMPARISONS[operand.op](left, right):
                return False
            left = right
        return True

    def _and(self, node: Any, scope: dict[str, Any]) -> Any:
        left = self.value(node.left, scope)
        return self.value(node.right, scope) if left else left

    def _or(self, node: Any, scope: dict[str, Any]) -> Any:
        left = self.value(node.left, scope)
        return left if left else self.value(node.right, scope)

    def _not(self, node: Any, scope: dict[str, Any]) -> Any:
        return not self.value(node.node, scope)

    def _condexpr(self, node: Any, scope: dict[str, Any]) -> Any:
        if self.value(node.test, scope):
            return self.value(node.expr1, scope)
        return self.value(node.expr2, scope) if node.expr2 is not None else ""

    def _concat(self, node: Any, scope: dict[str, Any]) -> Any:
        parts = [as_text(self.present(self.value(n, scope), n.lineno)) for n in node.nodes]
        if sum(map(len, parts)) > MAX_LENGTH:
            self._fail("the expression makes too large a value")
        return "".join(parts)

    def _neg(self, node: Any, scope: dict[str, Any]) -> Any:
        return -self.present(self.value(node.node, scope), node.lineno)

    def _pos(self, node: Any, scope: dict[str, Any]) -> Any:
        return +self.present(self.value(node.node, scope), node.lineno)

    def _binary(self, node: Any, scope: dict[str, Any]) -> Any:
        left = self.present(self.value(node.left, scope), node.lineno)
        right = self.present(self.value(node.right, scope), node.lineno)
        sized = [v for v in (left, right) if isinstance(v, str | list | tuple)]
        if node.operator in ("*", "%") and sized:
            self._repeat(node.operator, left, right, sized)
        if node.operator == "+" and len(sized) == 2 and len(left) + len(right) > MAX_LENGTH:
            self._fail("the expression makes too large a value")
        if node.operator == "**":
            self._power(left, right)
        return _OPERATORS[node.operator](left, right)

    _add = _sub = _mul = _div = _floordiv = _mod = _pow = _binary

    def _repeat(self, sign: str, left: Any, right: Any, sized: list[Any]) -> None:
        if sign == "%":
            self._fail("`%` formats no text here", "use `~` to join values")
        times = next((v for v in (left, right) if isinstance(v, int)), 0)
        size = len(sized[0]) if isinstance(sized[0], str) else _weight(sized[0])
        if size * max(times, 0) > MAX_LENGTH:
            self._fail("the expression makes too large a value")

    def _power(self, base: Any, exponent: Any) -> None:
        bits = base.bit_length() if isinstance(base, int) else 64
        if isinstance(exponent, int | float) and bits * abs(exponent) > MAX_BITS:
            self._fail("the expression makes too large a number")


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
    return total


def _loop(index: int, length: int) -> dict[str, Any]:
    return {
        "index": index + 1,
        "index0": index,
        "first": index == 0,
        "last": index == length - 1,
        "length": length,
    }


def _named(node: Any) -> str:
    """The access as it is written, for a message."""
    kind = type(node).__name__
    if kind == "Name":
        return str(node.name)
    if kind == "Getattr":
        return f"{_named(node.node)}.{node.attr}"
    if kind == "Getitem" and type(node.arg).__name__ == "Const":
        return f"{_named(node.node)}[{node.arg.value!r}]"
    return "…"


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le,
    "gt": operator.gt, "gteq": operator.ge,
    "in": lambda a, b: a in b, "notin": lambda a, b: a not in b,
}  # fmt: skip
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "//": operator.floordiv, "%": operator.mod, "**": operator.pow,
}  # fmt: skip
