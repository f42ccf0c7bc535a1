"""A PosixKaos over plain processes of this machine, with an environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from kaos_runner.kaos.posix import Completed, PosixKaos

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kaos import AsyncReadable, AsyncWritable, KaosProcess


class HostProcess:
    """A process group."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._process = process
        self.stdin: AsyncWritable = process.stdin
        self.stdout: AsyncReadable = process.stdout
        self.stderr: AsyncReadable = process.stderr

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        # asyncio's own waits for the pipes as well, which a process in the background keeps open.
        while self._process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return self._process.returncode

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self.wait()


class HostTransport:
    """Runs commands in process groups, and notes each."""

    def __init__(self, root: Path, path: str = "/usr/bin:/bin") -> None:
        self.environ = {"PATH": path, "HOME": str(root), "LANG": "C.UTF-8"}
        self.ran: list[list[str]] = []

    async def _spawn(self, argv: Sequence[str], cwd: str | None) -> HostProcess:
        self.ran.append(list(argv))
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=self.environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return HostProcess(process)

    async def run(
        self, argv: Sequence[str], *, cwd: str | None, stdin: bytes | None = None
    ) -> Completed:
        process = await self._spawn(argv, cwd)
        try:
            out, err = await process._process.communicate(stdin or b"")
        except BaseException:
            await process.kill()
            raise
        return Completed(process.returncode or 0, out, err)

    async def start(self, argv: Sequence[str], *, cwd: str) -> KaosProcess:
        return await self._spawn(argv, cwd)


def host_kaos(root: Path) -> PosixKaos:
    """A Kaos whose home and working directory is `root`."""
    return PosixKaos(HostTransport(root), name="test", home=str(root), cwd=str(root))
