"""One process in a sprite, over one WebSocket: no thread, and no buffer of what was delivered.

The URL of the request never changes: it starts a shell that reads one line from its stdin and
evaluates it. That line holds the working directory, the environment and the arguments, so that
nothing of them stands in a URL, nothing is too long for one, and a handshake that failed can be
tried again: without the line nothing has been started.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import secrets as random
from shlex import quote
from typing import TYPE_CHECKING, Any, Protocol

from sprites.websocket import StreamID, WSCommand
from websockets.exceptions import ConnectionClosed

from kaos_runner.kaos.streams import ByteWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sprites.async_sprite import AsyncSprite

BOOT = ("sh", "-c", 'IFS= read -r p && eval "$(printf %b "$p")"')
"""What every exec request asks for."""

_MARK = b"\x1e"
_FRAME = 64 * 1024

_OF_DIRECTORY = 1000
"""What is added to an errno that is about the working directory, not the program."""

# Tells the process id, or why nothing can be started, on stderr; then becomes the program. It leads
# a process group of its own, so that a kill reaches its children: the service does not say whether
# it makes one.
_LAUNCH = r"""
m() { printf '\036%s %s\n' "$$" "$1" >&2; [ "$1" = 0 ] || exit 125; }
[ -z "$d" ] || cd "$d" 2>/dev/null || { [ -e "$d" ] || m 1002; [ -d "$d" ] || m 1020; m 1013; }
case $1 in
*/*) [ -e "$1" ] || m 2; { [ -x "$1" ] && [ ! -d "$1" ]; } || m 13;;
*) command -v "$1" >/dev/null 2>&1 || m 2;;
esac
g=; { read -r _ _ _ _ g _ </proc/$$/stat; } 2>/dev/null
m 0
[ "$g" = "$$" ] && exec "$@"
exec setsid "$@"
"""


MARK = "KAOS_RUNNER_PROCESS"
"""A variable that every process inherits: by it, a kill finds those that left the group."""

# MARK=VALUE [PID]: kills the group, then whatever carries the mark, until nothing does.
_KILL = r"""[ -z "$2" ] || kill -s KILL -- "-$2" 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9; do
l=$(grep -ls "$1" /proc/[0-9]*/environ); [ -n "$l" ] || exit 0
for p in $l; do p=${p#/proc/}; kill -s KILL "${p%/environ}" 2>/dev/null; done; done
"""


def kill_command(mark: str, pid: int) -> list[str]:
    """The command that ends a process, its group and all that it started; pid 0 where it ended."""
    return ["/bin/sh", "-c", _KILL, "sh", f"{MARK}={mark}", str(pid) if pid else ""]


def preamble(
    argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str], mark: str = ""
) -> bytes:
    """The line that tells the shell at the other end what to become.

    Raises:
        ValueError: an argument or a value holds a NUL.
    """
    variables = {**env, MARK: mark} if mark else env
    exports = "".join(f"export {name}={quote(value)}\n" for name, value in variables.items())
    script = f"p=; {exports}d={quote(cwd or '')}\nset -- {' '.join(map(quote, argv))}\n{_LAUNCH}"
    raw = os.fsencode(script)
    if b"\0" in raw:
        msg = "embedded null byte"
        raise ValueError(msg)
    plain = (chr(b) if 32 <= b < 127 and b != 92 else f"\\0{b:03o}" for b in raw)
    return "".join(plain).encode() + b"\n"


class Sink(Protocol):
    """Takes one output stream; `room` holds the sender back."""

    def feed_data(self, data: bytes) -> None: ...
    def feed_eof(self) -> None: ...
    async def room(self) -> None: ...


class Collected:
    """The output of an operation that runs to its end: all of it is wanted."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed_data(self, data: bytes) -> None:
        """Keep bytes."""
        self.content += data

    def feed_eof(self) -> None:
        """Nothing waits for it."""

    async def room(self) -> None:
        """There is always room."""


class Wire(WSCommand):
    """The SDK's command without its buffers and its threads.

    `WSCommand` keeps all output for ever, even what was delivered, and reads stdin in a thread; the
    methods that do so are replaced, the connection and its protocol stay the SDK's.
    """

    def __init__(self, sprite: AsyncSprite, stdout: Sink, stderr: Sink) -> None:
        # Any object as stdin keeps the SDK from sending EOF by itself; nothing ever reads from it.
        super().__init__(sprite.command(*BOOT, stdin=self))
        self._sinks = {int(StreamID.STDOUT): stdout, int(StreamID.STDERR): stderr}
        self._head: bytearray | None = bytearray()
        self._muted = False
        self.stdin = ByteWriter(self._send_input, self._send_end)
        self.mark = random.token_hex(8)
        self.session: str | None = None
        self.pid = 0
        self.errno: int | None = None
        """How the launch went: 0, or what `launch_error` reads; None while that is not known."""
        self.launched = asyncio.Event()
        self.ended = asyncio.Event()
        self.text_message_handler = self._take_note

    async def _copy_stdin(self) -> None:
        """Nothing: input is pushed by `stdin`."""

    async def _send_input(self, data: bytes) -> None:
        with memoryview(data) as view:
            for start in range(0, len(view), _FRAME):
                await self._send(bytes([StreamID.STDIN]) + view[start : start + _FRAME])

    async def _send_end(self) -> None:
        await self._send(bytes([StreamID.STDIN_EOF]))

    async def _send(self, frame: bytes) -> None:
        if self.ws is None or self.done:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        try:
            await self.ws.send(frame)
        except ConnectionClosed as error:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error

    def _take_note(self, text: bytes) -> None:
        with contextlib.suppress(ValueError):
            message: dict[str, Any] = json.loads(text)
            if message.get("type") == "session_info" and "session_id" in message:
                self.session = str(message["session_id"])

    async def _handle_message(self, message: str | bytes) -> None:
        if isinstance(message, str) or not message or message[0] not in self._sinks:
            await super()._handle_message(message)
            return
        sink, payload = self._sinks[message[0]], message[1:]
        if message[0] == StreamID.STDERR:
            payload = self._without_head(payload)
        if payload and not self._muted:
            sink.feed_data(payload)
            await sink.room()

    def _without_head(self, payload: bytes) -> bytes:
        """Take the launch's own line off the beginning of stderr."""
        if self._head is None:
            return payload
        self._head += payload
        if not self._head.startswith(_MARK):
            rest, self._head = bytes(self._head), None
            return rest
        line, end, rest = bytes(self._head).partition(b"\n")
        if not end:
            return b""
        self._head = None
        pid, _, code = line[1:].partition(b" ")
        self.pid, self.errno = int(pid), int(code)
        self.launched.set()
        return rest

    def drop(self) -> None:
        """Give up a connection on which nothing was started."""
        if self._io_task is not None:
            self._io_task.cancel()
        if self.ws is not None:
            self.ws.transport.abort()

    def mute(self) -> None:
        """Drop further output, so that the exit code comes through although nobody reads."""
        self._muted = True
        for sink in self._sinks.values():
            sink.feed_eof()

    async def finish(self) -> int:
        """Wait for the exit code, then close everything.

        Raises:
            NetworkError: the connection ended before it.
        """
        try:
            return await self.wait()
        finally:
            self.stdin.abort()
            for sink in self._sinks.values():
                sink.feed_eof()
            self.launched.set()
            self.ended.set()
            await self._hang_up()

    async def _hang_up(self) -> None:
        ws = self.ws
        try:
            with contextlib.suppress(Exception):  # the result does not depend on a clean close
                await self.close()
        finally:
            if ws is not None:
                ws.transport.abort()


def launch_error(code: int, argv: Sequence[str], cwd: str | None) -> OSError:
    """Why nothing was started, as `subprocess` words it."""
    of_directory, number = divmod(code, _OF_DIRECTORY)
    return OSError(number, os.strerror(number), cwd if of_directory else argv[0])
