"""Templates: parsed with Jinja's own parser when the recipe is loaded, and every name in them checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

FILTERS = frozenset(
    "abs capitalize d default dictsort first float int items join last length list lower map max min"
    " reject rejectattr replace reverse round select selectattr sh sort string sum title tojson trim"
    " unique upper".split()
)
"""What a template may use; each works on values only, in time that the size of its input bounds."""
TESTS = frozenset(
    "boolean defined divisibleby eq equalto even false float ge greaterthan gt in integer iterable le"
    " lessthan lower lt mapping ne none number odd sequence string true undefined upper".split()
)
PROMPT_FIELDS = ("final_message", "output", "status")
RUN_FIELDS = ("attempt", "id", "started_at")
RECIPE_FIELDS = ("dir", "name")
ROOTS = ("params", "prompts", "recipe", "run")
MAX_NODES = 20_000

_REFUSED = {
    "Call": (
        "a function or method cannot be called in a template",
        "use a filter: {{ value | upper }}",
    ),
    "Include": ("a template cannot include another", "a long text may be `{file: …}`"),
    "Import": ("a template cannot import", None),
    "FromImport": ("a template cannot import", None),
    "Extends": ("a template cannot extend another", "a recipe can: `extends:`"),
    "Macro": ("a template cannot define macros", None),
    "Block": ("a template has no blocks", None),
}


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong in a template; `offset` is where, in characters from its beginning."""

    message: str
    hint: str | None = None
    word: str | None = None
    """The piece of the template to point at."""
    line: int = 1
    """The template's line that holds it, from 1."""


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
def environment() -> ImmutableSandboxedEnvironment:
    """Jinja's parser and filters, without globals, loaders and Python's own attributes."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from kaos_runner.recipe.evaluate import quote_for_shell

    env = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    env.globals.clear()
    env.filters = {name: f for name, f in env.filters.items() if name in FILTERS}
    env.filters["sh"] = quote_for_shell
    env.tests = {name: t for name, t in env.tests.items() if name in TESTS}
    return env


def parse(text: str, params: Mapping[str, Any]) -> Template:
    """Parse a leaf and check its names; faults stand in `flaws`."""
    from jinja2 import TemplateSyntaxError

    template = Template(text)
    try:
        template.tree = environment().parse(text)
    except TemplateSyntaxError as error:
        template.flaws.append(_syntax_flaw(error, text))
    except (RecursionError, MemoryError, ValueError, OverflowError):
        template.flaws.append(Flaw("the template is too deeply nested or holds an absurd number"))
    if template.tree is not None:
        try:
            _Reader(template, params).read()
        except RecursionError:
            template.flaws.append(Flaw("the template is too deeply nested"))
    return template


def _syntax_flaw(error: Any, text: str) -> Flaw:
    message = str(error.message or "not a template")
    line = int(error.lineno or 1)
    if "unexpected end of template" in message or "unexpected 'end of template'" in message.lower():
        if text.count("{{") > text.count("}}"):
            return Flaw("`{{` is never closed", "close it with `}}`", "{{", _last(text, "{{"))
        return Flaw("the template ends too early: " + _decapitalised(message), None, None, line)
    if "no filter named" in message or "No filter named" in message:
        name = message.split("'")[1]
        return Flaw(f"unknown filter `{name}`", did_you_mean(name, sorted(FILTERS)), name, line)
    if "unexpected '}'" in message or "expected token 'end of print statement'" in message:
        return Flaw(
            "the expression is not closed right: " + _decapitalised(message), None, None, line
        )
    return Flaw("the template cannot be read: " + _decapitalised(message), None, None, line)


def _last(text: str, mark: str) -> int:
    return text.count("\n", 0, text.rfind(mark)) + 1


def _decapitalised(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")


class _Reader:
    """Walks a template's tree once: refuses what is not allowed, and notes what it refers to."""

    def __init__(self, template: Template, params: Mapping[str, Any]) -> None:
        self.template = template
        self.params = params
        self.own: set[str] = {"loop"}
        self.count = 0

    def read(self) -> None:
        from jinja2 import nodes

        tree = self.template.tree
        assert tree is not None
        self.own |= {n.name for n in tree.find_all(nodes.Name) if n.ctx in ("store", "param")}
        for child in tree.body:
            self._visit(child)
        self.template.expression = _whole_expression(tree)

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
            message, hint = _REFUSED.get(kind, ("this has no place in a recipe's template", None))
            self._flaw(message, hint, None, node.lineno)
            return
        if isinstance(node, nodes.Name):
            self._name(node)
            return
        if isinstance(node, nodes.Getattr | nodes.Getitem) and self._reference(node, quoted, shown):
            return
        if isinstance(node, nodes.Filter | nodes.Test):
            self._known(node)
            quoted = quoted or node.name == "sh"
        for child, told in _children(node, shown):
            self._visit(child, quoted=quoted, shown=told)

    def _known(self, node: Any) -> None:
        known = FILTERS if type(node).__name__ == "Filter" else TESTS
        if node.name not in known:
            kind = type(node).__name__.lower()
            hint = did_you_mean(node.name, sorted(known))
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
            hint = (
                f"did you mean `params.{node.name}`?"
                if node.name in self.params
                else did_you_mean(node.name, known)
            )
            self._flaw(f"unknown name `{node.name}`", hint, node.name, node.lineno)

    def _reference(self, node: Any, quoted: bool, shown: bool) -> bool:
        """Check a chain such as `params.x` or `prompts[0].output.a`; False when it begins elsewhere."""
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
            self._flaw(f"`prompts` needs one of its prompt's values", hint, "prompts", line)
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
    "Output TemplateData Name Const List Tuple Dict Pair Keyword Getattr Getitem Slice Filter Test"
    " Compare Operand And Or Not Add Sub Mul Div FloorDiv Mod Pow Neg Pos Concat CondExpr If For"
    " Assign TemplateReference".split()
)


def _chain(node: Any) -> tuple[list[Any], Any]:
    """The constant steps of an access from its root name on; None for a step that is no constant."""
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


def _whole_expression(tree: Any) -> Any:
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
