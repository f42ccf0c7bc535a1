"""One process in an E2B sandbox, as pykaos' `KaosProcess`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
from typing import TYPE_CHECKING

from kaos_runner.kaos.streams import ByteReader, ByteWriter

if TYPE_CHECKING:
    from e2b.envd.process import process_pb as pb
    from kaos import AsyncReadable, AsyncWritable

    from kaos_runner.kaos.e2b_envd import Envd
    from kaos_runner.kaos.e2b_stream import Chunk, Stream

HIGH_WATER = 1024 * 1024
"""Bytes of output that wait to be read before the sandbox is made to wait."""
KILLING = 10.0
"""Seconds for the end of a killed process to arrive."""

# MARK CWD COMMAND...: says on stderr, after the mark, its group or why the command cannot run, and
# later the exit code. This shell stays, since envd tells of an end only when nobody holds the pipes
# any more; its own words ("Killed") go nowhere.
LAUNCH = r"""m=$1 c=$2; shift 2; exec 3>&2 2>/dev/null
say() { printf '%s%s.' "$m" "$1" >&3; }
cd -- "$c" || { say d; exit 127; }
case $1 in
*/*) [ -e "$1" ] || [ -L "$1" ] || { say n; exit 127; }
[ -x "$1" ] && ! [ -d "$1" ] || { say x; exit 126; };;
*) command -v -- "$1" >/dev/null || { say n; exit 127; };;
esac
say $$; (exec "$@" 2>&3 3>&-); s=$?; say $s; exit $s
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


class Marks:
    """Takes what `LAUNCH` says out of stderr, wherever the chunks are cut."""

    def __init__(self, mark: bytes) -> None:
        self._pattern = re.compile(re.escape(mark) + rb"(\w+)\.")
        self._mark = mark
        self._held = b""
        self.words: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        """The command's own part of a chunk; what may be the beginning of a mark is held back."""
        text = self._held + chunk
        self.words += self._pattern.findall(text)
        text = self._pattern.sub(b"", text)
        at = self._unfinished(text)
        self._held = text[at:]
        return text[:at]

    def _unfinished(self, text: bytes) -> int:
        """Where a mark begins whose end is still to come; the end of the text if there is none."""
        at = text.rfind(self._mark)
        if at >= 0 and re.fullmatch(rb"\w{0,10}", text[at + len(self._mark) :]):
            return at
        for size in range(min(len(self._mark) - 1, len(text)), 0, -1):
            if text.endswith(self._mark[:size]):
                return len(text) - size
        return len(text)

    def rest(self) -> bytes:
        """What was held back, at the end of the stream."""
        return self._held


async def launched(stream: Stream, marks: Marks, program: str, cwd: str) -> list[Chunk]:
    """Wait until the command is known to run; what it has written already.

    Raises:
        FileNotFoundError: there is no such program, or no such directory.
        PermissionError: the program may not be executed.
    """
    early: list[Chunk] = []
    while not marks.words:
        event = await stream.next()
        if not isinstance(event, tuple):
            text = b"".join(chunk for _, chunk in early).decode(errors="replace").strip()
            raise OSError(errno.EIO, f"the process did not start: {text or event.status}")
        name, chunk = event
        early.append((name, marks.feed(chunk) if name == "stderr" else chunk))
    if (number := _REFUSALS.get(marks.words[0])) is not None:
        raise OSError(number, os.strerror(number), cwd if marks.words[0] == b"d" else program)
    return early


class E2bProcess:
    """A running command; a task reads its stream as fast as it is read here, and no faster."""

    def __init__(self, envd: Envd, stream: Stream, marks: Marks, early: list[Chunk]) -> None:
        self._envd, self._stream, self._marks = envd, stream, marks
        self._group = int(marks.words[0])
        self._returncode: int | None = None
        self._error: OSError | None = None
        self._ended, self._killed = asyncio.Event(), asyncio.Event()
        self._input = ByteWriter(self._send, self._close)
        self._output = {name: ByteReader(high_water=HIGH_WATER) for name in ("stdout", "stderr")}
        for name, chunk in early:
            self._output[name].feed_data(chunk)
        self.stdin: AsyncWritable = self._input
        self.stdout: AsyncReadable = self._output["stdout"]
        self.stderr: AsyncReadable = self._output["stderr"]
        self.task = asyncio.create_task(self._pump())
        """Ends once nobody in the sandbox holds the command's pipes any more."""
        self.task.add_done_callback(self._over)
        self._look()

    @property
    def pid(self) -> int:
        """The leader of its group, inside the sandbox."""
        return self._group

    @property
    def returncode(self) -> int | None:
        """Its exit code once it has ended, minus the signal where one ended it."""
        return self._returncode

    async def wait(self) -> int:
        """Wait for its end, whoever still holds its pipes.

        Raises:
            ConnectionError: the connection broke; how it ended is not known.
        """
        await self._ended.wait()
        if self._returncode is None:
            assert self._error is not None  # one of both has ended it
            raise self._error
        return self._returncode

    async def kill(self) -> None:
        """Kill all that it started; what was written before can still be read."""
        if self.task.done():
            return
        self._killed.set()
        with contextlib.suppress(OSError):
            await self._envd.kill(self._group)
        await asyncio.wait({self.task}, timeout=KILLING)
        await self.abandon()

    async def abandon(self) -> None:
        """Let go of the stream."""
        self.task.cancel()
        await asyncio.wait({self.task})
        await self._stream.aclose()

    async def _pump(self) -> None:
        try:
            while isinstance(event := await self._stream.next(), tuple):
                name, chunk = event
                if name == "stderr":
                    chunk = self._marks.feed(chunk)
                    self._look()
                await self._give(self._output[name], chunk)
            self._output["stderr"].feed_data(self._marks.rest())
            self._end(exit_code(event))
        except OSError as error:
            self._error = error
            for reader in self._output.values():
                reader.fail(error)
        finally:
            await self._stream.aclose()

    def _over(self, _task: asyncio.Task[None]) -> None:
        """The stream has ended, or was let go of, perhaps before anything was read of it."""
        if self._error is None:
            self._end(-signal.SIGKILL)
        self._ended.set()
        for reader in self._output.values():
            reader.feed_eof()
        self._input.abort()

    def _look(self) -> None:
        """Whether the exit code was said."""
        if len(self._marks.words) > 1:
            self._end(int(self._marks.words[1]))

    def _end(self, code: int) -> None:
        if self._returncode is None:
            self._returncode = code
        self._ended.set()

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
