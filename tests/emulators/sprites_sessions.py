"""Exec sessions of an emulated sprite: a process each, its owner, and others that attach."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
import termios
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.emulators.sprites_machine import Machine

STDIN, STDOUT, STDERR, EXIT, STDIN_EOF = range(5)
_CHUNK = 32 * 1024
_HISTORY = 64
"""Frames that an attaching client gets replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the exec URL asks for."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    tty: bool = False
    leader: bool = True
    stdin: bool = True
    rows: int = 24
    cols: int = 80


@dataclass(slots=True, kw_only=True)
class Cut:
    """A planned loss of the connection, after so many bytes of output."""

    after: int
    clean: bool
    """With a close frame (code 1000), as a proxy does; otherwise the TCP connection is reset."""


@dataclass(slots=True)
class Session:
    """One process with its streams."""

    id: int
    command: Command
    created: float = field(default_factory=time.time)
    process: asyncio.subprocess.Process | None = None
    clients: list[web.WebSocketResponse] = field(default_factory=list)
    exit_code: int | None = None
    cut: Cut | None = None
    linger: float = 0.5
    delivered: int = 0
    _history: deque[bytes] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    _terminal: int | None = None
    _pumps: list[asyncio.Task[None]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, machine: Machine) -> None:
        """Start the process and the pumps."""
        command = self.command
        if command.tty:
            self._terminal, inner = os.openpty()
            self.resize(command.rows, command.cols)
            pipes: dict[str, Any] = {"stdin": inner, "stdout": inner, "stderr": inner}
        else:
            pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            pipes = {"stdin": pipe if command.stdin else null, "stdout": pipe, "stderr": pipe}
        self.process = await machine.spawn(
            command.argv,
            env=command.env,
            cwd=command.cwd,
            tty=command.tty,
            leader=command.leader,
            **pipes,
        )
        if command.tty:
            os.close(inner)
            self._pumps = [asyncio.create_task(self._pump_terminal())]
        else:
            assert self.process.stdout is not None
            assert self.process.stderr is not None
            self._pumps = [
                asyncio.create_task(self._pump(STDOUT, self.process.stdout)),
                asyncio.create_task(self._pump(STDERR, self.process.stderr)),
            ]

    async def run(self) -> None:
        """Wait for the end: exit is told only after the pipes have drained.

        A process that leaves children with its pipes behind is waited for `linger` seconds longer.
        """
        assert self.process is not None
        code = await _exit_code(self.process)
        _, late = await asyncio.wait(self._pumps, timeout=self.linger)
        for pump in late:
            pump.cancel()
        self.exit_code = code if code >= 0 else 128 - code
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
        for client in list(self.clients):
            await self._tell_exit(client)
        self.ended.set()

    async def _tell_exit(self, client: web.WebSocketResponse) -> None:
        assert self.exit_code is not None
        with contextlib.suppress(ConnectionError):
            if self.command.tty:
                await client.send_str(json.dumps({"type": "exit", "exit_code": self.exit_code}))
            else:
                await client.send_bytes(bytes([EXIT, self.exit_code & 0xFF]))

    async def _pump(self, stream: int, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._deliver(bytes([stream]) + chunk)

    async def _pump_terminal(self) -> None:
        assert self._terminal is not None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(self._terminal), "rb", 0)
        )
        with contextlib.suppress(OSError):  # EIO: the last process with this terminal is gone
            while chunk := await reader.read(_CHUNK):
                await self._deliver(chunk)
        transport.close()

    async def _deliver(self, frame: bytes) -> None:
        self._history.append(frame)
        self.delivered += len(frame) - (not self.command.tty)
        for client in list(self.clients):
            try:
                await client.send_bytes(frame)
            except ConnectionError:
                self._forget(client)
        await self._maybe_cut()

    async def _maybe_cut(self) -> None:
        if self.cut is None or self.delivered < self.cut.after:
            return
        clean, self.cut = self.cut.clean, None
        for client in list(self.clients):
            self._forget(client)
            await cut_connection(client, clean=clean)

    async def serve(self, client: web.WebSocketResponse, *, owner: bool) -> None:
        """Speak with one client until it leaves or the process has ended."""
        await client.send_str(json.dumps(self._info(owner=owner)))
        for frame in list(self._history):
            await client.send_bytes(frame)
        self.clients.append(client)
        if self.exit_code is not None:
            await self._tell_exit(client)
        await self._maybe_cut()
        try:
            async for message in client:
                if message.type is WSMsgType.BINARY:
                    await self._take(message.data)
                elif message.type is WSMsgType.TEXT:
                    self._take_text(message.data)
        finally:
            self._forget(client)

    async def _take(self, frame: bytes) -> None:
        if self._terminal is not None:
            await asyncio.to_thread(os.write, self._terminal, frame)
            return
        stdin = self.process.stdin if self.process is not None else None
        if stdin is None or not frame:
            return
        with contextlib.suppress(ConnectionError):
            if frame[0] == STDIN:
                stdin.write(frame[1:])
                await stdin.drain()
            elif frame[0] == STDIN_EOF:
                stdin.close()

    def _take_text(self, text: str) -> None:
        message = json.loads(text)
        if message.get("type") == "resize" and self._terminal is not None:
            self.resize(message["rows"], message["cols"])

    def resize(self, rows: int, cols: int) -> None:
        """Set the terminal's size."""
        assert self._terminal is not None
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def _forget(self, client: web.WebSocketResponse) -> None:
        if client in self.clients:
            self.clients.remove(client)

    def signal(self, number: int, *, group: bool) -> bool:
        """Send a signal to the process, or to its whole group; False when it is gone."""
        child = self._child()
        if child is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(os.getpgid(child), number)
            else:
                os.kill(child, number)
            return True
        return False

    def _child(self) -> int | None:
        """The process behind nsenter, as the host numbers it."""
        if self.process is None or self.process.returncode is not None:
            return None
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def _info(self, *, owner: bool) -> dict[str, Any]:
        return {
            "type": "session_info",
            "session_id": self.id,
            "command": self.command.argv[0],
            "created": int(self.created),
            "cols": self.command.cols,
            "rows": self.command.rows,
            "is_owner": owner,
            "tty": self.command.tty,
        }

    def listed(self) -> dict[str, Any]:
        """What the list of sessions says."""
        created = datetime.fromtimestamp(self.created, UTC).isoformat()
        return {
            "id": str(self.id),
            "command": " ".join(self.command.argv),
            "workdir": self.command.cwd,
            "created": created,
            "bytes_per_second": 0,
            "is_active": self.exit_code is None,
            "last_activity": created,
            "tty": self.command.tty,
        }


async def _exit_code(process: asyncio.subprocess.Process) -> int:
    """The exit code as soon as there is one; asyncio's own `wait` waits for the pipes too."""
    while process.returncode is None:  # noqa: ASYNC110 - asyncio has no event for it
        await asyncio.sleep(0.002)
    return process.returncode


async def cut_connection(client: web.WebSocketResponse, *, clean: bool) -> None:
    """End a WebSocket early, politely (code 1000) or with a reset."""
    if clean:
        await client.close(code=1000)
        return
    transport = client._req.transport if client._req is not None else None
    if transport is not None:
        transport.abort()


def signal_number(name: str) -> int:
    """`TERM`, `SIGTERM` or `15` as a number."""
    if name.isdigit():
        return int(name)
    return int(signal.Signals["SIG" + name.removeprefix("SIG")])
