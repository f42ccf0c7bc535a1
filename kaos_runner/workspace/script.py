"""One operation in a sandbox: a POSIX shell script with arguments, its streams taken as they come.

The scripts need `/bin/sh`, coreutils or busybox, `find` and `xargs`, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kaos_runner.errors import SandboxError, SandboxLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from kaos import AsyncReadable, AsyncWritable, Kaos, KaosProcess

    type Take = Callable[[bytes], Awaitable[None]]

CHUNK = 256 * 1024
"""Bytes that are read or written at once, at most."""
STDERR_TAIL = 16 * 1024
STDOUT_LIMIT = 64 * 2**20
"""Bytes of output that are kept in memory where no `take` streams it."""
FIELDS_LIMIT = 1_000_000
"""Names and the like in one answer of a sandbox."""
SHELL = "/bin/sh"
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a script ended: its stdout (empty where it was streamed), the end of its stderr."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def complaint(self) -> str:
        """The end of stderr as one line for a message."""
        text = self.stderr.decode("utf-8", "replace").strip()
        return " ".join(text.split())[-500:] or f"exit code {self.exit_code}"


async def run_script(
    kaos: Kaos,
    script: str,
    *args: str,
    stdin: AsyncIterator[bytes] | None = None,
    take: Take | None = None,
) -> Ended:
    """Run `script` with `args` as `$1`…: one operation.

    `take` is awaited with each piece of stdout; what it raises ends the script. What `stdin` raises
    is raised once the script has ended. A script that ends without reading its stdin is no error.

    Raises:
        SandboxError: the sandbox has no shell, or the output exceeds `STDOUT_LIMIT`.
        SandboxLostError: the sandbox went away.
    """
    kept = bytearray()

    async def keep(chunk: bytes) -> None:
        kept.extend(chunk)
        if len(kept) > STDOUT_LIMIT:
            msg = "the sandbox sends more than this operation may keep in memory"
            raise SandboxError(msg, hint="exclude large trees with a .gitignore")

    async with started(kaos, SHELL, "-c", script, "sh", *args) as process:
        feeding = asyncio.ensure_future(_feed(process.stdin, stdin))
        complaining = asyncio.ensure_future(_tail(process.stderr, STDERR_TAIL))
        try:
            with sandbox_errors():
                async for chunk in chunks(process.stdout):
                    await (take or keep)(chunk)
                stderr = await complaining
                code = await process.wait()
            # The process has ended: what it did not read goes nowhere.
            await asyncio.wait({feeding}, timeout=_PATIENCE)
            if feeding.done():
                feeding.result()
        finally:
            await settle(feeding, complaining)
    return Ended(code, bytes(kept), stderr)


@contextlib.asynccontextmanager
async def started(kaos: Kaos, *argv: str) -> AsyncIterator[KaosProcess]:
    """A process that is killed if the block does not end well."""
    with sandbox_errors():
        process = await kaos.exec(*argv)
    try:
        yield process
    except BaseException:
        await kill(process, drain=True)
        raise


async def kill(process: KaosProcess, *, drain: bool = False) -> None:
    """Kill a process and give it a moment to end; that it is gone already is no error.

    With `drain`, what it has still written is read and dropped: a full pipe holds up its end.
    """
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await process.kill()
            if drain:
                async for _ in chunks(process.stdout):
                    pass
            await process.wait()


@contextlib.contextmanager
def sandbox_errors() -> Iterator[None]:
    """Map what a Kaos raises to our errors."""
    try:
        yield
    except ConnectionError as error:
        msg = f"the sandbox went away: {error}" if str(error) else "the sandbox went away"
        raise SandboxLostError(msg) from error
    except OSError as error:
        msg = f"the sandbox refused an operation: {error.strerror or error}"
        raise SandboxError(msg, hint=f"it must have {SHELL} and coreutils or busybox") from error


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Map what goes wrong where an answer of a sandbox is taken apart: it need not be honest."""
    try:
        yield
    except ValueError as error:
        msg = "the sandbox's answer makes no sense, or names too many files"
        raise SandboxError(msg) from error


def fields(answer: bytes) -> Iterator[bytes]:
    """The pieces of an answer, each ended by a zero byte; there may be `FIELDS_LIMIT` of them.

    Raises:
        ValueError: there are more, or the last one has no end.
    """
    at = 0
    for _ in range(FIELDS_LIMIT):
        if at == len(answer):
            return
        end = answer.index(0, at)
        yield answer[at:end]
        at = end + 1
    msg = "too many names"
    raise ValueError(msg)


def following(pieces: Iterator[bytes]) -> bytes:
    """The next piece, which must be there.

    Raises:
        ValueError: there is none.
    """
    piece = next(pieces, None)
    if piece is None:
        msg = "the answer is cut short"
        raise ValueError(msg)
    return piece


async def chunks(stream: AsyncReadable) -> AsyncIterator[bytes]:
    """The pieces of a stream until its end."""
    while chunk := await stream.read(CHUNK):
        yield chunk


async def settle(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and leave no exception unread."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def threaded(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of an iterator that reads files, each made in a thread, joined up to `CHUNK`."""
    while batch := await asyncio.to_thread(_batch, pieces):
        yield batch


def _batch(pieces: Iterator[bytes]) -> bytes:
    batch = bytearray()
    for piece in pieces:
        batch += piece
        if len(batch) >= CHUNK:
            break
    return bytes(batch)


async def _feed(stdin: AsyncWritable, pieces: AsyncIterator[bytes] | None) -> None:
    """Write every piece, then the end; a reader that is gone speaks through its exit code."""
    try:
        if pieces is not None:
            async for piece in pieces:
                if stdin.is_closing():
                    return
                stdin.write(piece)
                await stdin.drain()
    except ConnectionError:
        return
    finally:
        with contextlib.suppress(OSError):
            stdin.close()


async def _tail(stream: AsyncReadable, limit: int) -> bytes:
    """The last `limit` bytes of a stream, in bounded memory."""
    tail = bytearray()
    async for chunk in chunks(stream):
        tail += chunk
        if len(tail) > limit:
            del tail[:-limit]
    return bytes(tail)
