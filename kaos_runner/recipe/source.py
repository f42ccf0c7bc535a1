"""One file of text with its place on disk: read with bounds, decoded, able to quote its lines."""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1 << 20
"""A recipe, and each file that it names for its text, is at most 1 MiB."""

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_UTF16_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


class UnreadableError(Exception):
    """The file cannot be read as text: `message` and `hint` say why, `line` and `column` where."""

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.line = line
        self.column = column


@dataclass(frozen=True, eq=False)
class Source:
    """A text that was read once; `label` is how the user knows the file."""

    label: str
    path: Path
    text: str
    content: bytes = field(repr=False)
    quotable: bool = True
    """Whether a problem may show its lines: only a recipe's."""

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _BREAK.finditer(self.text))]

    def line_column(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of a character offset."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str | None:
        """The text of a line, from 1, if it may be shown; long ones are cut."""
        if not self.quotable or not 1 <= number <= len(self._starts):
            return None
        begin = self._starts[number - 1]
        end = self._starts[number] if number < len(self._starts) else len(self.text)
        return self.text[begin:end].rstrip("\r\n\x85\u2028\u2029")


def read_source(path: Path, label: str, *, quotable: bool = True) -> Source:
    """Read a regular file of at most 1 MiB of UTF-8.

    Raises:
        UnreadableError: it is missing, no regular file, too large, or no text.
    """
    content = _read_bytes(path)
    return Source(label, path, _decode(content), content, quotable)


def _read_bytes(path: Path) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to must not wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        msg = "does not exist"
        raise UnreadableError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise UnreadableError(msg) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            msg = "is a directory, not a recipe"
            raise UnreadableError(msg, hint="name a file in it, such as `DIR/*.yaml`")
        if not stat.S_ISREG(mode):
            msg = "is not a regular file"
            raise UnreadableError(msg)
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        msg = "is larger than 1 MiB"
        raise UnreadableError(msg, hint="move long texts to files of their own: {file: …}")
    return content


def _decode(content: bytes) -> str:
    if content.startswith(_UTF16_32):
        msg = "is UTF-16 or UTF-32 text"
        raise UnreadableError(msg, hint="save it as UTF-8")
    if b"\x00" in content:
        msg = "is binary, not text"
        raise UnreadableError(msg)
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        msg = f"is not UTF-8: byte 0x{content[error.start]:02x}"
        raise UnreadableError(msg, "save it as UTF-8", line, column) from None
    bad = _CONTROL.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - (text.rfind("\n", 0, bad.start()) + 1) + 1
        msg = f"holds the control character U+{ord(bad.group()):04X}"
        raise UnreadableError(msg, "remove it", line, column)
    return text
