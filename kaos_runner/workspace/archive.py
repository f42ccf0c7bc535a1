"""The two forms in which entries travel into a sandbox: a tar archive, or a shell script.

The script is for a sandbox without tar. Both are made piece by piece: no file is ever in memory
as a whole.
"""

from __future__ import annotations

import base64
import os
import shlex
import stat
import tarfile
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError
from kaos_runner.workspace.names import encoded, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from kaos_runner.workspace.tree import Entry

PIECE = 256 * 1024
_TYPES = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}


def tar_pieces(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A tar archive in GNU format, which busybox reads too, owned by nobody in particular.

    Raises:
        SandboxError: a file cannot be read, or changes its size meanwhile.
    """
    for entry in entries:
        if entry.kind != "file":
            yield _header(entry, 0)
            continue
        with _opened(entry) as file:
            size = os.fstat(file.fileno()).st_size
            yield _header(entry, size)
            yield from _content(entry, file, size)
            yield b"\0" * (-size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def script_pieces(entries: Iterable[Entry]) -> Iterator[bytes]:
    """A script for `sh -s` that makes the entries in its directory, with `base64` and coreutils."""
    yield b"set -e\n"
    for entry in entries:
        name = _quoted(f"./{entry.name}")
        if entry.kind == "directory":
            yield b"mkdir -p %b; chmod %o %b\n" % (name, entry.mode, name)
            continue
        parent = _quoted(f"./{entry.name}".rpartition("/")[0])
        yield b"mkdir -p %b; rm -f %b\n" % (parent, name)
        if entry.kind == "symlink":
            yield b"ln -s %b %b\n" % (_quoted(entry.target), name)
            continue
        yield b": >%b\n" % name
        with _opened(entry) as file:
            for piece in _content(entry, file, os.fstat(file.fileno()).st_size):
                yield b"base64 -d >>%b <<'.'\n%b.\n" % (name, base64.encodebytes(piece))
        yield b"chmod %o %b\n" % (entry.mode, name)


def _opened(entry: Entry) -> BinaryIO:
    try:
        descriptor = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        file = os.fdopen(descriptor, "rb")
    except OSError as error:
        raise _unreadable(entry, error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _unreadable(entry, "it is not a file any more")
    return file


def _content(entry: Entry, file: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = file.read(min(PIECE, left))
        if not piece:
            raise _unreadable(entry, "it became shorter meanwhile")
        left -= len(piece)
        yield piece


def _unreadable(entry: Entry, reason: str) -> SandboxError:
    return SandboxError(f"{shown(str(entry.source))} cannot be uploaded: {reason}")


def _header(entry: Entry, size: int) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.type = _TYPES[entry.kind]
    info.mode, info.size, info.linkname = entry.mode, size, entry.target
    info.mtime = max(int(entry.mtime), 0)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _quoted(name: str) -> bytes:
    return encoded(shlex.quote(name))
