"""Files inside an emulated E2B sandbox, with the semantics of the real envd."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.emulators import e2b_guest_wire as codes
from tests.emulators.e2b_guest_wire import CHUNK, Header, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FILE, DIRECTORY = 1, 2


def resolve(path: str) -> str:
    """An absolute path, symlinks unresolved; relative ones begin at the home, as `~` does."""
    home = os.environ["HOME"]
    if path == "~" or path.startswith("~/"):
        return home + path[1:]
    return os.path.normpath(Path(home) / path)


def entry(path: str) -> Header:
    """What envd tells of a path: of a symlink its target's type and mode, but its own size."""
    own = _lstat(path)
    link = stat.S_ISLNK(own.st_mode)
    try:
        seen = Path(path).stat()
    except OSError:
        seen = own
    owner = "user" if own.st_uid == os.getuid() else "root"
    return {
        "name": Path(path).name,
        "path": path,
        "type": _kind(seen.st_mode),
        "size": own.st_size,
        "mode": stat.S_IMODE(seen.st_mode),
        "permissions": stat.filemode(seen.st_mode),
        "owner": owner,
        "group": owner,
        "mtime_ns": own.st_mtime_ns,
        "symlink_target": os.path.realpath(path) if link else None,
        "is_symlink": link,
    }


def _lstat(path: str) -> os.stat_result:
    try:
        return Path(path).lstat()
    except FileNotFoundError:
        raise Refusal(codes.NOT_FOUND, f"path '{path}' does not exist") from None
    except OSError as error:
        raise Refusal(codes.INTERNAL, f"error getting file info: {error.strerror}") from error


def _kind(mode: int) -> int:
    if stat.S_ISREG(mode):
        return FILE
    return DIRECTORY if stat.S_ISDIR(mode) else 0


def list_dir(path: str, depth: int) -> list[Header]:
    """Entries down to `depth`; broken links, fifos and sockets are left out."""
    if entry(path)["type"] != DIRECTORY:
        raise Refusal(codes.INVALID_ARGUMENT, f"path is not a directory: {path}")
    found: list[Header] = []
    for child in sorted(Path(path).iterdir()):
        one = entry(str(child))
        if one["type"]:
            found.append(one)
        if one["type"] == DIRECTORY and not one["is_symlink"] and depth > 1:
            found.extend(list_dir(one["path"], depth - 1))
    return found


def make_dir(path: str) -> Header:
    """Make a directory and its parents."""
    if Path(path).is_dir():
        raise Refusal(codes.ALREADY_EXISTS, f"directory already exists: {path}")
    if os.path.lexists(path):
        raise Refusal(codes.INVALID_ARGUMENT, f"path exists but is not a directory: {path}")
    _tried(Path(path).mkdir, parents=True)
    return entry(path)


def move(source: str, destination: str) -> Header:
    """Rename, making the destination's parents."""
    entry(source)
    _tried(Path(destination).parent.mkdir, parents=True, exist_ok=True)
    _tried(Path(source).rename, destination)
    return entry(destination)


def remove(path: str) -> None:
    """Remove whatever is there; a missing path is a success."""
    if Path(path).is_dir() and not Path(path).is_symlink():
        _tried(shutil.rmtree, path)
    else:
        _tried(Path(path).unlink, missing_ok=True)


def read(path: str) -> tuple[int, Iterator[bytes]]:
    """The size and the chunks of a file."""
    if entry(path)["type"] == DIRECTORY:
        raise Refusal(codes.INVALID_ARGUMENT, f"path '{path}' is a directory")
    try:
        source = Path(path).open("rb")  # noqa: SIM115 - the iterator closes it
    except OSError as error:
        raise Refusal(codes.INTERNAL, f"error opening file '{path}': {error.strerror}") from error
    size = os.fstat(source.fileno()).st_size

    def chunks() -> Iterator[bytes]:
        with source:
            yield from iter(lambda: source.read(8 * CHUNK), b"")

    return size, chunks()


def write(path: str, chunks: Iterable[bytes]) -> Header:
    """Write a file in place, making its parents, following links, keeping the mode."""
    if Path(path).is_dir():
        raise Refusal(codes.INVALID_ARGUMENT, f"path is a directory: {path}")
    _tried(Path(path).parent.mkdir, parents=True, exist_ok=True)
    try:
        with Path(path).open("wb") as target:
            target.writelines(chunks)
    except OSError as error:
        raise Refusal(codes.INTERNAL, f"error opening file: {error.strerror}") from error
    return entry(path)


def _tried(action: Callable[..., Any], *args: Any, **named: Any) -> None:
    try:
        action(*args, **named)
    except OSError as error:
        raise Refusal(codes.INTERNAL, f"{error.strerror}: {error.filename}") from error
