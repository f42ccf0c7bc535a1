"""A tree of the host, listed for its way into a sandbox."""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kaos_runner.workspace.names import joined, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to make in the sandbox; `name` is relative to the workdir."""

    name: str
    kind: Literal["file", "directory", "symlink"]
    source: Path
    mode: int
    size: int = 0
    mtime: float = 0.0
    target: str = ""


class Refused(Exception):
    """Why something of the host cannot go into a sandbox."""


def listed(source: Path, to: str, notify: Callable[[str], None]) -> list[Entry]:
    """Everything below the directory `source`, as it goes into `to`; `.git` is left out, and told.

    Raises:
        Refused: a symlink leaves the tree, or something is neither file, directory nor symlink.
        OSError: something cannot be read.
    """
    root = source.resolve()
    entries = [] if to == "." else [_directory(root, to)]
    entries += _walk(root, root, "", to, notify)
    return entries


def single(source: Path, name: str) -> Entry:
    """One file of the host under a name; a symlink to it counts as the file.

    Raises:
        Refused: it is not a regular file.
    """
    status = source.stat()
    if not stat.S_ISREG(status.st_mode):
        msg = f"{shown(str(source))} is neither a file nor a directory"
        raise Refused(msg)
    return _file(source.resolve(), name, status)


def _walk(
    root: Path, directory: Path, rel: str, to: str, notify: Callable[[str], None]
) -> Iterator[Entry]:
    with os.scandir(directory) as found:
        children = sorted(found, key=lambda entry: entry.name)
    for child in children:
        inner = posixpath.join(rel, child.name)
        path = directory / child.name
        if child.name == ".git":
            notify(inner)
        elif child.is_symlink():
            yield _symlink(root, path, inner, to)
        elif child.is_dir():
            yield _directory(path, joined(to, inner))
            yield from _walk(root, path, inner, to, notify)
        elif child.is_file():
            yield _file(path, joined(to, inner), child.stat())
        else:
            msg = f"{shown(inner)} is neither a file, a directory nor a symlink"
            raise Refused(msg)


def _directory(path: Path, name: str) -> Entry:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode) & 0o777 | 0o700
    return Entry(name, "directory", path, mode, mtime=status.st_mtime)


def _file(path: Path, name: str, status: os.stat_result) -> Entry:
    mode = stat.S_IMODE(status.st_mode) & 0o777
    return Entry(name, "file", path, mode, status.st_size, status.st_mtime)


def _symlink(root: Path, path: Path, inner: str, to: str) -> Entry:
    target = str(path.readlink())
    lexical = posixpath.normpath(posixpath.join(posixpath.dirname(inner), target))
    leaves = target.startswith("/") or lexical == ".." or lexical.startswith("../")
    if leaves or not path.resolve().is_relative_to(root):
        msg = f"the symlink {shown(inner)} leaves the tree: it points to {shown(target)}"
        raise Refused(msg)
    return Entry(joined(to, inner), "symlink", path, 0o777, target=target)
