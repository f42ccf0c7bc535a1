"""Sandboxes of several poverties, each a real Kaos with a workdir of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from asyncio.subprocess import PIPE
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kaos.local import LocalKaos

from tests.debian import need

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kaos import KaosProcess, StatResult, StrOrKaosPath

COREUTILS = [
    "base64", "basename", "cat", "chmod", "cksum", "cp", "cut", "dirname", "env", "false",
    "find", "grep", "head", "ln", "ls", "mkdir", "mktemp", "mv", "printf", "readlink",
    "realpath", "rm", "sha256sum", "sleep", "sort", "tail", "touch", "tr", "true", "wc",
    "xargs", "yes",
]  # fmt: skip
GIT_ENV = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


class GroupProcess(LocalKaos.Process):
    """A process that is killed with all it started, as a sandbox's is."""

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class CutReader(asyncio.StreamReader):
    """A stream whose connection is lost after some bytes."""

    def __init__(self, stream: asyncio.StreamReader, left: int) -> None:
        super().__init__()
        self._stream, self._left = stream, left

    async def read(self, n: int = -1) -> bytes:
        if self._left <= 0:
            msg = "reset by peer"
            raise ConnectionResetError(msg)
        chunk = await self._stream.read(min(n, self._left))
        self._left -= len(chunk)
        return chunk


class UserlandKaos(LocalKaos):
    """pykaos' own, with a chosen PATH and shell; counts its operations."""

    def __init__(self, path: str, home: Path, shell: tuple[str, ...] = ("/bin/sh",)) -> None:
        self.operations = 0
        self.lost = False
        """Set: the sandbox is gone, and every operation finds out."""
        self.cut_after: int | None = None
        """How many bytes of one process's stdout come before the connection is lost."""
        self.before: dict[int, Callable[[], object]] = {}
        """What happens before the operation of a number, from 0."""
        self.env = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home)}
        self.started: list[GroupProcess] = []
        self.begun = asyncio.Event()
        self._shell = shell
        self._streams: list[asyncio.StreamReader] = []

    async def exec(self, *args: str, env: Mapping[str, str] | None = None) -> KaosProcess:
        del env
        self.operations += 1
        self.before.get(self.operations - 1, lambda: None)()
        self._there()
        argv = (*self._shell, *args[1:]) if args[0] == "/bin/sh" else args
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self.env, start_new_session=True
        )
        self.started.append(GroupProcess(process))
        self.begun.set()
        assert process.stdout is not None
        self._streams.append(process.stdout)
        if self.cut_after is not None:
            self.started[-1].stdout = CutReader(process.stdout, self.cut_after)
        return self.started[-1]

    async def end(self) -> None:
        """End what is left of every process, before its loop closes."""
        for process in self.started:
            await process.kill()
        for stream in self._streams:
            while await stream.read(2**20):
                pass

    async def stat(self, path: StrOrKaosPath, *, follow_symlinks: bool = True) -> StatResult:
        self._there()
        return await super().stat(path, follow_symlinks=follow_symlinks)

    def _there(self) -> None:
        if self.lost:
            msg = "no answer"
            raise ConnectionError(msg)


@dataclass(slots=True)
class Box:
    """A sandbox for a test."""

    name: str
    kaos: UserlandKaos
    top: Path
    workdir: Path = field(init=False)
    home: Path = field(init=False)
    """Where the sandbox keeps its own things, outside the workdir."""

    def __post_init__(self) -> None:
        self.workdir = self.top / "work dir"
        self.workdir.mkdir()
        self.home = Path(self.kaos.env["HOME"])

    def write(self, name: str, content: str | bytes = "") -> Path:
        """A file in the workdir."""
        path = self.workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def git(self, *args: str, at: str = ".") -> str:
        """Git in the workdir, as the agent would run it."""
        return git(self.workdir / at, *args)

    @property
    def has_git(self) -> bool:
        """Whether the sandbox itself has it."""
        return self.name == "full"


def git(folder: Path, *args: str) -> str:
    """The stdout of git in a folder, with an identity and without anybody's configuration."""
    env = {**os.environ, **GIT_ENV}
    done = subprocess.run(["git", *args], cwd=folder, env=env, capture_output=True, check=True)
    return done.stdout.decode()


def _linked(folder: Path, names: list[str]) -> str:
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


def _full(folder: Path, home: Path) -> UserlandKaos:
    del folder
    return UserlandKaos(os.environ["PATH"], home)


def _slim(folder: Path, home: Path) -> UserlandKaos:
    """As python:3.12-slim: coreutils, findutils, tar; no git."""
    return UserlandKaos(_linked(folder, [*COREUTILS, "tar"]), home)


def _bare(folder: Path, home: Path) -> UserlandKaos:
    """Neither git nor tar."""
    return UserlandKaos(_linked(folder, COREUTILS), home)


def _busybox(folder: Path, home: Path) -> UserlandKaos:
    """As alpine: busybox and nothing else, its shell included."""
    busybox = shutil.which("busybox")
    if busybox is None:
        need(["busybox-static"])
    folder.mkdir()
    for applet in subprocess.check_output([str(busybox), "--list"], text=True).split():
        (folder / applet).symlink_to(str(busybox))
    return UserlandKaos(str(folder), home, shell=(str(busybox), "sh"))


USERLANDS: dict[str, Callable[[Path, Path], UserlandKaos]] = {
    "full": _full,
    "slim": _slim,
    "bare": _bare,
    "busybox": _busybox,
}


def new_box(name: str, tmp_path: Path) -> Box:
    """A sandbox with a userland, below a folder of the test."""
    top = tmp_path / name
    (top / "home").mkdir(parents=True)
    return Box(name, USERLANDS[name](top / "bin", top / "home"), top)
