"""A started process in a sprite, as KAOS wants it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaos import AsyncReadable, AsyncWritable

    from kaos_runner.kaos.sprites import SpritesTransport
    from kaos_runner.kaos.sprites_wire import Wire
    from kaos_runner.kaos.streams import ByteReader

KILLED = 128 + 9
KILL_PATIENCE = 5.0
"""Seconds between the kill of the group and that of the session."""


class SpriteProcess:
    """A started process; it implements `kaos.KaosProcess`."""

    def __init__(
        self, transport: SpritesTransport, wire: Wire, stdout: ByteReader, stderr: ByteReader
    ) -> None:
        self.stdin: AsyncWritable = wire.stdin
        self.stdout: AsyncReadable = stdout
        self.stderr: AsyncReadable = stderr
        self._transport = transport
        self._wire = wire
        self._killed = False
        self._ended = asyncio.create_task(transport.ended(wire))
        self._ended.add_done_callback(look_at)

    @property
    def pid(self) -> int:
        """The process id inside the sprite; its group has the same."""
        return self._wire.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative where `kill` ended the process; None while it runs."""
        if not self._ended.done() or self._ended.cancelled() or self._ended.exception():
            return None
        code = self._ended.result()
        return -9 if self._killed and code == KILLED else code

    async def wait(self) -> int:
        """The exit code.

        Raises:
            ConnectionError: the connection was cut, or the sprite is gone.
        """
        code = await asyncio.shield(self._ended)
        return code if self.returncode is None else self.returncode

    async def kill(self) -> None:
        """Kill the process and all that it started, also what outlived it."""
        self._killed = not self._ended.done() or self._killed
        await self._transport.shielded(self._transport.kill(self._wire))
        await asyncio.wait([self._ended], timeout=KILL_PATIENCE)


def look_at(task: asyncio.Task[int]) -> None:
    """Take note of a failure, so that asyncio does not call it forgotten."""
    if not task.cancelled():
        task.exception()
