"""Rendering: the document with its parameters' values, then the typed recipe."""

from __future__ import annotations

import os.path
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kaos_runner.errors import Problem, RecipeError
from kaos_runner.recipe.evaluate import TemplateError, render_text, render_value
from kaos_runner.recipe.filters import as_text
from kaos_runner.recipe.nodes import Node, format_path
from kaos_runner.recipe.params import ParamValue, settle
from kaos_runner.recipe.report import in_order
from kaos_runner.recipe.rules import path_problems
from kaos_runner.recipe.trust import Fence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pydantic import ValidationError

    from kaos_runner.recipe import nodes
    from kaos_runner.recipe.check import Checked
    from kaos_runner.recipe.load import Loaded
    from kaos_runner.recipe.model import Artifact, Check, Prompt, Recipe
    from kaos_runner.recipe.texts import Text


@dataclass(frozen=True, slots=True)
class RunContext:
    """What templates know of the run."""

    id: str
    started_at: str
    """RFC 3339, UTC."""
    attempt: int = 1

    @classmethod
    def now(cls, run_id: str, attempt: int = 1) -> RunContext:
        """The context of a run that begins now."""
        return cls(run_id, datetime.now(UTC).isoformat(timespec="seconds"), attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOutcome:
    """What an earlier prompt brought, for the templates of later ones."""

    id: str | None
    final_message: str
    output: Any
    status: str


def render(
    loaded: Loaded, given: Mapping[str, Any], environ: Mapping[str, str], run: RunContext
) -> Rendered:
    """Settle the parameters and render every leaf that needs no prompt.

    Raises:
        RecipeError: names everything that is wrong.
    """
    params, problems = settle(loaded.params, given, environ)
    problems = [_placed(loaded, problem) for problem in problems]
    if problems:
        raise RecipeError(in_order(problems))
    context = {
        "params": {name: params[name].value if name in params else None for name in loaded.params},
        "run": {"id": run.id, "started_at": run.started_at, "attempt": run.attempt},
        "recipe": {"name": loaded.name, "dir": str(loaded.path.absolute().parent)},
    }
    return Rendered(loaded, context, tuple(params.values()))


def _placed(loaded: Loaded, problem: Problem) -> Problem:
    """A parameter's problem, at its declaration when it has one."""
    name = problem.path.removeprefix("params.")
    params = loaded.document.child("params") if loaded.document else None
    if params is None or not params.keys or name not in params.keys:
        return problem
    key = params.keys[name]
    line, column = key.source.line_column(key.start)
    return replace(problem, file=key.source.label, line=line, column=column)


@dataclass(eq=False)
class Rendered:
    """A recipe with its values; what needs a prompt's outcome is still a template."""

    loaded: Loaded
    context: Mapping[str, Any] = field(repr=False)
    params: tuple[ParamValue, ...]
    """Each parameter's value and origin, in the order of their declaration."""

    def __post_init__(self) -> None:
        assert self.loaded.document is not None
        self.tree = self._tree(None, ())
        self.recipe: Recipe = self._typed(self.tree)

    @property
    def dir(self) -> Path:
        """The folder of the recipe's file, which its paths are relative to."""
        return self.loaded.path.absolute().parent

    @property
    def origins(self) -> dict[nodes.Path, str]:
        """Where each parameter's value came from, by its path."""
        return {("params", value.name): value.origin for value in self.params}

    def place(self, path: nodes.Path) -> tuple[str, int | None, int | None]:
        """File, line and column of the value at a path, or of the nearest one above it."""
        return self.loaded.place(path)

    def prompt(self, index: int, outcomes: Sequence[PromptOutcome]) -> Prompt:
        """A prompt with its templates rendered, now that the earlier ones are over.

        Raises:
            RecipeError: a deferred template fails.
        """
        return self._typed(self._tree(outcomes, ("prompts", index))).prompts[index]

    def checks(self, outcomes: Sequence[PromptOutcome]) -> tuple[Check, ...]:
        """The recipe's checks, rendered.

        Raises:
            RecipeError: a deferred template fails.
        """
        return self._typed(self._tree(outcomes, ("checks",))).checks

    def artifacts(self, outcomes: Sequence[PromptOutcome]) -> tuple[Artifact, ...]:
        """The recipe's artifacts, rendered.

        Raises:
            RecipeError: a deferred template fails.
        """
        return self._typed(self._tree(outcomes, ("artifacts",))).artifacts

    def document(self, mask: Callable[[str], str] | None = None) -> dict[str, Any]:
        """The rendered recipe as plain data; deferred leaves are templates still."""
        plain: dict[str, Any] = _masked(self.tree.plain(), mask) if mask else self.tree.plain()
        return plain

    def to_yaml(self, mask: Callable[[str], str] | None = None) -> str:
        """The rendered recipe as YAML."""
        from kaos_runner.recipe.dump import to_yaml

        return to_yaml(self.document(mask))

    def _tree(self, outcomes: Sequence[PromptOutcome] | None, within: nodes.Path) -> Node:
        """The document with every template rendered that can be."""
        renderer = _Renderer(self.loaded, self.context, outcomes, within)
        assert self.loaded.document is not None
        tree = renderer.node(self.loaded.document, ())
        if renderer.problems:
            raise RecipeError(in_order(renderer.problems))
        assert tree is not None
        return self._checked(tree)

    def _checked(self, tree: Node) -> Node:
        """The tree, its host paths relative to the recipe's folder.

        Raises:
            RecipeError: a rendered value does not fit its field.
        """
        from kaos_runner.recipe.load import checker_for

        checked = checker_for(tree, templates=False).check(tree)
        fence = Fence.around(self.loaded.path, self.loaded.options.allow_path)
        problems = list(checked.problems)
        for leaf in checked.paths:
            problems += path_problems(leaf, fence)
        if problems:
            raise RecipeError(in_order(problems))
        return _relocated(tree, checked, self.dir)

    def _typed(self, tree: Node) -> Recipe:
        from pydantic import ValidationError

        from kaos_runner.recipe.model import Recipe

        try:
            return Recipe.model_validate(tree.plain())
        except ValidationError as error:
            raise RecipeError(in_order(self._problems(error))) from None

    def _problems(self, error: ValidationError) -> list[Problem]:
        assert self.loaded.document is not None
        found = []
        for each in error.errors():
            path: list[str | int] = []
            for step in each["loc"]:
                if self.loaded.document.find((*path, step)) is not None:
                    path.append(step)
            message = each["msg"].removeprefix("Value error, ")
            found.append(self.loaded.problem(tuple(path), message[:1].lower() + message[1:]))
        return found


class _Renderer:
    def __init__(
        self,
        loaded: Loaded,
        context: Mapping[str, Any],
        outcomes: Sequence[PromptOutcome] | None,
        within: nodes.Path,
    ) -> None:
        assert loaded.texts is not None
        self.texts = loaded.texts
        self.within = within
        self.known = outcomes is not None
        self.context = dict(context)
        self.context["prompts"] = _outcomes(outcomes or ())
        self.problems: list[Problem] = []

    def node(self, node: Node, path: nodes.Path) -> Node | None:
        """The node rendered; None when it is a typed value that is not known yet."""
        if path in self.texts.files:
            return self._leaf(self.texts.files[path], node)
        if node.entries is not None:
            entries = {
                key: rendered
                for key, value in node.entries.items()
                if not key.startswith("x-")
                and (rendered := self.node(value, (*path, key))) is not None
            }
            return replace(node, entries=entries)
        if node.items is not None:
            items = [self.node(item, (*path, i)) for i, item in enumerate(node.items)]
            return replace(node, items=[item for item in items if item is not None])
        return self._leaf(self.texts.by_path[path], node) if path in self.texts.by_path else node

    def _leaf(self, text: Text, node: Node) -> Node | None:
        if text.template.deferred and not self._due(text):
            if text.typed:
                return None
            return replace(node, kind="scalar", value=text.template.text, entries=None)
        try:
            value = self._value(text)
        except TemplateError as error:
            hint = None if text.external else error.hint
            message = "a template fails" if text.external else error.message
            self.problems.append(text.problem(message, hint=hint, line=error.line))
            value = text.template.text
        return replace(node, kind="scalar", value=value, entries=None)

    def _due(self, text: Text) -> bool:
        return self.known and text.path[: len(self.within)] == self.within

    def _value(self, text: Text) -> Any:
        template = text.template
        if template.tree is None:
            return template.text
        if text.typed:
            return render_value(template, self.context)
        if template.expression is not None and not text.external:
            return as_text(render_value(template, self.context))
        return render_text(template, self.context)


def _outcomes(outcomes: Sequence[PromptOutcome]) -> dict[int | str, dict[str, Any]]:
    """Prompts by number and by id."""
    known: dict[int | str, dict[str, Any]] = {}
    for index, outcome in enumerate(outcomes):
        facts = {
            "final_message": outcome.final_message,
            "output": outcome.output,
            "status": outcome.status,
        }
        known[index] = facts
        if outcome.id is not None:
            known[outcome.id] = facts
    return known


def _relocated(tree: Node, checked: Checked, folder: Path) -> Node:
    """The tree with the host paths of an extended recipe relative to this one's folder, and a
    backend's, which does not know that folder, absolute."""
    for leaf in checked.paths:
        own = leaf.node.source.path.absolute().parent
        if leaf.role == "host" and leaf.path[0] == "backend":
            tree = _replaced(tree, leaf.path, str(own / str(leaf.node.value)))
        elif leaf.role == "host" and own != folder:
            tree = _replaced(tree, leaf.path, os.path.relpath(own / str(leaf.node.value), folder))
    return tree


def _replaced(node: Node, path: nodes.Path, value: str) -> Node:
    """A copy of the node with another scalar at a path."""
    if not path:
        return replace(node, value=value)
    step, rest = path[0], path[1:]
    if node.entries is not None and isinstance(step, str):
        changed = _replaced(node.entries[step], rest, value)
        return replace(node, entries={**node.entries, step: changed})
    assert node.items is not None
    items = [
        _replaced(item, rest, value) if i == step else item for i, item in enumerate(node.items)
    ]
    return replace(node, items=items)


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked(item, mask) for key, item in value.items()}
    return [_masked(item, mask) for item in value] if isinstance(value, list) else value


__all__ = ["PromptOutcome", "Rendered", "RunContext", "format_path", "render"]
