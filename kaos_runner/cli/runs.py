"""`kaos-runner runs`: the recorded runs, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kaos_runner.record import RunDirectory
    from kaos_runner.result import Result


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("runs")(runs)


def runs(
    run_dir: o.RunDirOption = o.RUN_DIR,
    number: Annotated[
        int, typer.Option("--number", "-n", metavar="N", min=0, help="At most N; 0 means all.")
    ] = 20,
    output: o.OutputOption = o.Output.TEXT,
) -> int:
    """List the recorded runs, the latest last."""
    found = list(_found(run_dir))[-number if number else 0 :]
    match output:
        case o.Output.TEXT:
            _print_table(found, run_dir)
        case o.Output.JSON:
            import json

            print(json.dumps({"runs": [_row(*run) for run in found]}, indent=2))
        case _:
            from kaos_runner.errors import UsageError

            msg = f"`runs` does not speak {output.value}"
            raise UsageError(msg, hint="use --output text or json")
    return 0


def _found(folder: Path) -> Iterator[tuple[RunDirectory, Result | None]]:
    from kaos_runner.errors import UsageError
    from kaos_runner.record import RunDirectory

    for directory in RunDirectory.all(folder):
        try:
            yield directory, directory.result()
        except UsageError:
            yield directory, None


def _row(directory: RunDirectory, result: Result | None) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": directory.run_id, "run_dir": str(directory.path)}
    if result is None:
        return {**row, "status": "unreadable"}
    finished = result.finished_at is not None
    return {
        **row,
        "status": result.status if finished else "unfinished",
        "exit_code": result.exit_code if finished else None,
        "recipe": result.recipe,
        "backend": result.backend,
        "started_at": result.started_at.isoformat() if result.started_at else None,
        "seconds": result.seconds,
        "tokens": result.usage.input + result.usage.output,
        "sandbox": result.sandbox.model_dump() if result.sandbox else None,
    }


def _print_table(found: list[tuple[RunDirectory, Result | None]], folder: Path) -> None:
    from kaos_runner.sinks import words
    from kaos_runner.sinks.safe import one_line

    if not found:
        print(f"no recorded runs below {folder / 'runs'}")
        return
    table = [["RUN", "STATUS", "CODE", "RECIPE", "BACKEND", "TIME", "TOKENS", "SANDBOX"]]
    for run in found:
        row = _row(*run)
        code, sandbox = row.get("exit_code"), row.get("sandbox") or {}
        table.append([
            row["run_id"],
            row["status"].replace("_", " "),
            "" if code is None else str(code),
            one_line(row.get("recipe", ""), 40),
            one_line(row.get("backend", ""), 20),
            words.seconds(row["seconds"]) if code is not None else "",
            words.count(row.get("tokens", 0)),
            one_line(sandbox.get("end") or ("unknown" if sandbox else "")),
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        )
