"""`kaos-runner show RUN`: one recorded run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kaos_runner.cli import options as o

if TYPE_CHECKING:
    from kaos_runner.record import RunDirectory


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("show")(show)


def show(
    run: Annotated[
        str,
        typer.Argument(metavar="[RUN]", help="A run's id, the beginning of one, or `last`."),
    ] = "last",
    run_dir: o.RunDirOption = o.RUN_DIR,
    output: o.OutputOption = o.Output.TEXT,
    verbose: o.VerboseOption = 0,
) -> int:
    """Show a recorded run: its outcome, checks, artifacts, tokens, sandbox and last message.

    With -v the whole run is told again, as it was told then; `--output json` gives its
    `result.json`, `stream-json` its events.
    """
    from kaos_runner.errors import UsageError
    from kaos_runner.record import RunDirectory

    directory = RunDirectory.find(run_dir, run)
    match output:
        case o.Output.TEXT if verbose:
            _tell_again(directory, verbose - 1)
        case o.Output.TEXT:
            _summarise(directory)
        case o.Output.JSON:
            print(directory.result().model_dump_json(by_alias=True, indent=2))
        case o.Output.STREAM_JSON:
            _stream(directory)
        case _:
            msg = f"`show` does not speak {output.value}"
            raise UsageError(msg, hint="use --output text, json or stream-json")
    return 0


def _summarise(directory: RunDirectory) -> None:
    from kaos_runner.sinks.console import plain
    from kaos_runner.sinks.narrate import Line
    from kaos_runner.sinks.safe import visible
    from kaos_runner.sinks.summary import summary
    from kaos_runner.sinks.tally import Tally

    tally = Tally()
    for record in directory.records():
        tally.add(record)
    if not tally.run_id:
        _say_result(directory)
        return
    began = f"{tally.began:%Y-%m-%d %H:%M:%S} UTC" if tally.began else ""
    lines = [Line("run", directory.run_id), Line("started", began), *summary(tally)]
    for line in lines:
        print("\n".join(plain(line)))
    if message := visible(tally.final_message).strip():
        print(f"\n{message}")


def _say_result(directory: RunDirectory) -> None:
    """Say what `result.json` has, for a run whose events are gone."""
    from kaos_runner.sinks.safe import visible

    result = directory.result()
    print(f"{directory.run_id}: {result.status.replace('_', ' ')} (exit code {result.exit_code})")
    print(visible(result.message))


def _tell_again(directory: RunDirectory, verbosity: int) -> None:
    from kaos_runner.sinks.console import ConsoleSink

    sink = ConsoleSink(sys.stdout, sys.stdout, verbosity)
    for record in directory.records():
        sink.handle(record)
    sink.close()


def _stream(directory: RunDirectory) -> None:
    from kaos_runner.sinks.stream import StreamSink

    sink = StreamSink(sys.stdout)
    for record in directory.records():
        sink.handle(record)
    sink.close()
