"""`kaos-runner validate RECIPE…`: every problem of every recipe, and nothing is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from kaos_runner.errors import Problem
    from kaos_runner.recipe.load import Loaded, LoadOptions

Recipes = Annotated[
    list[Path], typer.Argument(metavar="RECIPE...", help="The recipes' YAML files.")
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("validate")(validate)


def validate(
    recipes: Recipes,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            envvar="KAOS_RUNNER_BACKEND",
            metavar="NAME|all",
            help="Also say what this backend, or each, honours, emulates or refuses.",
        ),
    ] = None,
    allow_path: o.AllowPathOption = None,
    untrusted: o.UntrustedOption = False,
    strict: o.StrictOption = False,
    output: o.OutputOption = o.Output.TEXT,
    quiet: o.QuietOption = False,
) -> int:
    """Check recipes: every problem, with its place and a hint; safe on hostile files.

    No parameter values are needed, and nothing is started. Ends with 2 when there is a problem.
    """
    from kaos_runner.recipe.load import LoadOptions

    options = LoadOptions(
        backend=None if backend == "all" else backend,
        allow_path=tuple(allow_path or ()),
        untrusted=untrusted,
        strict=strict,
    )
    results = [_result(path, options, backend) for path in recipes]
    _Teller(output, quiet=quiet).tell(results)
    return 2 if any(result.failed for result in results) else 0


def _result(path: Path, options: LoadOptions, backend: str | None) -> Result:
    from kaos_runner.recipe.load import load

    loaded = load(path, options=options)
    problems = loaded.problems
    if options.strict:
        problems = tuple(problem.as_error() for problem in problems)
    result = Result(path, loaded, problems)
    if backend is not None and loaded.document is not None:
        from kaos_runner.recipe.support import support

        result.support = support(loaded, None if backend == "all" else backend)
    return result


class Result:
    """What `validate` found about one recipe."""

    def __init__(self, path: Path, loaded: Loaded, problems: Sequence[Problem]) -> None:
        self.path = path
        self.loaded = loaded
        self.problems = problems
        self.support: dict[str, Any] = {}

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return any(problem.severity == "error" for problem in self.problems)


class _Teller:
    def __init__(self, output: o.Output, *, quiet: bool) -> None:
        self.output = output
        self.quiet = quiet

    def tell(self, results: Sequence[Result]) -> None:
        if self.output is o.Output.TEXT:
            self._text(results)
        elif self.output is o.Output.GITHUB:
            self._github(results)
        else:
            self._json(results)

    def _text(self, results: Sequence[Result]) -> None:
        from kaos_runner.recipe.report import as_text

        for result in results:
            if result.problems:
                print(as_text(result.problems))
            elif not self.quiet:
                print(f"{result.path}: ok")
            for sentence in result.loaded.dropped:
                print(f"{result.path}: dropped {sentence}")
            if result.support:
                from kaos_runner.recipe.support import as_table

                print(as_table(result.support))
        if not self.quiet and (len(results) > 1 or results[0].problems):
            print(_summary(results))

    def _github(self, results: Sequence[Result]) -> None:
        from kaos_runner.recipe.report import as_github

        for result in results:
            if result.problems:
                print(as_github(result.problems))

    def _json(self, results: Sequence[Result]) -> None:
        import json

        from kaos_runner.recipe.report import plain

        told = [
            {
                "file": str(result.path),
                "valid": not result.failed,
                "problems": [plain(problem) for problem in result.problems],
                **({"dropped": list(result.loaded.dropped)} if result.loaded.dropped else {}),
                **({"backends": result.support} if result.support else {}),
            }
            for result in results
        ]
        print(json.dumps({"recipes": told}, indent=2, ensure_ascii=False))


def _summary(results: Sequence[Result]) -> str:
    problems = [problem for result in results for problem in result.problems]
    errors = sum(problem.severity == "error" for problem in problems)
    parts = [_count(errors, "error")]
    if len(problems) > errors:
        parts.append(_count(len(problems) - errors, "warning"))
    return f"{', '.join(parts)} in {_count(len(results), 'recipe')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
