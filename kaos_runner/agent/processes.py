"""Processes in the sandbox that end with the call that started them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kaos import AsyncReadable, Kaos, KaosProcess

KILL_SECONDS = 10.0
"""How long a kill may take; a sandbox that does not answer must not hold up the end of a run."""

QUIET_SECONDS = 1.0
"""How long the streams of an ended command must be silent for its output to be complete."""


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
    process = await _start(kaos, argv)
    pumps = [_Pump(process.stdout, on_stdout), _Pump(process.stderr, on_stderr)]
    tasks = [asyncio.create_task(pump.run()) for pump in pumps]
    try:
        async with asyncio.timeout(timeout):
            process.stdin.close()
            code = await _ended(process, tasks)
            await _drained(pumps, tasks)
            return code
    except BaseException:
        await _kill(process)
        raise
    finally:
        _let_go(*tasks)


async def _start(kaos: Kaos, argv: tuple[str, ...]) -> KaosProcess:
    """Start a command; cancelled in the middle, it still comes to be known, and is killed."""
    starting = asyncio.ensure_future(kaos.exec(*argv))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:

        async def kill() -> None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(KILL_SECONDS):
                    await (await starting).kill()

        await settled(asyncio.create_task(kill()))
        raise


class _Pump:
    """Hands on what a stream gives, by chunk: readline() of asyncio refuses lines over 64 KiB."""

    def __init__(self, source: AsyncReadable, sink: Callable[[bytes], None]) -> None:
        self._source = source
        self._sink = sink
        self.chunks = 0

    async def run(self) -> None:
        while piece := await self._source.read(65536):
            self.chunks += 1
            self._sink(piece)


async def _ended(process: KaosProcess, tasks: Iterable[asyncio.Task[None]]) -> int:
    """Wait for the command; what breaks while its output is read is not waited through."""
    waiting = asyncio.create_task(process.wait())
    pending: set[asyncio.Task[Any]] = {waiting, *tasks}
    try:
        while not waiting.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return waiting.result()
    finally:
        _let_go(waiting)


async def _drained(pumps: Sequence[_Pump], tasks: Sequence[asyncio.Task[None]]) -> None:
    """Read to the end, unless something in the background keeps the streams open and is silent."""
    seen = -1
    while seen != (seen := sum(pump.chunks for pump in pumps)):
        done, pending = await asyncio.wait(tasks, timeout=QUIET_SECONDS)
        for task in done:
            task.result()
        if not pending:
            return


def _let_go(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
        if task.done() and not task.cancelled():
            task.exception()


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
