"""`kaos-runner report RUN`: one recorded run as one HTML page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    from kaos_runner.record import RunDirectory


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report")(report)


def report(
    run: Annotated[
        str,
        typer.Argument(metavar="[RUN]", help="A run's id, the beginning of one, or `last`."),
    ] = "last",
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE", help="Where to; `-` is stdout. Defaults to the run's directory."
        ),
    ] = None,
    run_dir: o.RunDirOption = o.RUN_DIR,
) -> int:
    """Write a recorded run as one HTML page, with all that was said and done, and its patch.

    The page loads nothing, runs nothing, and can be sent to somebody as one file.
    """
    from kaos_runner.errors import UsageError
    from kaos_runner.record import RunDirectory
    from kaos_runner.sinks.html import page

    directory = RunDirectory.find(run_dir, run)
    records = list(directory.records())
    if not records:
        msg = f"the record of run {directory.run_id} has no events"
        raise UsageError(msg)
    text = page(records, _patches(directory))
    if to == Path("-"):
        sys.stdout.write(text)
        return 0
    file = to or directory.path / "report.html"
    try:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        msg = f"cannot write {file}: {error.strerror}"
        raise UsageError(msg) from error
    print(file)
    return 0


def _patches(directory: RunDirectory) -> dict[str, str]:
    """The text of the patches that came home, by name; never from outside of the record."""
    found = {}
    for record in directory.records():
        event = record.event
        if event.type == "artifact" and event.kind == "patch" and event.ok:
            file = (directory.artifacts / event.name).resolve()
            if file.is_relative_to(directory.artifacts.resolve()) and file.is_file():
                found[event.name] = file.read_text(encoding="utf-8", errors="replace")
    return found
