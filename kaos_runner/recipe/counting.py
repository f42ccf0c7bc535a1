"""Leads a template's tree through the filters that count, before Jinja compiles it."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from kaos_runner.recipe.bounds import fail, weight
from kaos_runner.recipe.evaluate import TemplateError

MADE, ITEM, TURNS, JOINED = "[made]", "[item]", "[turns]", "[joined]"
"""Names of filters that no template can write."""
MAX_DEPTH = 60
MAX_BRANCHED = 100_000
"""Branches times names: Jinja's compiler follows each name through each branch."""
_MADE = (nodes.List, nodes.Tuple, nodes.Dict)


def counted(tree: nodes.Template) -> nodes.Template:
    """The tree, changed in place: what makes, compares or goes over values is counted.

    Raises:
        TemplateError: it is too large or too deep to be compiled in a moment.
    """
    named = sum(name.ctx == "store" for name in tree.find_all(nodes.Name))
    if named * sum(1 for _ in tree.find_all(nodes.If)) > MAX_BRANCHED:
        fail("the template has too many branches and names")
    _Counting().visit(tree)
    return tree


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
        return self._filter(MADE, node) if isinstance(node, _MADE) and not stored else node

    def visit_Const(self, node: nodes.Const) -> Any:
        try:
            weight(node.value)
        except TemplateError as error:
            error.line = node.lineno
            raise
        return node

    def visit_Compare(self, node: nodes.Compare) -> Any:
        self.generic_visit(node)
        node.expr = self._filter(MADE, node.expr)
        for operand in node.ops:
            operand.expr = self._filter(MADE, operand.expr)
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> Any:
        node.expr2 = node.expr2 or nodes.Const("", lineno=node.lineno)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> Any:
        self.generic_visit(node)
        return self._filter(JOINED, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getattr(self, node: nodes.Getattr) -> Any:
        name = _named(node)
        self.generic_visit(node)
        return self._filter(ITEM, node.node, nodes.Const(node.attr), nodes.Const(name))

    def visit_Getitem(self, node: nodes.Getitem) -> Any:
        name = _named(node)
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._filter(MADE, node.node)
            return node
        return self._filter(ITEM, node.node, node.arg, nodes.Const(name))

    def visit_For(self, node: nodes.For) -> Any:
        size = sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = self._filter(TURNS, node.iter, nodes.Const(size))
        return node

    def visit_Filter(self, node: Any) -> Any:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            message = "`*` and `**` have no place in a template"
            raise TemplateError(message, node.lineno)
        return self.generic_visit(node)

    visit_Test = visit_Filter

    def _filter(self, name: str, node: Any, *args: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _named(node: Any) -> str:
    """The access as it is written, for a message."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{_named(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{_named(node.node)}[{node.arg.value!r}]"
    return "…"
