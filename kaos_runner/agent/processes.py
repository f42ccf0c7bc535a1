"""Processes in the sandbox that end with the call that started them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaos import AsyncReadable, Kaos, KaosProcess

KILL_SECONDS = 10.0
"""How long a kill may take; a sandbox that does not answer must not hold up the end of a run."""


@dataclass(frozen=True, slots=True)
class Output:
    """A command that has ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def run(kaos: Kaos, *argv: str, timeout: float) -> Output:
    """Run a command with an empty stdin to its end.

    Raises:
        TimeoutError: it took longer than `timeout` seconds, and was killed.
        OSError: the sandbox could not start it.
    """
    out, err = bytearray(), bytearray()
    code = await stream(kaos, argv, out.extend, err.extend, timeout=timeout)
    return Output(code, bytes(out), bytes(err))


async def stream(
    kaos: Kaos,
    argv: tuple[str, ...],
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
    *,
    timeout: float,
) -> int:
    """Run a command, handing on its output as it comes; whatever ends this ends the process too."""
    process = await kaos.exec(*argv)
    pumps = [
        asyncio.create_task(_pump(process.stdout, on_stdout)),
        asyncio.create_task(_pump(process.stderr, on_stderr)),
    ]
    try:
        async with asyncio.timeout(timeout):
            process.stdin.close()
            await asyncio.gather(*pumps)
            return await process.wait()
    except BaseException:
        await _kill(process)
        raise
    finally:
        for pump in pumps:
            pump.cancel()


async def _pump(source: AsyncReadable, sink: Callable[[bytes], None]) -> None:
    # By chunk: readline() of an asyncio stream refuses lines over 64 KiB.
    while piece := await source.read(65536):
        sink(piece)


async def _kill(process: KaosProcess) -> None:
    """Kill, also while this task is being cancelled, even twice; with a deadline."""

    async def kill() -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(KILL_SECONDS):
                await process.kill()
                await process.wait()

    await settled(asyncio.create_task(kill()))


async def settled[T](task: asyncio.Task[T]) -> None:
    """Wait until the task is done, whatever it did; being cancelled does not shorten that."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if not task.cancelled():
        task.exception()
    if cancelled:
        raise asyncio.CancelledError
