"""A run for a person: a live view on a terminal, plain lines everywhere else.

All that is told goes to stderr, progress and summary alike, so that stdout holds one thing: the
agent's final message, and `kaos-runner recipe.yaml > answer.md` gives the answer. Where both are
the same place (a terminal, `2>&1`), the message already stands in what was told, and is not printed
twice; under `-q` it is not told, and so always printed. Plain lines begin with a tag of fixed width
(`tool 3`, `check`, `result`), hold no control characters, and never wrap.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from kaos_runner.sinks.narrate import NORMAL, QUIET, Line, Narrator
from kaos_runner.sinks.safe import visible
from kaos_runner.sinks.summary import outcome, summary
from kaos_runner.sinks.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from kaos_runner import events as ev

TAG_WIDTH = 9


class ConsoleSink:
    """Tells a run in plain lines; `kaos_runner.sinks.live` does it on a terminal."""

    announces_calls = True

    def __init__(self, told: TextIO, result: TextIO, verbosity: int = NORMAL) -> None:
        self.tally = Tally()
        self._told = told
        self._result = result
        self._verbosity = verbosity
        self._narrator = Narrator(self.tally, verbosity, announce=self.announces_calls)
        self._broken = False
        self._closed = False

    def handle(self, record: ev.Record) -> None:
        """Tell one record."""
        self.tally.add(record)
        for line in self._narrator.lines(record):
            self._guarded_tell(line)

    def close(self) -> None:
        """Tell the summary and give the final message; nothing for a stream that never began."""
        if self._closed:
            return
        self._closed = True
        if self.tally.run_id:
            self._finish()

    def paused(self) -> AbstractContextManager[None]:
        """A time in which the terminal belongs to a question for the user."""
        from contextlib import nullcontext

        return nullcontext()

    def _finish(self) -> None:
        lines = outcome(self.tally) if self._verbosity <= QUIET else summary(self.tally)
        if self._verbosity > QUIET:
            self._guarded_tell(Line("", ""))
        for line in lines:
            self._guarded_tell(line)
        message = visible(self.tally.final_message).strip()
        if message and (self._verbosity <= QUIET or not same_place(self._told, self._result)):
            self._give(message)

    def _guarded_tell(self, line: Line) -> None:
        """Tell a line as long as somebody listens: a closed pipe must not end a run."""
        if self._broken:
            return
        try:
            self._tell(line)
        except (OSError, ValueError):
            self._broken = True

    def _tell(self, line: Line) -> None:
        print("\n".join(plain(line)), file=self._told, flush=True)

    def _give(self, message: str) -> None:
        try:
            print(message, file=self._result, flush=True)
        except (OSError, ValueError):
            self._broken = True


def console_sink(
    verbosity: int = NORMAL,
    environ: Mapping[str, str] | None = None,
    *,
    told: TextIO | None = None,
    result: TextIO | None = None,
) -> ConsoleSink:
    """The console that fits the place: live on a terminal, unless `CI` is set or it is dumb.

    `verbosity` is -1 for `-q`, and counts `-v`. `NO_COLOR` is honoured.
    """
    environ = os.environ if environ is None else environ
    told = told or sys.stderr
    result = result or sys.stdout
    live = told.isatty() and not environ.get("CI") and environ.get("TERM") != "dumb"
    if not live or verbosity <= QUIET:
        return ConsoleSink(told, result, verbosity)
    from kaos_runner.sinks.live import LiveConsoleSink

    return LiveConsoleSink(told, result, verbosity, colour=not environ.get("NO_COLOR"))


def plain(line: Line) -> Iterator[str]:
    """A line as plain text: the tag, then the text, further lines of it under its beginning."""
    first, *rest = line.text.split("\n")
    yield f"{line.tag:<{TAG_WIDTH}} {first}".rstrip()
    for text in rest:
        yield f"{'':<{TAG_WIDTH}} {text}".rstrip()


def same_place(one: TextIO, other: TextIO) -> bool:
    """Whether what is written to both is read in one place."""
    try:
        if one.isatty() and other.isatty():
            return True
        first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (OSError, ValueError):
        return one is other
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
