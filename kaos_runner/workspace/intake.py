"""Where files from a sandbox come to rest: below one folder, counted, summed up and looked through.

A file is written under a temporary name and moved to its place when it is whole; one that holds a
secret, or exceeds the cap, is removed instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError
from kaos_runner.workspace.names import placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    type Scan = Callable[[bytes], bool]
    """Whether a secret has come to an end in this chunk."""
    type NewScan = Callable[[], Scan]

SECRET = "it holds a secret of the run, and was withheld"


class HostWriteError(SandboxError):
    """The host cannot take a file, as when its disk is full."""


class CapReachedError(SandboxError):
    """The artifacts together are more than the run may bring home."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One file at home; `name` is relative to the folder of artifacts."""

    name: str
    size: int
    sha256: str
    path: Path


@dataclass(frozen=True, slots=True)
class Declined:
    """Why one file did not come home."""

    reason: str
    secret: bool = False


class Intake:
    """The folder, and what may still come into it."""

    def __init__(self, into: Path, new_scan: NewScan, *, max_bytes: int, max_files: int) -> None:
        self.into = into
        self.new_scan = new_scan
        self.max_bytes = max_bytes
        self.max_files = max_files
        self._bytes = 0
        self._names: set[str] = set()
        self._folders: set[Path] = set()
        self._folds: bool | None = None
        """Whether the host's file system takes `A` and `a` for one name."""

    def charge(self, size: int) -> None:
        """Count bytes.

        Raises:
            CapReachedError: they are too many.
        """
        self._bytes += size
        if self._bytes > self.max_bytes:
            msg = f"the artifacts together exceed their cap of {sized(self.max_bytes)}"
            raise CapReachedError(msg)

    def learn(self, path: Path) -> None:
        """See by a file that is there how the host's file system takes names."""
        if self._folds is None:
            self._folds = path.with_name(path.name.upper()).exists()

    def make(self, folder: Path) -> None:
        """Make a folder below the folder, once."""
        if folder not in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)

    def reserve(self, name: str) -> Path | None:
        """The place of a name below the folder; None where it is taken, or would leave the folder.

        Raises:
            CapReachedError: there are too many files.
        """
        safe = placed(name)
        parts = safe.split("/")
        key = safe.casefold() if self._folds else safe
        if key in self._names or any(part in ("", ".", "..") for part in parts):
            return None
        if len(self._names) >= self.max_files:
            msg = f"the artifacts are more than {self.max_files} files"
            raise CapReachedError(msg)
        self._names.add(key)
        return self.into.joinpath(*parts)

    def incoming(self, *, prefixed: bool = False) -> Incoming:
        """A file that begins to arrive; `prefixed` for a patch: its lines have one before them."""
        return Incoming(self, prefixed=prefixed)


class Incoming:
    """One file while it arrives. Used up by `store` or `discard`."""

    def __init__(self, intake: Intake, *, prefixed: bool) -> None:
        self._intake = intake
        self._scans = [intake.new_scan()]
        if prefixed:
            self._scans.append(_Unprefixed(intake.new_scan()))
        self._sum = hashlib.sha256()
        self._secret = self._moved = False
        self.size = 0
        with _host_errors():
            intake.into.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=intake.into)
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        intake.learn(self._path)

    def feed(self, chunk: bytes) -> None:
        """Take more of the content.

        Raises:
            CapReachedError: the artifacts together are too large.
            HostWriteError: the host cannot write it.
        """
        self._intake.charge(len(chunk))
        self.size += len(chunk)
        found = [scan(chunk) for scan in self._scans]  # each must see every chunk
        self._secret |= any(found)
        self._sum.update(chunk)
        with _host_errors():
            self._file.write(chunk)

    def store(self, name: str, *, executable: bool = False) -> Stored | Declined:
        """Move the whole file to its place, or say why not.

        Raises:
            CapReachedError: there are too many files.
        """
        try:
            self._file.close()
            if self._secret or self._intake.new_scan()(name.encode("utf-8", "surrogateescape")):
                return Declined(SECRET, secret=True)
            path = self._intake.reserve(name)
            if path is None:
                return Declined("its name at home is taken, or leaves the folder of artifacts")
            self._intake.make(path.parent)
            self._path.chmod(0o755 if executable else 0o644)
            self._path.replace(path)
            self._moved = True
        except OSError as error:
            return Declined(_unwritable(error))
        finally:
            self.discard()
        place = str(path.relative_to(self._intake.into))
        return Stored(place, self.size, self._sum.hexdigest(), path)

    def discard(self) -> None:
        """Remove what has arrived; nothing where it has been stored."""
        with contextlib.suppress(OSError):
            self._file.close()
        if not self._moved:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


class _Unprefixed:
    """Looks at a patch without the first character of its lines: a secret of several shows."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._start = True

    def __call__(self, chunk: bytes) -> bool:
        lines = chunk.split(b"\n")
        whole = [line[1:] for line in lines[1:]]
        first = lines[0][1:] if self._start and lines[0] else lines[0]
        self._start = chunk.endswith(b"\n") or (self._start and not chunk)
        return self._scan(b"\n".join([first, *whole]))


@contextlib.contextmanager
def _host_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostWriteError(_unwritable(error)) from error


def _unwritable(error: OSError) -> str:
    return f"it cannot be written here: {error.strerror or error}"


def sized(size: int) -> str:
    """A size as people read it."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} bytes"
