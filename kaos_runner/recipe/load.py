"""Loading a recipe: read, compose, lay over what it extends, check, parse its templates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_runner.errors import Problem, RecipeError
from kaos_runner.recipe import nodes
from kaos_runner.recipe.check import Checked, Checker
from kaos_runner.recipe.compose import compose
from kaos_runner.recipe.extends import Chain, is_recipe
from kaos_runner.recipe.params import Declared
from kaos_runner.recipe.report import in_order
from kaos_runner.recipe.rules import Rules
from kaos_runner.recipe.schema import committed_schema, installed_schema
from kaos_runner.recipe.source import Source, UnreadableError, read_source
from kaos_runner.recipe.texts import Texts
from kaos_runner.recipe.trust import Fence, refuse_powers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kaos_runner.recipe.nodes import Node
    from kaos_runner.recipe.render import Rendered, RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a recipe is loaded."""

    backend: str | None = None
    """Run on another backend: what belongs to the recipe's own is dropped."""
    allow_path: tuple[Path, ...] = ()
    """Folders besides the recipe's work tree that its paths may lead into."""
    untrusted: bool = False
    """Refuse every power over the host."""
    strict: bool = False
    """Warnings are errors."""


@dataclass(eq=False, kw_only=True)
class Loaded:
    """A recipe as it is written, with everything that is wrong with it."""

    file: str
    path: Path
    options: LoadOptions
    document: Node | None = None
    """The document with what it extends laid underneath; None when it could not be composed."""
    problems: tuple[Problem, ...] = ()
    dropped: tuple[str, ...] = ()
    """What `--backend` left out, one sentence each."""
    sources: list[Source] = field(default_factory=list)
    checked: Checked = field(default_factory=Checked)
    texts: Texts | None = None
    params: dict[str, Declared] = field(default_factory=dict)
    """The declared parameters."""

    @property
    def name(self) -> str:
        """The recipe's name; its file's when it gives none."""
        return (self.document.text("name") if self.document else None) or self.path.stem

    @property
    def text(self) -> str:
        """The recipe's file as it is written."""
        return self.sources[0].text if self.sources else ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return tuple(source.path for source in self.sources)

    @property
    def digest(self) -> str:
        """A sha256 over the recipe and every file that it pulled in, by content and in order."""
        whole = hashlib.sha256()
        for source in self.sources:
            whole.update(hashlib.sha256(source.content).digest())
        return whole.hexdigest()

    def place(self, path: nodes.Path) -> tuple[str, int | None, int | None]:
        """File, line and column of the value at a path, or of the nearest one above it."""
        if self.document is None:
            return self.file, None, None
        node = self.document.nearest(path)
        return (node.source.label, *node.source.line_column(node.start))

    def problem(self, path: nodes.Path, message: str, hint: str | None = None) -> Problem:
        """A problem at a path of the document."""
        if self.document is None:
            return Problem(message=message, file=self.file, hint=hint)
        return nodes.problem_at(self.document.nearest(path), message, hint=hint, path=path)

    def raise_for_problems(self, *, strict: bool = False) -> None:
        """Stop here when the recipe is invalid.

        Raises:
            RecipeError: there is an error, or with `strict` a warning.
        """
        strict = strict or self.options.strict
        problems = [p.as_error() for p in self.problems] if strict else self.problems
        if any(problem.severity == "error" for problem in problems):
            raise RecipeError(problems)

    def render(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        run: RunContext,
    ) -> Rendered:
        """The recipe with its parameters' values.

        Raises:
            RecipeError: names every parameter that is missing or wrong, and every leaf that fails.
        """
        from kaos_runner.recipe.render import render

        self.raise_for_problems()
        return render(self, params or {}, environ or {}, run)


def load(path: Path | str, *, options: LoadOptions | None = None) -> Loaded:
    """Load a recipe; it never raises for a bad one: `problems` holds everything."""
    loaded = Loaded(file=str(path), path=Path(path), options=options or LoadOptions())
    problems = _load(loaded)
    loaded.problems = in_order(problems)
    if len(loaded.problems) >= nodes.MAX_PROBLEMS:
        rest = Problem(message="there are more problems than these", file=loaded.file)
        loaded.problems = (*loaded.problems[: nodes.MAX_PROBLEMS], rest)
    return loaded


def _load(loaded: Loaded) -> list[Problem]:
    try:
        source = read_source(loaded.path, loaded.file)
    except UnreadableError as error:
        return [
            Problem(
                message=f"the file {error.message}",
                file=loaded.file,
                line=error.line,
                column=error.column,
                hint=error.hint,
            )
        ]
    loaded.sources.append(source)
    document, problems = compose(source)
    if not is_recipe(document, source):
        problems = [replace(problem, source=None) for problem in problems]
        loaded.sources[0] = source = replace(source, quotable=False)
        document, _ = compose(source)
    if document is None:
        return problems
    fence = Fence.around(loaded.path, loaded.options.allow_path)
    if document.entries is not None:
        chain = Chain(fence)
        document = chain.lay(document, source)
        problems += chain.problems
        loaded.sources += chain.sources
        document = _on_backend(loaded, document, problems)
    loaded.document = document
    return _examine(loaded, document, fence, problems)


def _examine(
    loaded: Loaded, document: Node, fence: Fence, problems: list[Problem]
) -> list[Problem]:
    """Everything about the composed document: its shape, its templates, its rules."""
    checker = checker_for(document)
    loaded.checked = checked = checker.check(document)
    problems = [*problems, *checked.problems]
    if document.entries is None:
        return problems
    loaded.params = _declared(document)
    loaded.texts = Texts(document, checked, loaded.params, fence)
    problems += loaded.texts.problems
    loaded.sources += loaded.texts.sources
    rules = Rules(document, checked, loaded.texts, loaded.params, fence, checker.schema)
    problems += islice(rules.problems(), nodes.MAX_PROBLEMS)
    if not any(problem.severity == "error" for problem in problems):
        problems += islice(rules.unused(), nodes.MAX_PROBLEMS)
    if loaded.options.untrusted:
        problems += islice(refuse_powers(document), nodes.MAX_PROBLEMS)
    return problems


@cache
def _committed_checker(*, templates: bool) -> Checker:
    return Checker(committed_schema(), templates=templates)


@cache
def _installed_checker(*, templates: bool) -> Checker:
    return Checker(installed_schema(), templates=templates)


def checker_for(document: Node, *, templates: bool = True) -> Checker:
    """The checker that knows the document's backend; ours need no look at what is installed."""
    name = backend_name(document)
    if name is None or name in committed_schema()["x-backends"]:
        return _committed_checker(templates=templates)
    return _installed_checker(templates=templates)


def backend_name(document: Node) -> str | None:
    """The backend that the document names, known or not."""
    return document.text("backend") or document.text("backend", "type")


def _declared(document: Node) -> dict[str, Declared]:
    params = document.child("params")
    entries = params.entries if params else None
    return {
        name: Declared.read(name, plain if isinstance(plain := node.plain(), dict) else {})
        for name, node in (entries or {}).items()
    }


def _on_backend(loaded: Loaded, document: Node, problems: list[Problem]) -> Node:
    """The document on the backend of `--backend`, without what belongs to its own."""
    wanted = loaded.options.backend
    if wanted is None or backend_name(document) == wanted:
        return document
    from kaos_runner.recipe.suggest import did_you_mean

    known = committed_schema()["x-backends"]
    if wanted not in known:
        known = installed_schema()["x-backends"]
    if wanted not in known:
        problems.append(
            Problem(message=f"unknown backend `{wanted}`", hint=did_you_mean(wanted, known))
        )
        return document
    return _moved(loaded, document, wanted)


def _moved(loaded: Loaded, document: Node, wanted: str) -> Node:
    assert document.entries is not None
    old = backend_name(document) or "none"
    entries = dict(document.entries)
    dropped = []
    written = entries.get("backend") or document
    for key in written.entries or () if "backend" in entries else ():
        if key != "type":
            dropped.append(f"backend.{key}: it belongs to {old}")
    if "image" in entries:
        dropped.append(f"image: it belongs to {old}")
        del entries["image"]
    workdir = document.text("workdir")
    if workdir and workdir.startswith("/"):
        dropped.append(f"workdir: {workdir} belongs to {old}")
        del entries["workdir"]
    entries["backend"] = nodes.Node(written.source, written.start, written.end, "scalar", wanted)
    loaded.dropped = tuple(dropped)
    return replace(document, entries=entries)
