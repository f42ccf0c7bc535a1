"""`kaos-runner init`: a commented recipe to start from, with the schema beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RECIPE = "recipe.yaml"
SCHEMA = "recipe.schema.json"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("init")(init)


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to; made if it is not there.")
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> int:
    """Write a commented starter recipe, and the schema that editors check it with.

    The recipe's first line points to the schema, so an editor with a YAML language server completes
    and checks it at once.
    """
    import json

    from kaos_runner.recipe.schema import installed_schema
    from kaos_runner.recipe.starter import starter

    texts = {
        directory / RECIPE: starter(_name(directory), SCHEMA),
        directory / SCHEMA: json.dumps(installed_schema(), indent=2, ensure_ascii=False) + "\n",
    }
    _write(texts, force=force)
    for path in texts:
        print(f"wrote {path}")
    recipe = directory / RECIPE
    print(f"next: kaos-runner validate {recipe} && kaos-runner explain {recipe}")
    return 0


def _name(directory: Path) -> str:
    """A recipe's name from the folder's."""
    import re

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", directory.resolve().name).strip("-._")[:63]
    return name or "starter"


def _write(texts: dict[Path, str], *, force: bool) -> None:
    """Write all or nothing.

    Raises:
        UsageError: a file is there already, or the folder cannot be written to.
    """
    from kaos_runner.errors import UsageError

    taken = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if taken and not force:
        msg = f"{taken[0]} is there already"
        raise UsageError(msg, hint="name another folder, or overwrite it with --force")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UsageError(msg) from error
