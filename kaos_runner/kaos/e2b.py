"""KAOS in an E2B sandbox: a transport over envd's process service.

Every file operation is one request. Envd's own file API would be one, too, but it acts as root,
makes parents and does not tell ENOTDIR: it does not behave as a local file system does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from typing import TYPE_CHECKING

from kaos_runner.kaos import scripts
from kaos_runner.kaos.e2b_process import LAUNCH, E2bProcess, Marks, exit_code, launched
from kaos_runner.kaos.posix import Completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from kaos import KaosProcess
    from tenacity import RetryCallState

    from kaos_runner.kaos.e2b_envd import Envd
    from kaos_runner.kaos.e2b_stream import Stream

    type OnRetry = Callable[[str, int, str, float], None]

INLINE = 90_000
"""Bytes of stdin that travel in argv; as base64 they stay below Linux' 128 KiB for one argument."""

ATTEMPTS = 4

_REPEATABLE = (scripts.PROBE, scripts.READ, scripts.WRITE, scripts.CHDIR)

# BASE64 COMMAND...: the command with the decoded bytes as its stdin
_FED = r"""printf %s "$1" | base64 -d | { shift; exec "$@"; }"""


class E2bTransport:
    """Runs commands in one sandbox, each in a session of its own."""

    def __init__(self, envd: Envd, on_retry: OnRetry = lambda *_: None) -> None:
        self.envd = envd
        self._on_retry = on_retry
        self._processes: set[E2bProcess] = set()

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None,
        stdin: bytes | None = None,
        repeatable: bool = False,
    ) -> Completed:
        """Run a command to its end: one request, three where stdin is long.

        What is `repeatable`, as most file operations are, is tried again when a connection breaks.
        """
        repeatable = repeatable or (len(argv) > 2 and argv[2].endswith(_REPEATABLE))
        return await self._tried(lambda: self._run(argv, cwd, stdin), repeatable=repeatable)

    async def _run(self, argv: Sequence[str], cwd: str | None, stdin: bytes | None) -> Completed:
        if stdin is not None and len(stdin) <= INLINE:
            text = base64.b64encode(stdin).decode()
            argv, stdin = ["/bin/sh", "-c", _FED, "sh", text, *argv], None
        words = ["setsid", *argv]
        stream = await self.envd.start(words, cwd=cwd or "/", stdin=stdin is not None)
        try:
            if stdin is None:
                return await _collected(stream)
            return await self._fed(stream, stdin)
        except (asyncio.CancelledError, ConnectionError):
            with contextlib.suppress(OSError):
                await self.envd.kill(stream.pid)
            raise
        finally:
            await stream.aclose()

    async def _tried[T](self, call: Callable[[], Awaitable[T]], *, repeatable: bool) -> T:
        """Call again what was refused for want of room, and what may be repeated."""
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
        from tenacity import wait_exponential_jitter as wait

        def passes(error: BaseException) -> bool:
            broke = repeatable and isinstance(error, ConnectionError)
            return isinstance(error, BlockingIOError) or (broke and self.envd.fate.lost is None)

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0.0
            self._on_retry("exec", state.attempt_number, str(error), seconds)

        retrying = AsyncRetrying(
            retry=retry_if_exception(passes),
            wait=wait(initial=0.2, max=5),
            stop=stop_after_attempt(ATTEMPTS),
            before_sleep=tell,
            reraise=True,
        )
        return await retrying(call)

    async def _fed(self, stream: Stream, data: bytes) -> Completed:
        """Send stdin while the output is read; without all of it the command must not go on."""
        failures: list[OSError] = []

        async def feed() -> None:
            try:
                await self.envd.send(stream.pid, data)
                await self.envd.close_stdin(stream.pid)
            except OSError as error:
                failures.append(error)
                with contextlib.suppress(OSError):
                    await self.envd.kill(stream.pid)

        feeding = asyncio.create_task(feed())
        try:
            done = await _collected(stream)
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})
        if failures and done.exit_code < 0:
            raise failures[0]  # otherwise it has ended by itself, without reading to the end
        return done

    async def start(self, argv: Sequence[str], *, cwd: str) -> KaosProcess:
        """Start a command in one request; it is known to run when this returns."""
        return await self._tried(lambda: self._start(argv, cwd), repeatable=False)

    async def _start(self, argv: Sequence[str], cwd: str) -> KaosProcess:
        mark = f"\x1e{secrets.token_hex(8)}\x1e"
        words = ["setsid", "/bin/sh", "-c", LAUNCH, "sh", mark, cwd, *argv]
        stream = await self.envd.start(words, cwd="/", stdin=True)
        marks = Marks(mark.encode())
        try:
            early = await launched(stream, marks, argv[0], cwd)
        except BaseException:
            await self.envd.kill(stream.pid)
            await stream.aclose()
            raise
        process = E2bProcess(self.envd, stream, marks, early)
        self._processes.add(process)
        process.task.add_done_callback(lambda _: self._processes.discard(process))
        return process

    async def aclose(self) -> None:
        """Let go of the streams that are still open: of what goes on in the background."""
        for process in list(self._processes):
            await process.abandon()


async def _collected(stream: Stream) -> Completed:
    output: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    while isinstance(event := await stream.next(), tuple):
        output[event[0]].append(event[1])
    return Completed(exit_code(event), *(b"".join(chunks) for chunks in output.values()))
