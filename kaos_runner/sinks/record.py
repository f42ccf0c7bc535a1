"""The written record of a run: `events.jsonl`, exact, and `transcript.md`, to be read.

Both are written as the run goes, line by line, and are readable by the user only. A transcript
shows all content in fenced blocks: what a model or a tool said is neither rendered nor able to look
like a part of the page.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, TextIO

from kaos_runner import events as ev
from kaos_runner.sinks import words
from kaos_runner.sinks.markdown import code, cut, fence
from kaos_runner.sinks.narrate import artifact_text, sandbox_end
from kaos_runner.sinks.safe import one_line, visible
from kaos_runner.sinks.summary import outcome, tokens
from kaos_runner.sinks.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 50_000
"""Characters of one tool result in the transcript; `events.jsonl` has it whole."""


class RecordSink:
    """Writes `events.jsonl` and `transcript.md` into a run's directory, after what is there."""

    def __init__(self, run_dir: Path) -> None:
        """Open both files.

        Raises:
            OSError: they cannot be opened.
        """
        self.failure: OSError | None = None
        """Why the record is not whole: the first write that failed, such as a full disk."""
        self._events = _open(run_dir / "events.jsonl")
        self._transcript = _open(run_dir / "transcript.md")
        self._writer = TranscriptWriter()

    def handle(self, record: ev.Record) -> None:
        """Write one record; after a failure nothing more."""
        if self.failure is not None:
            return
        try:
            self._events.write(record.line() + "\n")
            self._transcript.write(self._writer.text(record))
        except OSError as error:
            self.failure = error

    def close(self) -> None:
        """Close both files."""
        for file in (self._events, self._transcript):
            try:
                file.close()
            except OSError as error:
                self.failure = self.failure or error


class TranscriptWriter:
    """Turns records into markdown."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._said: list[str] = []
        self._saying = ("text", False)

    def text(self, record: ev.Record) -> str:
        """What this record adds to the page; a model's words come when they are whole."""
        event = record.event
        self._tally.add(record)
        if isinstance(event, ev.Text | ev.Think):
            saying = (event.type, event.subagent)
            before = self._hush() if saying != self._saying else ""
            self._saying = saying
            self._said.append(event.text)
            return before
        return self._hush() + self._section(event)

    def _hush(self) -> str:
        said = "".join(self._said)
        self._said.clear()
        if not said.strip():
            return ""
        kind, subagent = self._saying
        title = "Thinking" if kind == "think" else "Agent"
        return f"**{'Subagent: ' if subagent else ''}{title}**\n\n{fence(said)}\n"

    def _section(self, event: ev.AnyEvent) -> str:
        match event:
            case ev.RunStarted():
                return self._head(event)
            case ev.Notice():
                hint = f"\n{event.hint}" if event.hint else ""
                return f"**{event.level.capitalize()}**\n\n{fence(event.message + hint)}\n"
            case ev.Retry():
                return f"- retried {code(event.operation)}: {code(event.reason)}\n\n"
            case ev.SandboxReady():
                made = "created" if event.created else "connected to"
                return f"- sandbox {made}: {code(event.sandbox_id)}, in {code(event.workdir)}\n\n"
            case ev.SetupFinished():
                place = f"exit code {event.exit_code}, {words.seconds(event.seconds)}"
                return f"**Setup** ({place})\n\n{fence(f'$ {event.command}\n{event.output}')}\n"
            case ev.CheckFinished():
                return self._check(event)
            case ev.ArtifactCollected():
                stat = f"\n{event.detail}" if event.ok and event.detail else ""
                return f"**Artifact**\n\n{fence(artifact_text(event) + stat)}\n"
            case ev.SandboxEnded():
                return f"**Sandbox**\n\n{fence(sandbox_end(event))}\n"
            case ev.RunFinished():
                return self._foot()
            case _:
                return self._turn(event)

    def _turn(self, event: ev.AnyEvent) -> str:
        match event:
            case ev.TurnStarted():
                attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
                name = f" {code(event.prompt_id)}" if event.prompt_id else ""
                return f"## Prompt {event.prompt + 1}{name}{attempt}\n\n{fence(event.text)}\n"
            case ev.ToolCall():
                by = " by a subagent" if event.subagent else ""
                return f"**Tool {event.call}**{by}: {code(event.tool)}\n\n{_arguments(event)}\n"
            case ev.ToolResult():
                ending = f"{'ok' if event.ok else 'failed'}, {words.seconds(event.seconds)}"
                output = fence(cut(event.output, LONGEST)) if event.output.strip() else ""
                return f"**Result {event.call}** ({ending})\n\n{output}\n"
            case ev.Approval() if event.decision == "deny":
                rule = f", rule {code(event.rule)}" if event.rule else ""
                return f"**Denied {event.call}** by {event.by.replace('_', ' ')}{rule}\n\n"
            case _:
                return ""

    def _head(self, event: ev.RunStarted) -> str:
        facts = [
            f"# {one_line(self._tally.run_id)}",
            "",
            f"- recipe: {code(event.recipe)} ({code(event.recipe_file)})",
            f"- backend: {code(event.backend)}",
            f"- model: {code(event.model)}{', replayed from a cassette' if event.replay else ''}",
        ]
        if event.isolation == "none":
            facts += ["", f"**WARNING: {words.NOT_ISOLATED}**"]
        return "\n".join(facts) + "\n\n"

    def _check(self, event: ev.CheckFinished) -> str:
        ending = "ok" if event.ok else "FAILED"
        place = words.check_place(event)
        text = f"{visible(event.name)}: {ending}{f' ({place})' if place else ''}\n{event.detail}"
        return f"**Check**\n\n{fence(cut(text.rstrip(), LONGEST))}\n"

    def _foot(self) -> str:
        lines = [f"{line.tag:<8}{line.text}" for line in outcome(self._tally)]
        return f"## Outcome\n\n{fence('\n'.join([*lines, f'tokens  {tokens(self._tally)}']))}"


def _arguments(call: ev.ToolCall) -> str:
    """A command as it was typed; other arguments as JSON."""
    arguments = call.arguments
    if isinstance(arguments, str):
        return fence(arguments)
    if set(arguments) == {"command"} and isinstance(arguments["command"], str):
        return fence(arguments["command"], "sh")
    return fence(json.dumps(arguments, ensure_ascii=False, indent=2), "json")


def _open(path: Path) -> TextIO:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    return os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
