"""An execution of the BoxLite emulator, and the WebSocket that attaches to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from tests.emulators.boxlite_box import Box

STDOUT, STDERR = b"\x01", b"\x02"
SIGNALS = frozenset({1, 2, 3, 6, 10, 12, 15, 28})  # what the signal route takes; SIGKILL is DELETE
PING_SECONDS = 5.0
LINGER_SECONDS = 1.0  # how long output is awaited from what an ended process left behind


@dataclass(slots=True)
class Execution:
    """One command in a box."""

    box: Box
    process: asyncio.subprocess.Process
    id: str = field(default_factory=lambda: f"exec-{secrets.token_hex(8)}")
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    attached: bool = False
    killed: bool = False
    timeout: asyncio.TimerHandle | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the command, or to `nsenter` while that has no child yet."""
        for pid in self._command() or [self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _command(self) -> list[int]:
        """The command: the child of the shim that is the child of `nsenter`."""
        return [pid for shim in _children(self.process.pid) for pid in _children(shim) or [shim]]

    def kill(self) -> None:
        """End the command with SIGKILL."""
        self.killed = True
        self.signal(signal.SIGKILL)

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; 128 and the signal's number when a signal ended it."""
        code = self.process.returncode
        return code if code is None or code >= 0 else 128 - code

    def info(self) -> dict[str, object]:
        """The execution as `GET /executions/{id}` tells it."""
        code = self.exit_code
        status = "running" if code is None else "killed" if self.killed else "completed"
        return {
            "execution_id": self.id,
            "status": status,
            "exit_code": code,
            "started_at": self.started_at.isoformat(),
        }

    async def attach(self, request: web.Request) -> web.WebSocketResponse:
        """Speak the frame protocol until the command has ended or the client has gone."""
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self.attached = True
        roles = (self._send_output(socket), self._take_input(socket))
        sides = [asyncio.create_task(role) for role in roles]
        pinger = asyncio.create_task(_ping(socket))
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.attached = False
            for task in (*sides, pinger):
                task.cancel()
            await asyncio.gather(*sides, pinger, return_exceptions=True)
        return socket

    async def _send_output(self, socket: web.WebSocketResponse) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        pumps = [
            asyncio.create_task(self._pump(self.process.stdout, STDOUT, socket)),
            asyncio.create_task(self._pump(self.process.stderr, STDERR, socket)),
        ]
        try:
            await self.process.wait()
            await asyncio.wait(pumps, timeout=LINGER_SECONDS)
            await socket.send_json({"type": "exit", "exit_code": self.exit_code})
            await socket.close()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, stream: asyncio.StreamReader, channel: bytes, socket: web.WebSocketResponse
    ) -> None:
        while chunk := await stream.read(32768):
            received = self.box.metrics.get("bytes_received_total", 0)
            self.box.metrics["bytes_received_total"] = received + len(chunk)
            await socket.send_bytes(channel + chunk)

    async def _take_input(self, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await self._write(message.data)
            elif message.type is WSMsgType.TEXT:
                await self._control(json.loads(message.data), socket)

    async def _write(self, chunk: bytes) -> None:
        assert self.process.stdin is not None
        self.box.metrics["bytes_sent_total"] = self.box.metrics.get("bytes_sent_total", 0) + len(
            chunk
        )
        with contextlib.suppress(ConnectionError):  # the command does not read any more
            self.process.stdin.write(chunk)
            await self.process.stdin.drain()

    async def _control(self, message: dict[str, object], socket: web.WebSocketResponse) -> None:
        assert self.process.stdin is not None
        if message.get("type") == "stdin_eof":
            self.process.stdin.close()
        elif message.get("type") == "signal":
            number = message.get("sig")
            if isinstance(number, int) and number in SIGNALS:
                self.signal(number)
            else:
                await socket.send_json({"type": "error", "message": f"signal {number} refused"})


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in children.split()]
    return []


async def _ping(socket: web.WebSocketResponse) -> None:
    """Ping at once and then regularly: the SDK drops a session without a frame in ten seconds."""
    while not socket.closed:
        with contextlib.suppress(ConnectionError):
            await socket.ping()
        await asyncio.sleep(PING_SECONDS)
