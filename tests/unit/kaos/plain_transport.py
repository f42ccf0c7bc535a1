"""A transport that runs commands as they are, with another shell if wanted, and counts."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING

from kaos_runner.kaos.posix import Completed, PosixKaos

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kaos import KaosProcess


class PlainTransport:
    """Runs commands on this machine."""

    def __init__(
        self, shell: Sequence[str] = ("/bin/sh",), environ: Mapping[str, str] | None = None
    ) -> None:
        self.shell, self.environ = shell, environ or dict(os.environ)
        self.requests = 0
        self.last: list[str] = []

    async def run(
        self, argv: Sequence[str], *, cwd: str | None, stdin: bytes | None = None
    ) -> Completed:
        """Run a command to its end."""
        process = await self._spawn(argv, cwd)
        stdout, stderr = await process.communicate(stdin)
        assert process.returncode is not None  # communicate waits
        return Completed(process.returncode, stdout, stderr)

    async def start(self, argv: Sequence[str], *, cwd: str) -> KaosProcess:
        """Start a command."""
        from kaos.local import LocalKaos

        return LocalKaos.Process(await self._spawn(argv, cwd))

    async def _spawn(self, argv: Sequence[str], cwd: str | None) -> asyncio.subprocess.Process:
        self.requests += 1
        self.last = list(argv)
        command = [*self.shell, *argv[1:]] if argv[0] == "/bin/sh" else list(argv)
        return await asyncio.create_subprocess_exec(
            *command, cwd=cwd, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self.environ
        )


def fresh_kaos(directory: Path) -> tuple[PosixKaos, PlainTransport]:
    """A Kaos in a directory, and its transport."""
    transport = PlainTransport()
    return PosixKaos(transport, name="plain", home="/", cwd=str(directory)), transport
