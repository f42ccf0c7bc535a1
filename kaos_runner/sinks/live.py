"""The console on a terminal: a transcript that scrolls, and below it what is going on right now."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kaos_runner.sinks import words
from kaos_runner.sinks.console import TAG_WIDTH, ConsoleSink
from kaos_runner.sinks.safe import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner import events as ev
    from kaos_runner.sinks.narrate import Line

STYLES = {
    "plain": "",
    "title": "bold",
    "dim": "dim",
    "good": "green",
    "bad": "bold red",
    "warn": "bold yellow",
}
PHASES = {
    "prepare": "preparing",
    "sandbox": "starting the sandbox",
    "workspace": "filling the workspace",
    "session": "starting the session",
    "prompts": "the agent works",
    "checks": "checking",
    "artifacts": "bringing home artifacts",
    "cleanup": "cleaning up",
}


class LiveConsoleSink(ConsoleSink):
    """Tells a run on a terminal."""

    announces_calls = False

    def __init__(
        self, told: TextIO, result: TextIO, verbosity: int = 0, *, colour: bool = True
    ) -> None:
        super().__init__(told, result, verbosity)
        self._began = time.monotonic()
        self._console = Console(
            file=told, force_terminal=True, no_color=not colour, highlight=False, markup=False,
            emoji=False,
        )  # fmt: skip
        self._spinner = Spinner("dots")
        self._live = self._new_live()

    def _new_live(self) -> Live:
        return Live(
            console=self._console, get_renderable=self._status, refresh_per_second=8,
            transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def handle(self, record: ev.Record) -> None:
        """Tell one record, and show what goes on now."""
        if not self._live.is_started and self.tally.finished is None:
            self._live.start()
        super().handle(record)
        if self.tally.finished is not None:
            self._live.stop()

    def close(self) -> None:
        """End the live view, then tell the summary."""
        self._live.stop()
        super().close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A time in which the terminal belongs to a question for the user."""
        was_live = self._live.is_started
        self._live.stop()
        try:
            yield
        finally:
            if was_live:
                # a new one: the old one would begin by wiping the lines that it once had
                self._live = self._new_live()
                self._live.start()

    def _tell(self, line: Line) -> None:
        style = STYLES[line.style]
        first, rest = (line.text + "\n").split("\n", 1)
        text = Text().append(first, style)
        if rest:
            text.append("\n" + rest[:-1], "" if line.style == "plain" else "dim")
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=TAG_WIDTH, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(line.tag, style or "cyan"), text)
        self._console.print(grid)

    def _status(self) -> Group:
        """Two lines: what goes on, and what it has cost.

        The view's own thread draws it, so it reads the tally and never changes it.
        """
        tally = self.tally
        width = max(20, self._console.width - 4)
        now = Text(self._now()[:width], no_wrap=True, overflow="ellipsis")
        elapsed = words.seconds(time.monotonic() - self._began)
        spent = (
            f"{'':<{TAG_WIDTH}} {elapsed} · {words.count(tally.tokens.total)} tokens · "
            f"{words.plural(tally.steps, 'step')} · {words.plural(tally.calls, 'tool call')}"
        )
        self._spinner.update(text=now)
        return Group(self._spinner, Text(spent[:width], "dim", no_wrap=True))

    def _now(self) -> str:
        tally = self.tally
        phase = tally.phase.phase if tally.phase else "prepare"
        if phase != "prompts" or tally.turn is None:
            return PHASES[phase]
        total = tally.started.prompts if tally.started else tally.turn.prompt + 1
        name = f"prompt {tally.turn.prompt + 1}/{total}"
        if tally.turn.prompt_id:
            name += f" ({one_line(tally.turn.prompt_id, 40)})"
        if tally.turn.attempt > 1:
            name += f", attempt {tally.turn.attempt}"
        calls = list(tally.running.values())
        if not calls:
            return f"{name}: thinking"
        more = f" (and {len(calls) - 1} more)" if len(calls) > 1 else ""
        return f"{name}: {one_line(calls[-1].tool, 40)}: {words.gist(calls[-1])}{more}"
