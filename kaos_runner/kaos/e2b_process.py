"""One process in an E2B sandbox, as pykaos' `KaosProcess`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING

from kaos_runner.kaos.streams import ByteReader, ByteWriter

if TYPE_CHECKING:
    from e2b.envd.process import process_pb as pb
    from kaos import AsyncReadable, AsyncWritable

    from kaos_runner.kaos.e2b_envd import Envd, Stream

HIGH_WATER = 1024 * 1024
"""Bytes of output that wait to be read before the sandbox is made to wait."""
KILLING = 10.0
"""Seconds for the end of a killed process to arrive."""

# MARK CWD COMMAND...: says on stderr whether the command can run, and its group; then becomes it.
LAUNCH = r"""m=$1; cd -- "$2" 2>/dev/null || { printf '%sd.' "$m" >&2; exit 127; }; shift 2
case $1 in
*/*) [ -e "$1" ] || [ -L "$1" ] || { printf '%sn.' "$m" >&2; exit 127; }
[ -x "$1" ] && ! [ -d "$1" ] || { printf '%sx.' "$m" >&2; exit 126; };;
*) command -v -- "$1" >/dev/null 2>&1 || { printf '%sn.' "$m" >&2; exit 127; };;
esac
printf '%s%s.' "$m" "$$" >&2; exec "$@"
"""
_REFUSALS = {b"d": errno.ENOENT, b"n": errno.ENOENT, b"x": errno.EACCES}

_SIGNALS = {
    (signal.strsignal(number) or "").lower(): int(number) for number in signal.valid_signals()
}
"""By the names that Go gives them."""


def exit_code(end: pb.ProcessEvent.EndEvent) -> int:
    """As asyncio has it: minus the signal where one ended the process; Go has -1 for them all."""
    word, _, name = end.status.partition("signal: ")
    if word or not name:
        return end.exit_code
    return -_SIGNALS.get(name.removesuffix(" (core dumped)"), signal.SIGKILL)


async def launched(stream: Stream, mark: bytes, program: str, cwd: str) -> tuple[int, bytes]:
    """Wait for what `LAUNCH` says: the group, and what is on stderr already.

    Raises:
        FileNotFoundError: there is no such program, or no such directory.
        PermissionError: the program may not be executed.
    """
    text = b""
    while isinstance(event := await stream.next(), tuple):
        text += event[1]
        before, found, rest = text.partition(mark)
        word, stop, after = rest.partition(b".")
        if found and stop:
            break
    else:
        raise OSError(errno.EIO, f"the process did not start: {text.decode(errors='replace')}")
    if word in _REFUSALS:
        number = _REFUSALS[word]
        raise OSError(number, os.strerror(number), cwd if word == b"d" else program)
    return int(word), before + after


class E2bProcess:
    """A running command; a task reads its stream as fast as it is read here, and no faster."""

    def __init__(self, envd: Envd, stream: Stream, group: int, stderr: bytes) -> None:
        self._envd, self._stream, self._group = envd, stream, group
        self._returncode: int | None = None
        self._error: OSError | None = None
        self._killed = asyncio.Event()
        self._input = ByteWriter(self._send, self._close)
        self._output = {name: ByteReader(high_water=HIGH_WATER) for name in ("stdout", "stderr")}
        self._output["stderr"].feed_data(stderr)
        self.stdin: AsyncWritable = self._input
        self.stdout: AsyncReadable = self._output["stdout"]
        self.stderr: AsyncReadable = self._output["stderr"]
        self._task = asyncio.create_task(self._pump())

    @property
    def pid(self) -> int:
        """The leader of its group, inside the sandbox."""
        return self._group

    @property
    def returncode(self) -> int | None:
        """Its exit code once it has ended, minus the signal where one ended it."""
        return self._returncode

    async def wait(self) -> int:
        """Wait for its end.

        Raises:
            ConnectionError: the connection broke; how it ended is not known.
        """
        await asyncio.wait({self._task})
        if self._error is not None:
            raise self._error
        assert self._returncode is not None  # the task has ended without an error
        return self._returncode

    async def kill(self) -> None:
        """Kill the whole group; what it wrote before can still be read."""
        if self._task.done():
            return
        self._killed.set()
        with contextlib.suppress(OSError):
            await self._envd.kill(self._group)
        done, _ = await asyncio.wait({self._task}, timeout=KILLING)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _pump(self) -> None:
        try:
            while isinstance(event := await self._stream.next(), tuple):
                await self._give(self._output[event[0]], event[1])
            self._returncode = exit_code(event)
        except asyncio.CancelledError:
            self._returncode = -signal.SIGKILL
        except OSError as error:
            self._error = error
            for reader in self._output.values():
                reader.fail(error)
        finally:
            for reader in self._output.values():
                reader.feed_eof()
            self._input.abort()
            await self._stream.aclose()

    async def _give(self, reader: ByteReader, chunk: bytes) -> None:
        """Wait for room; a killed process gets none, and what it still says is dropped then."""
        room = asyncio.create_task(reader.room())
        killed = asyncio.create_task(self._killed.wait())
        try:
            await asyncio.wait({room, killed}, return_when=asyncio.FIRST_COMPLETED)
            if room.done():
                reader.feed_data(chunk)
        finally:
            room.cancel()
            killed.cancel()

    async def _send(self, data: bytes) -> None:
        try:
            await self._envd.send(self._stream.pid, data)
        except ConnectionError:
            raise
        except OSError as error:  # envd's words for a pipe that nobody reads any more
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error

    async def _close(self) -> None:
        with contextlib.suppress(OSError):
            await self._envd.close_stdin(self._stream.pid)
