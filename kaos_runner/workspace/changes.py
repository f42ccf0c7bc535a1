"""What a patch amounts to, counted while it streams by."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_PREFIX = 4096
"""Bytes of a line that are looked at."""


@dataclass(frozen=True, slots=True)
class PatchStat:
    """How much a patch changes; a binary file counts as a file without lines."""

    files: int = 0
    insertions: int = 0
    deletions: int = 0

    def __str__(self) -> str:
        if not self.files:
            return "nothing changed"
        parts = [_counted(self.files, "file", " changed")]
        if self.insertions:
            parts.append(_counted(self.insertions, "insertion", "(+)"))
        if self.deletions:
            parts.append(_counted(self.deletions, "deletion", "(-)"))
        return ", ".join(parts)


class PatchCounter:
    """Counts a patch that comes in chunks, in bounded memory."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._old = self._new = 0
        self._files = self._insertions = self._deletions = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        first, *rest = chunk.split(b"\n")
        self._extend(first)
        for piece in rest:
            self._count(bytes(self._line))
            self._line.clear()
            self._extend(piece)

    def stat(self) -> PatchStat:
        """What was counted so far."""
        return PatchStat(self._files, self._insertions, self._deletions)

    def _extend(self, piece: bytes) -> None:
        self._line += piece[: max(_PREFIX - len(self._line), 0)]

    def _count(self, line: bytes) -> None:
        if self._old > 0 or self._new > 0:
            kind = line[:1]
            self._old -= kind in b" -" or not kind
            self._new -= kind in b" +" or not kind
            self._deletions += kind == b"-"
            self._insertions += kind == b"+"
        elif line.startswith(b"diff --git "):
            self._files += 1
        elif match := _HUNK.match(line):
            self._old, self._new = (int(count or 1) for count in match.groups())


def _counted(number: int, noun: str, suffix: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}{suffix}"
