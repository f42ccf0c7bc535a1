"""Files on their way out of a sandbox: taken apart in bounded memory, and never trusted.

Names that a sandbox sends are compared with names that were asked for; they never become paths.
"""

from __future__ import annotations

import base64
import binascii
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from kaos_runner.errors import SandboxError
from kaos_runner.workspace.names import decoded

if TYPE_CHECKING:
    from collections.abc import Callable

_META_LIMIT = 2**20
"""Bytes of a long name or of extended headers."""
_TOO_LONG = "the sandbox sends a name that is too long"


@dataclass(frozen=True, slots=True)
class Member:
    """One thing that a sandbox sends; `target` is the name of an earlier member that it equals."""

    name: str
    kind: Literal["file", "hard link", "other"]
    mode: int = 0o644
    target: str = ""


class Receiver(Protocol):
    """Takes members one after the other; what it raises ends the transfer."""

    def begin(self, member: Member) -> None:
        """A member begins."""
        ...

    def feed(self, chunk: bytes) -> None:
        """More of its content."""
        ...

    def end(self) -> None:
        """The member is complete."""
        ...


class Reader(Protocol):
    """Takes a stream apart."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            SandboxError: they are not what was agreed.
        """
        ...

    def finish(self) -> None:
        """The stream is over.

        Raises:
            SandboxError: it ended in the middle.
        """
        ...


class TarReader:
    """A tar archive, or several in a row, as GNU tar, busybox and bsdtar write them."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = bytearray()
        self._left = self._padding = 0
        self._meta: bytes | None = None
        """The type of header whose text is being collected; None for a member's content."""
        self._text = bytearray()
        self._long: dict[str, str] = {}
        self._open = False
        self._complete = True

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._buffer += chunk
        while self._step():
            pass

    def finish(self) -> None:
        """The stream is over; an archive ends with blocks of zeros."""
        if self._open or not self._complete or any(self._buffer):
            msg = "the transfer ended in the middle"
            raise SandboxError(msg)

    def _step(self) -> bool:
        """Take one piece from the buffer; False when it needs more."""
        if self._left:
            return self._content()
        if self._padding:
            skip = min(self._padding, len(self._buffer))
            del self._buffer[:skip]
            self._padding -= skip
            return skip > 0
        if self._open:
            self._close()
        if len(self._buffer) < tarfile.BLOCKSIZE:
            return False
        block = bytes(self._buffer[: tarfile.BLOCKSIZE])
        del self._buffer[: tarfile.BLOCKSIZE]
        self._header(block)
        return True

    def _content(self) -> bool:
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        if self._meta is not None:
            self._text += piece
        elif piece:
            self._receiver.feed(piece)
        return bool(piece)

    def _header(self, block: bytes) -> None:
        if not any(block):
            self._complete = True
            return
        self._complete = False
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            msg = "the sandbox sends no tar archive"
            raise SandboxError(msg) from error
        if info.type in (b"L", b"K", b"x", b"g"):
            if not 0 <= info.size <= _META_LIMIT:
                raise SandboxError(_TOO_LONG)
            self._meta = info.type
            self._begin_content(info.size)
            return
        self._begin_member(info)

    def _begin_member(self, info: tarfile.TarInfo) -> None:
        size = int(self._long.get("size", info.size))
        plain = info.type in (b"0", b"\0", b"7")
        link = info.type == b"1"
        if size < 0 or (not plain and not link and info.type not in b"23456"):
            msg = f"the sandbox sends a member of type {info.type!r}"
            raise SandboxError(msg)
        member = Member(
            name=_normal(self._long.get("path", info.name)),
            kind="file" if plain else "hard link" if link else "other",
            mode=info.mode & 0o777,
            target=_normal(self._long.get("linkpath", info.linkname)) if link else "",
        )
        self._long = {}
        self._receiver.begin(member)
        # bsdtar may send a link's content along; the others say 0 there.
        self._begin_content(size if plain else 0)

    def _begin_content(self, size: int) -> None:
        self._open = True
        self._left, self._padding = size, -size % tarfile.BLOCKSIZE

    def _close(self) -> None:
        self._open = False
        if self._meta is None:
            self._receiver.end()
            return
        meta, text = self._meta, bytes(self._text)
        self._meta, self._text = None, bytearray()
        if meta == b"L":
            self._long["path"] = decoded(text.rstrip(b"\0"))
        elif meta == b"K":
            self._long["linkpath"] = decoded(text.rstrip(b"\0"))
        elif meta == b"x":
            self._long |= _pax(text)


class PlainReader:
    """Names and contents in base64, each ended by a zero byte: what a sandbox without tar sends."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._name = bytearray()
        self._rest = b""
        self._inside = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        while chunk:
            piece, end, chunk = chunk.partition(b"\0")
            take: Callable[[bytes], None] = self._content if self._inside else self._name.extend
            take(piece)
            if len(self._name) > _META_LIMIT:
                raise SandboxError(_TOO_LONG)
            if end:
                self._turn()

    def finish(self) -> None:
        """The stream is over."""
        if self._inside or self._name:
            msg = "the transfer ended in the middle"
            raise SandboxError(msg)

    def _turn(self) -> None:
        if self._inside:
            if self._rest:
                self._decode(self._rest + b"=" * (-len(self._rest) % 4))
            self._rest = b""
            self._receiver.end()
        else:
            mode = 0o755 if self._name[:1] == b"x" else 0o644
            self._receiver.begin(Member(_normal(decoded(bytes(self._name[1:]))), "file", mode))
            self._name.clear()
        self._inside = not self._inside

    def _content(self, piece: bytes) -> None:
        text = self._rest + piece.translate(None, b"\r\n")
        whole = len(text) // 4 * 4
        self._rest = text[whole:]
        self._decode(text[:whole])

    def _decode(self, text: bytes) -> None:
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            msg = "the sandbox sends no base64"
            raise SandboxError(msg) from error
        if content:
            self._receiver.feed(content)


def _normal(name: str) -> str:
    """The name as it was asked for: without `./` before and `/` after it."""
    return name.removeprefix("./").rstrip("/")


def _pax(text: bytes) -> dict[str, str]:
    """The fields of extended headers that matter; what is not understood is left out."""
    found = {}
    while text:
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(text):
            break
        field, text = text[: int(length)], text[int(length) :]
        key, _, value = field[len(length) + 1 : -1].partition(b"=")
        if key in (b"path", b"linkpath") or (key == b"size" and value.isdigit()):
            found[key.decode()] = decoded(value)
    return found
