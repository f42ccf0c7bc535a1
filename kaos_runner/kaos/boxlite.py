"""KAOS over a BoxLite box: the transport that `PosixKaos` works through."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxLostError
from kaos_runner.kaos.boxlite_process import BoxliteProcess
from kaos_runner.kaos.boxlite_relay import How, relayed
from kaos_runner.kaos.boxlite_sdk import CALL_SECONDS, call
from kaos_runner.kaos.posix import Completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from kaos_runner.kaos.boxlite_sdk import Box, Execution

QUIET_SECONDS = 5.0
"""After so long without a sign of life, the box is asked whether it is there."""

_REFUSALS = {"n": errno.ENOENT, "f": errno.EACCES, "d": errno.ENOENT}


class BoxliteTransport:
    """Runs commands in one box.

    `alive` answers whether the box is still there, and raises when its runtime does not answer.
    `on_lost` is called once, when it is found to be gone: the SDK's own waits go on for minutes.
    """

    def __init__(
        self,
        box: Box,
        *,
        env: Mapping[str, str],
        alive: Callable[[], Awaitable[bool]],
        on_lost: Callable[[SandboxLostError], None],
        on_retry: Callable[[str, int, str, float], None] = lambda *_: None,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._box = box
        self._env = list(env.items())
        self._alive = alive
        self._on_lost = on_lost
        self._on_retry = on_retry
        self._quiet_seconds = quiet_seconds
        self._last_heard = 0.0
        self._live: set[BoxliteProcess] = set()
        self._watching: asyncio.Task[None] | None = None
        self._lost: ConnectionError | None = None

    async def run(
        self, argv: Sequence[str], *, cwd: str | None, stdin: bytes | None = None
    ) -> Completed:
        """Run one command to its end.

        Raises:
            ConnectionError: the box is gone, or bytes of the answer are.
        """
        how: How = "alone" if stdin is None else "input"
        process = await self._launch(argv, cwd or "/", how)
        try:
            stdout, stderr, _ = await asyncio.gather(
                process.stdout.read(), process.stderr.read(), process.give(stdin)
            )
            return Completed(await process.wait(), stdout, stderr)
        except BaseException:
            await process.kill_hard()
            raise

    async def start(self, argv: Sequence[str], *, cwd: str) -> BoxliteProcess:
        """Start a process with streams.

        Raises:
            FileNotFoundError: there is no such program or directory.
            PermissionError: the program may not be executed.
            ConnectionError: the box is gone.
        """
        process = await self._launch(argv, cwd, "live")
        try:
            mark = await process.began() or ""
        except asyncio.CancelledError:
            await process.kill_hard()
            raise
        if (refusal := _REFUSALS.get(mark)) is not None:
            raise OSError(refusal, os.strerror(refusal), cwd if mark == "d" else argv[0])
        return process

    async def aclose(self) -> None:
        """Kill what still runs."""
        await asyncio.gather(*(process.kill_hard() for process in tuple(self._live)))
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def _launch(self, argv: Sequence[str], cwd: str, how: How) -> BoxliteProcess:
        """Start the relay; a start that is cancelled on its way is seen through and killed."""
        if self._lost is not None:
            raise self._lost
        args = relayed(list(argv), cwd, how)
        starting = asyncio.ensure_future(self._exec(args))
        try:
            execution = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting], timeout=CALL_SECONDS)
            if starting.done() and not starting.cancelled() and not starting.exception():
                await self._adopt(starting.result()).kill_hard()
            raise
        return self._adopt(execution)

    async def _exec(self, args: list[str]) -> Execution:
        try:
            execution = await call(
                "exec", lambda: self._box.exec("sh", args, self._env), on_retry=self._on_retry
            )
        except (RuntimeError, TimeoutError) as error:
            await self._check()
            if self._lost is not None:
                raise self._lost from error
            msg = f"the box refused a command: {error or 'no answer in time'}"
            raise ConnectionError(msg) from error
        self._hear()
        return execution

    def _adopt(self, execution: Execution) -> BoxliteProcess:
        process = BoxliteProcess(execution, self._tell, self._hear, self._check)
        self._live.add(process)
        process.ended.add_done_callback(lambda _: self._live.discard(process))
        if self._lost is not None:
            process.fail(self._lost)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        return process

    async def _tell(self, script: str) -> None:
        """Run a small script beside the commands: a failure of it is none of theirs."""
        if self._lost is None:
            with suppress(OSError, RuntimeError, TimeoutError):
                async with asyncio.timeout(CALL_SECONDS):
                    execution = await self._box.exec("sh", ["-c", script])
                    await execution.wait()

    def _hear(self) -> None:
        self._last_heard = asyncio.get_running_loop().time()

    async def _watch(self) -> None:
        """While something runs, ask for the box whenever it has been quiet."""
        while self._live:
            await asyncio.sleep(self._quiet_seconds)
            quiet = asyncio.get_running_loop().time() - self._last_heard
            if self._live and quiet >= self._quiet_seconds:
                await self._check()

    async def _check(self) -> None:
        """Find out whether the box is gone, and end everything if it is."""
        try:
            if await call("get box", self._alive, seconds=CALL_SECONDS / 2):
                self._hear()
                return
            reason = "it does not exist any more, or was stopped"
        except (RuntimeError, TimeoutError) as error:
            reason = str(error) or "its server does not answer"
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            message = f"the box {self._box.id} is gone: {reason}"
            self._lost = ConnectionError(message)
            self._on_lost(SandboxLostError(message, hint="run the recipe again"))
        for process in tuple(self._live):
            process.fail(self._lost)
