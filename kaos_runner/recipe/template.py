"""Templates: parsed by Jinja's parser when a recipe is loaded, and every name in them checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.filters import FILTERS, TESTS
from kaos_runner.recipe.flaws import Flaw, syntax_flaw
from kaos_runner.recipe.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jinja2 import Environment, nodes

HARMLESS = frozenset({"sh", "abs", "count", "float", "int", "length", "round"})
"""Filters whose result is safe in shell text."""
PROMPT_FIELDS = ("final_message", "output", "status")
RUN_FIELDS = ("attempt", "id", "started_at")
RECIPE_FIELDS = ("dir", "name")
ROOTS = ("params", "prompts", "recipe", "run")
MAX_NODES = 20_000

_REFUSED: dict[str, tuple[str, str | None]] = {
    "Call": ("a function or method cannot be called in a template", "use filters instead"),
    "Include": ("a template cannot include another", "a long text may be `{file: …}`"),
    "Import": ("a template cannot import", None),
    "FromImport": ("a template cannot import", None),
    "Extends": ("a template cannot extend another", "a recipe can: `extends:`"),
    "Macro": ("a template cannot define macros", None),
    "Block": ("a template has no blocks", None),
}


@dataclass(slots=True)
class Template:
    """One parsed leaf, with what it refers to."""

    text: str
    tree: nodes.Template | None = None
    flaws: list[Flaw] = field(default_factory=list)
    params: set[str] = field(default_factory=set)
    unquoted: list[tuple[str, int]] = field(default_factory=list)
    """Names, with their lines, that are put out without the filter `sh`."""
    prompts: list[PromptReference] = field(default_factory=list)
    expression: nodes.Expr | None = None
    """The one expression that the whole leaf is, if it is one."""

    @property
    def deferred(self) -> bool:
        """Whether it needs what prompts have brought."""
        return bool(self.prompts)


@dataclass(frozen=True, slots=True)
class PromptReference:
    """One mention of an earlier prompt: by number or id, and what of it."""

    which: int | str
    part: str
    line: int


@cache
def _parser() -> Environment:
    """Jinja's parser."""
    from jinja2 import Environment

    return Environment(keep_trailing_newline=True, autoescape=False)


MAX_CACHED = 4096
"""Characters of the longest text that is kept parsed: recipes of one kind share most of theirs."""


def parse(text: str, params: Iterable[str]) -> Template:
    """Parse a leaf and check its names against the declared parameters; faults stand in `flaws`."""
    names = tuple(params)
    return _parsed(text, names) if len(text) <= MAX_CACHED else _parse(text, names)


@lru_cache(maxsize=2048)
def _parsed(text: str, params: tuple[str, ...]) -> Template:
    return _parse(text, params)


def _parse(text: str, params: tuple[str, ...]) -> Template:
    from jinja2 import TemplateSyntaxError

    template = Template(text)
    try:
        template.tree = _parser().parse(text)
    except TemplateSyntaxError as error:
        template.flaws.append(syntax_flaw(error, text))
    except (RecursionError, MemoryError, ValueError, OverflowError):
        template.flaws.append(Flaw("the template is too deeply nested or holds an absurd number"))
    if template.tree is not None:
        try:
            _Reader(template, params).read()
        except RecursionError:
            template.flaws.append(Flaw("the template is too deeply nested"))
    return template


class _Reader:
    """Walks a template's tree once: refuses what is not allowed, and notes what it refers to."""

    def __init__(self, template: Template, params: tuple[str, ...]) -> None:
        self.template = template
        self.params = params
        self.own: set[str] = {"loop"}
        self.count = 0

    def read(self) -> None:
        from jinja2 import nodes

        tree = self.template.tree
        assert tree is not None
        for name in tree.find_all(nodes.Name):
            if name.ctx != "load":
                self.own.add(name.name)
                if name.name in (*ROOTS, "loop"):
                    self._flaw(f"`{name.name}` cannot be set", None, name.name, name.lineno)
        for child in tree.body:
            self._visit(child)
        self.template.expression = whole_expression(tree)

    def _flaw(self, message: str, hint: str | None, word: str | None, line: int) -> None:
        self.template.flaws.append(Flaw(message, hint, word, line))

    def _visit(self, node: Any, *, quoted: bool = False, shown: bool = False) -> None:
        from jinja2 import nodes

        self.count += 1
        if self.count == MAX_NODES:
            self._flaw("the template is too long", None, None, node.lineno)
        if self.count >= MAX_NODES:
            return
        kind = type(node).__name__
        if kind not in ALLOWED:
            self._refuse(node, kind)
            return
        if isinstance(node, nodes.Name):
            self._name(node)
            return
        if isinstance(node, nodes.Getattr | nodes.Getitem) and self._reference(node, quoted, shown):
            return
        if isinstance(node, nodes.Filter | nodes.Test):
            self._known(node)
            quoted = quoted or node.name in HARMLESS or _maps_sh(node)
        for child, told in _children(node, shown):
            self._visit(child, quoted=quoted, shown=told)

    def _refuse(self, node: Any, kind: str) -> None:
        unknown = ("this has no place in a recipe's template", None)
        message, hint = _REFUSED.get(kind, unknown)
        word: str | None = None
        if kind == "Call":
            called = node.node
            word = str(getattr(called, "attr", None) or getattr(called, "name", "")) + "("
            if word[:-1] in FILTERS:
                hint = "use the filter: `{{ … | " + word[:-1] + " }}`"
            if hasattr(called, "attr"):
                self._visit(called.node)
        self._flaw(message, hint, word, node.lineno)

    def _known(self, node: Any) -> None:
        known = FILTERS if type(node).__name__ == "Filter" else TESTS
        if node.name not in known:
            kind = type(node).__name__.lower()
            hint = did_you_mean(node.name, known)
            self._flaw(f"unknown {kind} `{node.name}`", hint, node.name, node.lineno)

    def _name(self, node: nodes.Name) -> None:
        if node.ctx != "load" or node.name in self.own:
            return
        if node.name == "prompts":
            hint = "name one by number or id: `prompts[0].final_message`"
            self._flaw("`prompts` alone is no value", hint, "prompts", node.lineno)
        elif node.name in ROOTS:
            hint = f"name one of its values: `{node.name}.…`"
            self._flaw(f"`{node.name}` alone is no value", hint, node.name, node.lineno)
        else:
            known = [*ROOTS, *(f"params.{name}" for name in self.params)]
            near = did_you_mean(node.name, known, otherwise="") or did_you_mean("", ROOTS)
            same = f"did you mean `params.{node.name}`?"
            hint = same if node.name in self.params else near or ""
            self._flaw(f"unknown name `{node.name}`", hint, node.name, node.lineno)

    def _reference(self, node: Any, quoted: bool, shown: bool) -> bool:
        """Check a chain such as `params.x` or `prompts[0].output.a`; False: it begins elsewhere."""
        chain, root = _chain(node)
        if root is None or root.name in self.own or root.name not in ROOTS:
            return False
        first = chain[0]
        if first is None:
            self._dynamic(root, node)
        elif root.name == "params":
            self._param(str(first), node.lineno, quoted=quoted, shown=shown)
        elif root.name == "prompts":
            self._prompt(chain, node.lineno, quoted=quoted, shown=shown)
        else:
            fields = RUN_FIELDS if root.name == "run" else RECIPE_FIELDS
            self._field(root.name, str(first), fields, node.lineno)
        return True

    def _dynamic(self, root: nodes.Name, node: Any) -> None:
        message = f"`{root.name}[…]` must name its entry directly"
        self._flaw(message, f"write `{root.name}.NAME`", root.name, node.lineno)

    def _param(self, name: str, line: int, *, quoted: bool, shown: bool) -> None:
        if name not in self.params:
            hint = did_you_mean(name, self.params, otherwise="declare it under `params`")
            self._flaw(f"unknown parameter `{name}`", hint, f"params.{name}", line)
            return
        self.template.params.add(name)
        if shown and not quoted:
            self.template.unquoted.append((f"params.{name}", line))

    def _prompt(self, chain: Sequence[Any], line: int, *, quoted: bool, shown: bool) -> None:
        which = chain[0]
        if len(chain) < 2 or chain[1] is None:
            hint = "one of `final_message`, `output`, `status`"
            self._flaw("`prompts` needs one of its prompt's values", hint, "prompts", line)
            self.template.prompts.append(PromptReference(which, "", line))
            return
        part = str(chain[1])
        self._field("prompts[…]", part, PROMPT_FIELDS, line)
        self.template.prompts.append(PromptReference(which, part, line))
        if shown and not quoted and part in ("final_message", "output"):
            self.template.unquoted.append(("prompts", line))

    def _field(self, root: str, name: str, fields: Sequence[str], line: int) -> None:
        if name not in fields:
            self._flaw(f"`{root}` has no `{name}`", did_you_mean(name, fields), name, line)


def _maps_sh(node: Any) -> bool:
    """Whether the node is `… | map("sh")`."""
    return node.name == "map" and any(
        getattr(arg, "value", None) == "sh" for arg in node.args or ()
    )


def _children(node: Any, shown: bool) -> Iterator[tuple[Any, bool]]:
    """The parts of a node, and whether the value of each is what the template puts out."""
    kind = type(node).__name__
    hidden = {"If": ("test",), "For": ("iter", "test"), "CondExpr": ("test",), "Test": ("node",)}
    for name, part in node.iter_fields():
        told = kind == "Output" or (shown and name not in hidden.get(kind, ()))
        for child in part if isinstance(part, list) else [part]:
            if hasattr(child, "iter_fields"):
                yield child, told


ALLOWED = frozenset(
    [
        "Output",
        "TemplateData",
        "Name",
        "Const",
        "List",
        "Tuple",
        "Dict",
        "Pair",
        "Keyword",
        "Getattr",
        "Getitem",
        "Slice",
        "Filter",
        "Test",
        "Compare",
        "Operand",
        "And",
        "Or",
        "Not",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "FloorDiv",
        "Mod",
        "Pow",
        "Neg",
        "Pos",
        "Concat",
        "CondExpr",
        "If",
        "For",
        "Assign",
        "TemplateReference",
    ]
)


def _chain(node: Any) -> tuple[list[Any], Any]:
    """The constant steps of an access from its root name on; None for any other step."""
    from jinja2 import nodes

    steps: list[Any] = []
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        if isinstance(node, nodes.Getattr):
            steps.append(node.attr)
        else:
            steps.append(node.arg.value if isinstance(node.arg, nodes.Const) else None)
        node = node.node
    steps.reverse()
    return steps, node if isinstance(node, nodes.Name) else None


def whole_expression(tree: Any) -> Any:
    """The expression of `{{ … }}` when there is nothing but white space around it."""
    from jinja2 import nodes

    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = [
        part
        for part in tree.body[0].nodes
        if not (isinstance(part, nodes.TemplateData) and not part.data.strip())
    ]
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None
