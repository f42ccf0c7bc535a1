"""A run as a step of GitHub Actions: a grouped log, annotations, a step summary, outputs.

The runner obeys a line that begins, after white space, with `::`, and one that holds `##[` anywhere
(actions/runner, ActionCommand.cs). So every line of content gets a mark in front of it, `##[` is
taken apart, and outputs are written between delimiters that nobody can guess.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from kaos_runner import events as ev
from kaos_runner.sinks import words
from kaos_runner.sinks.console import TAG_WIDTH
from kaos_runner.sinks.narrate import NORMAL, Line, Narrator
from kaos_runner.sinks.safe import one_line, visible
from kaos_runner.sinks.stepsummary import failure_page, summary_page
from kaos_runner.sinks.summary import summary
from kaos_runner.sinks.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

Conclusion = Literal["success", "failure", "timed_out", "cancelled"]
"""GitHub's own words for how a job ends."""

LONGEST_OUTPUT = 100_000
"""Characters of one output: all outputs of a job may have 1 MiB."""
LONGEST_ANNOTATION = 4000
SUMMARY_BYTES = 1_000_000
"""GitHub refuses a step summary above 1 MiB altogether."""


class GithubSink:
    """Tells a run to GitHub Actions.

    `KAOS_RUNNER_ANNOTATE=false` and `KAOS_RUNNER_SUMMARY=false` in `environ` leave annotations and
    the step summary out; outputs are always written.
    """

    def __init__(self, out: TextIO, environ: Mapping[str, str], verbosity: int = NORMAL) -> None:
        self.tally = Tally()
        self._commands = Commands(out, environ)
        self._environ = environ
        self._narrator = Narrator(self.tally, verbosity, announce=True)
        self._closed = False

    def handle(self, record: ev.Record) -> None:
        """Tell one record."""
        self.tally.add(record)
        event = record.event
        self._open_group(event)
        for line in self._narrator.lines(record):
            self._commands.tell(line)
        if isinstance(event, ev.PhaseFinished | ev.TurnFinished):
            self._commands.end_group()
        self._annotate(event)

    def close(self) -> None:
        """End the log with the summary; write the step summary and the outputs."""
        if self._closed or not self.tally.run_id:
            return
        self._closed = True
        self._commands.end_group()
        for line in summary(self.tally):
            self._commands.tell(line)
        write_outputs(self._environ, outputs(self.tally))
        write_summary(self._environ, summary_page(self.tally, SUMMARY_BYTES))

    def _open_group(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.PhaseStarted() if event.phase != "prompts":
                self._commands.group(event.phase)
            case ev.TurnStarted():
                name = words.prompt_name(event.prompt, event.prompt_id)
                attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
                self._commands.group(f"{name}{attempt}")

    def _annotate(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.CheckFinished(ok=False):
                title = f"check failed: {one_line(event.name, 80)}"
                detail = event.detail or "the check failed"
                self._commands.annotation(
                    "error", detail, title, event.file, event.line, event.column
                )
            case ev.Notice(level="warning" | "error"):
                level: Literal["warning", "error"] = (
                    "warning" if event.level == "warning" else "error"
                )
                hint = f"\n{event.hint}" if event.hint else ""
                self._commands.annotation(level, event.message + hint, "kaos-runner")
            case ev.RunFinished() if event.exit_code != 0:
                hint = f"\n{event.hint}" if event.hint else ""
                meaning = words.MEANING.get(event.exit_code, "unknown")
                title = f"kaos-runner: exit code {event.exit_code}: {meaning}"
                self._commands.annotation("error", event.message + hint, title)
            case _:
                pass


class Commands:
    """Writes log lines and workflow commands, and lets no content look like a command."""

    def __init__(self, out: TextIO, environ: Mapping[str, str]) -> None:
        self._out = out
        self._annotates = annotates(environ)
        self._environ = environ
        self._pending: str | None = None
        self._in_group = False

    def tell(self, line: Line) -> None:
        """Print a line of content; its further lines get a bar in front."""
        if self._pending is not None:
            self._command("group", "", self._pending)
            self._pending, self._in_group = None, True
        first, *rest = line.text.split("\n")
        self._content(f"{line.tag:<{TAG_WIDTH}} {first}")
        for text in rest:
            self._content(f"|{'':<{TAG_WIDTH - 1}} {text}")

    def group(self, title: str) -> None:
        """Begin a group with the next line; it ends the one before, since they do not nest."""
        self.end_group()
        self._pending = title

    def end_group(self) -> None:
        """End the group, if there is one."""
        self._pending = None
        if self._in_group:
            self._in_group = False
            self._print("::endgroup::")

    def annotation(
        self,
        level: Literal["warning", "error"],
        message: str,
        title: str,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        """Annotate the run, or a line of a file of the repository."""
        if not self._annotates:
            return
        place = in_workspace(file, self._environ) if file else ""
        pairs = [("title", title), ("file", place)]
        pairs += [("line", str(line or "")), ("col", str(column or ""))] if place else []
        properties = ",".join(f"{name}={_property(value)}" for name, value in pairs if value)
        self._command(level, properties, visible(message[:LONGEST_ANNOTATION]).strip())

    def _command(self, name: str, properties: str, message: str) -> None:
        self._print(f"::{name}{' ' if properties else ''}{properties}::{_message(message)}")

    def _content(self, text: str) -> None:
        text = text.rstrip()
        self._print(f"|{text}" if text.lstrip().startswith("::") else text)

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads the log; outputs are still written
            print(text.replace("##[", "## ["), file=self._out, flush=True)


def report_failure(
    exit_code: int,
    message: str,
    hint: str | None,
    environ: Mapping[str, str],
    out: TextIO,
    *,
    annotate: bool = True,
) -> None:
    """Tell GitHub of a failure before any record, such as an invalid recipe.

    `annotate` is false where the problems have been annotated one by one already.
    """
    text = f"{message}\n{hint}" if hint else message
    if annotate:
        title = f"kaos-runner: {words.MEANING.get(exit_code, 'failed')}"
        Commands(out, environ).annotation("error", text, title)
    write_outputs(environ, {"conclusion": conclusion(exit_code), "exit-code": str(exit_code)})
    write_summary(environ, failure_page(exit_code, text))


def annotates(environ: Mapping[str, str]) -> bool:
    """Whether annotations are wanted: unless `KAOS_RUNNER_ANNOTATE` is `false`."""
    return environ.get("KAOS_RUNNER_ANNOTATE", "true").lower() != "false"


def in_workspace(file: str, environ: Mapping[str, str]) -> str:
    """The file as GitHub knows it: relative to the checkout, not to where a step runs."""
    workspace = environ.get("GITHUB_WORKSPACE")
    path = Path(os.path.normpath(Path.cwd() / file))
    if workspace and path.is_relative_to(workspace):
        return str(path.relative_to(workspace))
    return file


def conclusion(exit_code: int) -> Conclusion:
    """GitHub's word for an exit code."""
    special: dict[int, Conclusion] = {
        0: "success", 124: "timed_out", 130: "cancelled", 143: "cancelled",
    }  # fmt: skip
    return special.get(exit_code, "failure")


def outputs(tally: Tally) -> dict[str, str]:
    """The step's outputs by name; what a run does not have is empty."""
    exit_code = tally.finished.exit_code if tally.finished else 70
    run_dir = tally.started.run_dir if tally.started else ""
    patch = tally.patch
    has_patch = patch is not None and run_dir and patch.size != 0
    return {
        "conclusion": conclusion(exit_code),
        "exit-code": str(exit_code),
        "run-id": tally.run_id,
        "run-dir": run_dir,
        "final-message": tally.final_message[:LONGEST_OUTPUT],
        "patch-file": str(Path(run_dir) / "artifacts" / patch.name) if patch and has_patch else "",
        "tokens": str(tally.tokens.total),
        "sandbox-id": tally.sandbox.sandbox_id if tally.sandbox else "",
    }


def write_outputs(environ: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Append all values to the file that `GITHUB_OUTPUT` names, in one write."""
    text = ""
    for name, value in values.items():
        delimiter = f"kaos_runner_{secrets.token_hex(16)}"
        text += f"{name}<<{delimiter}\n{value}\n{delimiter}\n"
    _append(environ.get("GITHUB_OUTPUT"), text)


def write_summary(environ: Mapping[str, str], page: str) -> None:
    """Append a page to the step summary, unless it is not wanted."""
    if environ.get("KAOS_RUNNER_SUMMARY", "true").lower() != "false":
        _append(environ.get("GITHUB_STEP_SUMMARY"), page)


def _append(file: str | None, text: str) -> None:
    if not file:
        return
    with (
        suppress(OSError),  # a sink never ends a run; the exit code tells the outcome
        Path(file).open("a", encoding="utf-8", errors="backslashreplace") as handle,
    ):
        handle.write(text)


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(one_line(text, 300)).replace(":", "%3A").replace(",", "%2C")
