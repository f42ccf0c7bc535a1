"""The directory of a local sandbox: made, found again by its labels, and removed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.backends.bubblewrap import View, identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from kaos import Kaos

    from kaos_runner.backends.base import Labels
    from kaos_runner.kaos.local import LocalTransport
    from kaos_runner.kaos.posix import PosixKaos

PREFIX = "kaos-runner-"
LABELS = "sandbox.json"


@dataclass(slots=True, kw_only=True)
class Place:
    """A directory that we made, with `work/`, `home/`, `tmp/` and a file of labels in it."""

    root: Path
    workdir: Path
    """Its own `work/`, or a directory of the user's, which is never deleted."""
    labels: dict[str, str]
    created_at: datetime
    _lock: int = field(default=-1)

    @property
    def home(self) -> Path:
        """The sandbox's HOME, empty at first."""
        return self.root / "home"

    def view(self, *, network: bool) -> View:
        """What bubblewrap shows of it."""
        return View(
            workdir=self.workdir, home=self.home, tmp=self.root / "tmp",
            etc=self.root / "etc", network=network,
        )  # fmt: skip

    def lock(self) -> None:
        """Hold the lock that tells others that it is in use; the kernel frees it with us."""
        if self._lock < 0:
            self._lock = os.open(self.root / LABELS, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with contextlib.suppress(OSError):  # a second connection shares the use
                fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def unlock(self) -> None:
        """Give the lock back; idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def in_use(self) -> bool:
        """Whether a live process holds it."""
        descriptor = os.open(self.root / LABELS, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False


class LocalSandbox:
    """A live sandbox in its place."""

    def __init__(
        self, place: Place, kaos: PosixKaos, transport: LocalTransport, isolation: str
    ) -> None:
        self.place, self.transport = place, transport
        self.kaos: Kaos = kaos
        self._posix = kaos
        self.id = str(place.root)
        self.isolation: str | None = isolation

    async def keepalive(self, ttl: timedelta) -> None:
        """Nothing expires here."""

    async def detach(self) -> None:
        """End every process; the directory stays. Idempotent."""
        await self._posix.aclose()
        await self.transport.aclose()
        self.place.unlock()

    async def suspend(self) -> bool:
        """Keep the directory; nothing runs in it any more."""
        await self.detach()
        return False

    async def destroy(self) -> None:
        """Delete what we made; already gone is success."""
        await self.detach()
        await remove(self.place)


def make(labels: Labels, workdir: str | None) -> Place:
    """Make a directory with its parts.

    Raises:
        OSError: it cannot be made.
    """
    root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    place = Place(
        root=root,
        workdir=Path(workdir).resolve() if workdir else root / "work",
        labels=labels.as_dict(),
        created_at=datetime.now(UTC),
    )
    try:
        for name in ("work", "home", "tmp", "etc"):
            (root / name).mkdir(mode=0o700)
        place.workdir.mkdir(parents=True, exist_ok=True)
        for name, content in identity(place.home).items():
            (root / "etc" / name).write_text(content)
        written = {"labels": place.labels, "workdir": str(place.workdir)}
        written |= {"created_at": place.created_at.isoformat()}
        (root / LABELS).write_text(json.dumps(written))
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return place


def find(root: Path) -> Place | None:
    """The place with this root; None where it is not a directory that we made."""
    try:
        ours = root.is_absolute() and root.name.startswith(PREFIX) and not root.is_symlink()
        if not ours or root.stat().st_uid != os.getuid():
            return None
        written = json.loads((root / LABELS).read_text())
        return Place(
            root=root,
            workdir=Path(written["workdir"]),
            labels={str(k): str(v) for k, v in written["labels"].items()},
            created_at=datetime.fromisoformat(written["created_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def places(top: Path) -> Iterator[Place]:
    """Every place below a directory."""
    for root in sorted(top.resolve().glob(f"{PREFIX}*")):
        place = find(root)
        if place is not None:
            yield place


async def remove(place: Place) -> None:
    """Delete the directory; nothing runs in it any more, and no symlink is followed.

    Raises:
        SandboxError: something of it cannot be deleted.
    """
    from kaos_runner.errors import SandboxError

    try:
        await asyncio.to_thread(_delete, place.root)
    except OSError as error:
        msg = f"the local sandbox cannot be deleted: {error}"
        raise SandboxError(msg) from error


def _delete(root: Path) -> None:
    try:
        shutil.rmtree(root)
    except FileNotFoundError:
        return
    except PermissionError:
        _open_up(root)
        shutil.rmtree(root)


def _open_up(directory: Path) -> None:
    """Make every directory writable, so that what is in it can be deleted."""
    directory.chmod(0o700)
    with os.scandir(directory) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in below:
        _open_up(Path(path))
