"""`--output stream-json`: every record as one line of JSON, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from kaos_runner.sinks.safe import ascii_json

if TYPE_CHECKING:
    from kaos_runner.events import Record


class StreamSink:
    """Writes records to a stream; the lines are valid against `schemas/event.schema.json`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._broken = False

    def handle(self, record: Record) -> None:
        """Write one record; once the reader is gone, nothing more."""
        if self._broken:
            return
        try:
            print(ascii_json(record.line()), file=self._out, flush=True)
        except (OSError, ValueError):
            self._broken = True

    def close(self) -> None:
        """Nothing is held back."""
