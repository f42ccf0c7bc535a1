"""Byte streams of remote processes, and lines of text, as pykaos' protocols want them."""

from __future__ import annotations

import asyncio
import codecs
import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

HIGH_WATER = 4 * 1024 * 1024
"""Bytes that wait to be read before the producer is asked to pause."""


class ByteReader:
    """An `AsyncReadable` that a transport feeds; lines may have any length.

    A producer that can wait calls `await room()` before each chunk; one that cannot gives `pause`
    and `resume`.
    """

    def __init__(
        self,
        *,
        pause: Callable[[], None] | None = None,
        resume: Callable[[], None] | None = None,
        high_water: int = HIGH_WATER,
    ) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._eof = False
        self._error: BaseException | None = None
        self._arrival = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._pause, self._resume = pause, resume
        self._high_water = high_water

    # -- the producer's side

    def feed_data(self, data: bytes) -> None:
        """Add a chunk."""
        self._buffer += data
        self._arrival.set()
        if len(self._buffer) > self._high_water and self._room.is_set():
            self._room.clear()
            if self._pause:
                self._pause()

    def feed_eof(self) -> None:
        """The stream is over; idempotent."""
        self._eof = True
        self._arrival.set()
        self._room.set()

    def fail(self, error: BaseException) -> None:
        """The stream broke: a reader gets what has arrived, then the error."""
        self._error = error
        self.feed_eof()

    async def room(self) -> None:
        """Wait until the consumer has caught up."""
        await self._room.wait()

    # -- the consumer's side

    def at_eof(self) -> bool:
        """Whether the end was reached and everything was read."""
        return self._eof and not self._buffer

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes as soon as there are any; everything until EOF where `n` is negative."""
        if n == 0:
            return b""
        if n > 0:
            while not self._buffer and await self._more():
                pass
            return self._take(n)
        chunks = []
        while self._buffer or await self._more():
            chunks.append(self._take(len(self._buffer)))
        return b"".join(chunks)

    async def readline(self) -> bytes:
        """A line with its end; what is left at EOF."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Everything up to and including the separator.

        Raises:
            asyncio.IncompleteReadError: the stream ended before it came.
        """
        if not separator:
            msg = "Separator should be at least one-byte string"
            raise ValueError(msg)
        scanned = 0
        while (at := self._buffer.find(separator, scanned)) < 0:
            scanned = max(0, len(self._buffer) - len(separator) + 1)
            if not await self._more():
                raise asyncio.IncompleteReadError(self._take(len(self._buffer)), None)
        return self._take(at + len(separator))

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes.

        Raises:
            asyncio.IncompleteReadError: the stream ended before they came.
        """
        if n < 0:
            msg = "readexactly size can not be less than zero"
            raise ValueError(msg)
        while len(self._buffer) < n:
            if not await self._more():
                raise asyncio.IncompleteReadError(self._take(len(self._buffer)), n)
        return self._take(n)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while line := await self.readline():
            yield line

    async def _more(self) -> bool:
        """Wait for the next chunk; False at EOF."""
        if self._eof:
            if self._error is not None and not self._buffer:
                raise self._error
            return False
        self._arrival.clear()
        self._make_room()
        await self._arrival.wait()
        return True

    def _take(self, n: int) -> bytes:
        taken = bytes(self._buffer[:n])
        del self._buffer[:n]
        if len(self._buffer) <= self._high_water // 2:
            self._make_room()
        return taken

    def _make_room(self) -> None:
        if not self._room.is_set():
            self._room.set()
            if self._resume:
                self._resume()


class ByteWriter:
    """An `AsyncWritable` whose chunks a task sends in order; small writes are sent together.

    `send` and `close` are the transport's. `drain` returns once everything was sent, and raises
    what `send` raised.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._send, self._close = send, close
        self._buffer = bytearray()
        self._closing = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Queue a chunk."""
        if self._closing:
            msg = "write after close"
            raise RuntimeError(msg)
        self._buffer += data
        self._wake()

    def writelines(self, data: Iterable[bytes], /) -> None:
        """Queue chunks."""
        self.write(b"".join(data))

    def can_write_eof(self) -> bool:
        """EOF is real."""
        return True

    def write_eof(self) -> None:
        """Send EOF after what is queued."""
        self.close()

    def close(self) -> None:
        """Send EOF after what is queued; idempotent."""
        if not self._closing:
            self._closing = True
            self._wake()

    def is_closing(self) -> bool:
        """Whether it was closed, or is about to be."""
        return self._closing

    async def drain(self) -> None:
        """Wait until everything was sent."""
        if self._task is not None:
            await asyncio.shield(self._task)
        if self._error is not None:
            raise self._error

    async def wait_closed(self) -> None:
        """Wait until EOF was sent."""
        await self._closed.wait()

    def abort(self, error: BaseException | None = None) -> None:
        """The other side is gone: what is queued is dropped, and a later `drain` raises."""
        self._closing = True
        self._error = self._error or error or BrokenPipeError("the process does not read any more")
        self._buffer.clear()
        self._closed.set()

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._pump())

    async def _pump(self) -> None:
        try:
            while self._buffer:
                chunk = bytes(self._buffer)
                self._buffer.clear()
                await self._send(chunk)
            if self._closing and not self._closed.is_set():
                self._closed.set()
                await self._close()
        except Exception as error:  # drain raises it
            self.abort(error)


class Lines:
    """Splits bytes that come in chunks into lines of text, with line ends as Python reads them."""

    def __init__(self, encoding: str, errors: Literal["strict", "ignore", "replace"]) -> None:
        decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._rest = ""

    def feed(self, chunk: bytes, *, final: bool = False) -> Iterator[str]:
        """The lines that are complete; with `final`, also what is left."""
        parts = self._decoder.decode(chunk, final=final).split("\n")
        parts[0] = self._rest + parts[0]
        self._rest = parts.pop()
        for part in parts:
            yield part + "\n"
        if final and self._rest:
            yield self._rest
