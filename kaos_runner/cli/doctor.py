"""`kaos-runner doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kaos_runner.backends.base import Diagnosis


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor")(doctor)


def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Ask only what this recipe needs.")
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the providers' servers too.")
    ] = False,
    env_file: o.EnvFileOption = None,
    backend: o.BackendOption = None,
    output: o.OutputOption = o.Output.TEXT,
) -> int:
    """Say what this machine can run: Python, packages, keys, devices, every backend.

    Keys are named, never shown. With a recipe only its own backend is asked, and the command ends
    with 3 when something that it needs is missing.
    """
    import os

    from kaos_runner.diagnosis import diagnose
    from kaos_runner.plan import with_env_file

    environ = with_env_file(os.environ, env_file)
    found = diagnose(environ, only=_backend_of(recipe, backend), online=online)
    if output is o.Output.TEXT:
        print("\n".join(_lines(found)))
    else:
        print(_json(found))
    missing = any(each.ok is False for part in found.values() for each in part)
    return 3 if missing and (recipe is not None or backend is not None) else 0


def _backend_of(recipe: Path | None, override: str | None) -> str | None:
    """The backend to ask: the recipe's, or the one that is named.

    Raises:
        RecipeError: the recipe is invalid.
        UsageError: there is no such backend.
    """
    from kaos_runner.errors import UsageError
    from kaos_runner.recipe.load import LoadOptions, backend_name, load
    from kaos_runner.recipe.registry import backend_classes, broken_backends
    from kaos_runner.recipe.suggest import did_you_mean

    if recipe is not None:
        loaded = load(recipe, options=LoadOptions(backend=override))
        loaded.raise_for_problems()
        return backend_name(loaded.document) if loaded.document else None
    known = {**backend_classes(), **broken_backends()}
    if override is not None and override not in known:
        msg = f"unknown backend {override!r}"
        raise UsageError(msg, hint=did_you_mean(override, known))
    return override


_MARKS = {True: "ok     ", False: "missing", None: "-      "}


def _lines(found: Mapping[str, Sequence[Diagnosis]]) -> list[str]:
    lines = []
    for part, diagnoses in found.items():
        lines.append(part)
        width = max((len(each.subject) for each in diagnoses), default=0)
        for each in diagnoses:
            lines.append(f"  {_MARKS[each.ok]}  {each.subject.ljust(width)}  {each.detail}")
            if each.hint and each.ok is not True:
                lines.append(f"             hint: {each.hint}")
    return lines


def _json(found: Mapping[str, Sequence[Diagnosis]]) -> str:
    import json
    from dataclasses import asdict

    told: dict[str, Any] = {
        part: [asdict(each) for each in diagnoses] for part, diagnoses in found.items()
    }
    return json.dumps(told, indent=2, ensure_ascii=False)
