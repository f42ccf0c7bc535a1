"""Which sinks a run gets, and how a refusal to run is told, for each `--output`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from kaos_runner.cli.options import Output
from kaos_runner.cli.problems import tell
from kaos_runner.errors import PrerequisiteError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kaos_runner.errors import KaosRunnerError
    from kaos_runner.events import Bus
    from kaos_runner.record import ResultSink, RunDirectory
    from kaos_runner.sinks.console import ConsoleSink
    from kaos_runner.sinks.junit import JunitSink
    from kaos_runner.sinks.record import RecordSink


@dataclass(slots=True, kw_only=True)
class Presentation:
    """How a run is shown."""

    output: Output
    junit: Path | None
    verbosity: int
    console: ConsoleSink | None = None
    writers: list[RecordSink | JunitSink] = field(default_factory=list)

    def attach(self, bus: Bus, directory: RunDirectory, environ: Mapping[str, str]) -> ResultSink:
        """Give the bus the sinks of this output, the record first."""
        from kaos_runner.record import ResultSink
        from kaos_runner.sinks.record import RecordSink

        result = ResultSink(directory)
        self.writers.append(RecordSink(directory.path))
        if self.junit:
            from kaos_runner.sinks.junit import JunitSink

            self.writers.append(JunitSink(self.junit))
        for sink in (*self.writers, result):
            bus.attach(sink)
        match self.output:
            case Output.TEXT:
                from kaos_runner.sinks.console import console_sink

                self.console = console_sink(self.verbosity, environ)
                bus.attach(self.console)
            case Output.STREAM_JSON:
                from kaos_runner.sinks.stream import StreamSink

                bus.attach(StreamSink(sys.stdout))
            case Output.GITHUB:
                from kaos_runner.sinks.github import GithubSink

                bus.attach(GithubSink(sys.stdout, environ, self.verbosity))
            case Output.JSON:
                pass
        return result

    def paused(self) -> AbstractContextManager[None]:
        """A time in which the terminal belongs to a question for the user."""
        return self.console.paused() if self.console else nullcontext()

    def tell_losses(self) -> None:
        """Say which files of the record could not be written, once the stream is over."""
        for writer in self.writers:
            if writer.failure is not None:
                print(f"error: not all was written: {writer.failure}", file=sys.stderr)

    def refuse(self, error: KaosRunnerError, run_id: str, environ: Mapping[str, str]) -> int:
        """Tell why nothing was started, and give the exit code."""
        self._refuse_in_junit(error)
        problems = error.problems if isinstance(error, RecipeError | PrerequisiteError) else ()
        match self.output:
            case Output.TEXT:
                return tell(error)
            case Output.GITHUB:
                from kaos_runner.recipe.report import as_github
                from kaos_runner.sinks.github import annotates, in_workspace, report_failure

                if problems and annotates(environ):
                    placed = [
                        replace(p, file=in_workspace(p.file, environ) if p.file else None)
                        for p in problems
                    ]
                    print(as_github(placed))
                report_failure(
                    error.code,
                    error.message,
                    error.hint,
                    environ,
                    sys.stdout,
                    annotate=not problems,
                )
            case Output.STREAM_JSON:
                self._stream(error, run_id)
            case Output.JSON:
                from kaos_runner.result import Result

                result = Result(
                    run_id=run_id,
                    status=_status(error),
                    exit_code=error.code,
                    message=error.message,
                    hint=error.hint,
                    problems=[asdict(p) for p in problems],
                )
                print(result.model_dump_json(by_alias=True, indent=2))
        return error.code

    def _refuse_in_junit(self, error: KaosRunnerError) -> None:
        """Let the report tell it too: a CI that reads only the report must not miss it."""
        if self.junit is None:
            return
        from kaos_runner.sinks.junit import refusal, write_report

        try:
            write_report(self.junit, refusal(error.code, error.message))
        except OSError as failure:
            print(f"error: not all was written: {failure}", file=sys.stderr)

    def _stream(self, error: KaosRunnerError, run_id: str) -> None:
        """A stream of one record: the run's end."""
        from kaos_runner.events import Bus, RunFinished
        from kaos_runner.sinks.stream import StreamSink

        bus = Bus(run_id, lambda text: text)
        bus.attach(StreamSink(sys.stdout))
        bus.emit(
            RunFinished(
                status=_status(error),
                exit_code=error.code,
                message=error.message,
                hint=error.hint,
                seconds=0,
                steps=0,
                input_tokens=0,
                output_tokens=0,
            )
        )


def _status(error: KaosRunnerError) -> Literal["unmet", "invalid"]:
    return "unmet" if isinstance(error, PrerequisiteError) else "invalid"


def print_result(result: ResultSink) -> None:
    """Print `result.json` as it stands; where nobody can read it, it still lies in the record."""
    try:
        print(result.result.model_dump_json(by_alias=True, indent=2), flush=True)
    except OSError as error:
        print(f"cannot write the result: {error.strerror}", file=sys.stderr)
