"""Turns records into lines for a person; the console decides where and in which colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kaos_runner import events as ev
from kaos_runner.sinks import words
from kaos_runner.sinks.safe import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.sinks.tally import Tally

Style = Literal["plain", "title", "dim", "good", "bad", "warn"]

QUIET, NORMAL, VERBOSE, EVERYTHING = -1, 0, 1, 2
"""`-q`, nothing, `-v`, `-vv`."""

_WIDEST = 2000
_OUTPUT_LINES = {QUIET: 0, NORMAL: 5, VERBOSE: 20, EVERYTHING: 100_000}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to tell: a short tag, and text of one or more lines, both safe for a terminal."""

    tag: str
    text: str
    style: Style = "plain"

    def __post_init__(self) -> None:
        """Make the text safe, whoever wrote it: what reaches a terminal is a `Line`."""
        object.__setattr__(self, "text", visible(self.text))


class Narrator:
    """Tells a run as it goes.

    `announce` also tells that a tool call has begun, for places without a live status.
    """

    def __init__(self, tally: Tally, verbosity: int, *, announce: bool) -> None:
        self._tally = tally
        self._verbosity = verbosity
        self._announce = announce
        self._calls: dict[int, ev.ToolCall] = {}
        self._said: list[str] = []
        self._saying = ("text", False)
        self._warned = False

    def lines(self, record: ev.Record) -> Iterator[Line]:
        """What there is to tell of one record; the tally has already taken it."""
        event = record.event
        if isinstance(event, ev.Text | ev.Think):
            yield from self._say(event)
            return
        yield from self._hush()
        if self._verbosity > QUIET:
            yield from self._tell(event)
        else:
            yield from self._tell_loud(event)

    def _say(self, event: ev.Text | ev.Think) -> Iterator[Line]:
        """Collect the pieces of what the model says until something else happens."""
        if (event.type, event.subagent) != self._saying:
            yield from self._hush()
            self._saying = (event.type, event.subagent)
        if self._verbosity >= (NORMAL if event.type == "text" else VERBOSE):
            self._said.append(event.text)

    def _hush(self) -> Iterator[Line]:
        text = visible("".join(self._said)).strip()
        self._said.clear()
        if text:
            kind, subagent = self._saying
            tag = f"sub {kind}" if subagent else kind
            yield Line(tag, text, "plain" if kind == "text" else "dim")

    def _tell_loud(self, event: ev.AnyEvent) -> Iterator[Line]:
        """What is told even when the user asked for quiet."""
        match event:
            case ev.RunStarted() | ev.SandboxReady():
                yield from self._isolation(event)
            case ev.Notice(level="warning" | "error"):
                yield from self._notice(event)

    def _tell(self, event: ev.AnyEvent) -> Iterator[Line]:
        match event:
            case ev.RunStarted():
                yield from self._run_started(event)
            case ev.Notice():
                yield from self._notice(event)
            case ev.PhaseStarted() if self._verbosity >= VERBOSE:
                yield Line("phase", event.phase, "dim")
            case ev.PhaseFinished() if self._verbosity >= VERBOSE or not event.ok:
                ending = "done" if event.ok else "failed"
                yield Line(
                    "phase",
                    f"{event.phase}: {ending}, {words.seconds(event.seconds)}",
                    "dim" if event.ok else "bad",
                )
            case ev.Retry():
                wait = words.seconds(event.wait_seconds)
                yield Line(
                    "retry",
                    f"{one_line(event.operation)}: attempt {event.attempt} failed "
                    f"({one_line(event.reason, 200)}), again in {wait}",
                    "warn",
                )
            case ev.SandboxReady():
                yield from self._sandbox(event)
            case ev.SandboxEnded():
                yield Line(
                    "sandbox", sandbox_end(event), "bad" if event.end == "failed" else "plain"
                )
            case ev.SetupFinished():
                yield from self._setup(event)
            case ev.CheckFinished():
                yield from self._check(event)
            case ev.ArtifactCollected():
                yield from self._artifact(event)
            case _:
                yield from self._tell_turn(event)

    def _tell_turn(self, event: ev.AnyEvent) -> Iterator[Line]:
        match event:
            case ev.TurnStarted():
                yield self._turn_started(event)
            case ev.ToolCall():
                self._calls[event.call] = event
                if self._announce:
                    yield Line(f"tool {event.call}", self._called(event))
            case ev.ToolResult():
                yield from self._returned(event)
            case ev.Approval() if event.decision == "deny" or self._verbosity >= VERBOSE:
                rule = f": {one_line(event.rule)}" if event.rule else ""
                by = event.by.replace("_", " ")
                yield Line(
                    f"tool {event.call}",
                    f"{'denied' if event.decision == 'deny' else 'allowed'} by {by}{rule}",
                    "warn" if event.decision == "deny" else "dim",
                )
            case ev.Usage() if self._verbosity >= VERBOSE:
                yield Line(
                    "tokens",
                    f"{event.input} in ({event.cache_read} from cache), {event.output} out",
                    "dim",
                )
            case ev.PromptFinished():
                name = words.prompt_name(event.prompt, event.prompt_id)
                tries = "" if event.attempts == 1 else f" after {event.attempts} attempts"
                good = event.status == "succeeded"
                yield Line("prompt", f"{name} {event.status}{tries}", "good" if good else "bad")

    def _run_started(self, event: ev.RunStarted) -> Iterator[Line]:
        model = one_line(event.model)
        if event.replay:
            model = f"{model}, replayed from a cassette" if model else "replayed from a cassette"
        prompts = words.plural(event.prompts, "prompt")
        where = one_line(event.backend)
        yield Line("run", f"{one_line(event.recipe)} on {where}: {prompts}, model {model}", "title")
        yield Line("record", one_line(event.run_dir, 500), "dim")
        yield from self._isolation(event)

    def _sandbox(self, event: ev.SandboxReady) -> Iterator[Line]:
        made = "created" if event.created else "connected"
        isolated = f", isolated by {event.isolation}" if self._tally.isolated else ""
        yield Line(
            "sandbox",
            f"{one_line(event.backend)} {one_line(event.sandbox_id)} {made}, "
            f"workdir {one_line(event.workdir, 200)}{isolated if event.isolation else ''}",
        )
        yield from self._isolation(event)

    def _isolation(self, event: ev.RunStarted | ev.SandboxReady) -> Iterator[Line]:
        if event.isolation == "none" and not self._warned:
            self._warned = True
            yield Line("WARNING", words.NOT_ISOLATED, "warn")

    def _notice(self, event: ev.Notice) -> Iterator[Line]:
        if self._warned and words.NOT_ISOLATED in event.message:
            return  # the start block has said it
        styles: dict[str, tuple[str, Style]] = {
            "info": ("note", "plain"),
            "warning": ("WARNING", "warn"),
            "error": ("ERROR", "bad"),
        }
        tag, style = styles[event.level]
        hint = f"\n{visible(event.hint)}" if event.hint else ""
        yield Line(tag, visible(event.message) + hint, style)

    def _turn_started(self, event: ev.TurnStarted) -> Line:
        total = self._tally.started.prompts if self._tally.started else event.prompt + 1
        name = f"{event.prompt + 1}/{total}"
        if event.prompt_id:
            name += f" ({one_line(event.prompt_id, 40)})"
        if event.attempt > 1:
            name += f", attempt {event.attempt}"
        text = visible(event.text).strip() if self._verbosity >= VERBOSE else one_line(event.text)
        return Line("prompt", f"{name}: {text}", "title")

    def _called(self, event: ev.ToolCall) -> str:
        limit = 120 if self._verbosity < VERBOSE else 2000
        name = one_line(event.tool, 40)
        return f"{'subagent ' if event.subagent else ''}{name}: {words.gist(event, limit)}"

    def _returned(self, event: ev.ToolResult) -> Iterator[Line]:
        call = self._calls.pop(event.call, None)
        ending = f"{'ok' if event.ok else 'failed'}, {words.seconds(event.seconds)}"
        if not self._announce and call is not None:
            ending = f"{self._called(call)} ({ending})"
        shown = ""
        if not event.ok or self._verbosity >= VERBOSE:
            shown = tail(event.output, _OUTPUT_LINES[self._verbosity])
        yield Line(
            f"tool {event.call}", f"{ending}\n{shown}" if shown else ending,
            "plain" if event.ok else "warn",
        )  # fmt: skip

    def _setup(self, event: ev.SetupFinished) -> Iterator[Line]:
        good = event.exit_code == 0
        ending = "ok" if good else f"exit code {event.exit_code}"
        text = f"{one_line(event.command)} ({ending}, {words.seconds(event.seconds)})"
        shown = ""
        if not good or self._verbosity >= VERBOSE:
            shown = tail(event.output, max(20, _OUTPUT_LINES[self._verbosity]))
        yield Line("setup", f"{text}\n{shown}" if shown else text, "plain" if good else "bad")

    def _check(self, event: ev.CheckFinished) -> Iterator[Line]:
        place = words.check_place(event)
        where = f" ({place})" if place and not event.ok else ""
        ending = "ok" if event.ok else "failed"
        text = f"{one_line(event.name)}: {ending}{where}, {words.seconds(event.seconds)}"
        shown = ""
        if not event.ok or self._verbosity >= VERBOSE:
            shown = tail(event.detail, max(20, _OUTPUT_LINES[self._verbosity]))
        yield Line("check", f"{text}\n{shown}" if shown else text, "good" if event.ok else "bad")

    def _artifact(self, event: ev.ArtifactCollected) -> Iterator[Line]:
        style: Style = "plain" if event.ok else "bad" if event.required else "dim"
        yield Line("artifact", artifact_text(event), style)


def artifact_text(event: ev.ArtifactCollected) -> str:
    """`change.patch, 1.2 KiB`, or why it did not come home."""
    name = one_line(event.name)
    if event.ok:
        return f"{name}, {words.size(event.size)}" if event.size is not None else name
    kind = "missing" if event.required else "absent (optional)"
    return f"{name}: {kind}: {one_line(event.detail, 300)}".removesuffix(": ")


def sandbox_end(event: ev.SandboxEnded) -> str:
    """What became of the sandbox, and the command that brings one back to it or removes it."""
    words_for_end = {
        "deleted": "deleted",
        "kept": "kept, and still running",
        "paused": "kept, paused",
        "left": "left as it was",
        "failed": "COULD NOT BE CLEANED UP",
    }
    reason = f" ({one_line(event.reason, 300)})" if event.reason else ""
    text = f"{one_line(event.sandbox_id)}: {words_for_end[event.end]}{reason}"
    if not event.command:
        return text
    use = "remove it" if event.end == "failed" else "come back"
    return f"{text}\n{use}: {one_line(event.command, 500)}"


def sandbox_lost(event: ev.SandboxReady) -> str:
    """What is known of a sandbox whose run was killed."""
    text = f"{one_line(event.sandbox_id)}: nobody saw its end, it may still be there"
    return f"{text}\nremove it: {one_line(event.remove, 500)}" if event.remove else text


def tail(text: str, limit: int) -> str:
    """The last `limit` lines, with the number of those left out."""
    lines = text.strip("\r\n").splitlines()
    shown = [visible(line)[:_WIDEST] for line in lines[max(0, len(lines) - limit) :]]
    if len(shown) < len(lines):
        shown.insert(0, f"… {words.plural(len(lines) - len(shown), 'line')} left out")
    return "\n".join(shown)
