"""KAOS over a sprite: a transport on the SDK's asynchronous API, without its shared connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING
from weakref import WeakSet

from sprites import NetworkError, SpriteError

from kaos_runner.errors import SandboxLostError
from kaos_runner.kaos import scripts
from kaos_runner.kaos.posix import Completed
from kaos_runner.kaos.sprites_process import KILL_PATIENCE, SpriteProcess, look_at
from kaos_runner.kaos.sprites_retry import is_transient, reason_of, retrying, status_of
from kaos_runner.kaos.sprites_wire import (
    Collected,
    Wire,
    kill_command,
    launch_error,
    preamble,
)
from kaos_runner.kaos.streams import ByteReader

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

    from sprites.async_sprite import AsyncSprite

    from kaos_runner.kaos.sprites_retry import OnRetry
    from kaos_runner.kaos.sprites_wire import Sink

NAME = "sprites"
HOME = "/home/sprite"
ENVIRONMENT = {"LANG": "C.UTF-8", "TERM": "dumb"}
"""What a process has besides the sprite's own variables and the recipe's."""

_NO_ANSWER = "the Sprites service does not answer: "
LAUNCH_PATIENCE = 30.0
"""Seconds that a started process may take to tell its id."""

REPEATABLE = (scripts.PROBE, scripts.READ, scripts.READ_REST, scripts.WRITE, scripts.CHDIR)
"""File operations that may run twice: when the connection is cut, they are tried again."""


class SpritesTransport:
    """Runs commands in one sprite; each is one WebSocket and one round trip."""

    def __init__(
        self,
        sprite: AsyncSprite,
        *,
        env: Mapping[str, str],
        on_retry: OnRetry,
        on_lost: Callable[[SandboxLostError], None],
    ) -> None:
        self.sprite = sprite
        self._env = {**ENVIRONMENT, **env}
        self._on_retry = on_retry
        self._on_lost: Callable[[SandboxLostError], None] | None = on_lost
        self.losses_matter = True
        """False once the sandbox is being let go: that it is lost is no news then."""
        self._closed = False
        self._wires: WeakSet[Wire] = WeakSet()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- kaos_runner.kaos.posix.Transport

    async def run(
        self, argv: Sequence[str], *, cwd: str | None, stdin: bytes | None = None
    ) -> Completed:
        """Run one command to its end."""
        preamble(argv, cwd=cwd, env=self._env)  # what cannot be sent is refused first
        repeatable = len(argv) > 2 and argv[2].endswith(REPEATABLE)

        async def once() -> Completed:
            out, err = Collected(), Collected()
            wire = await self._connect(out, err)
            line = preamble(argv, cwd=cwd, env=self._env, mark=wire.mark)
            code = await self._settle(wire, line + (stdin or b""))
            if wire.errno:
                raise _NotStartedError(wire.errno)
            return Completed(code, bytes(out.content), bytes(err.content))

        try:
            return await retrying(
                "exec", once, self._on_retry, attempts=3 if repeatable else 1, when=_was_cut
            )
        except _NotStartedError as error:
            raise launch_error(error.code, argv, cwd) from None
        except NetworkError as error:
            raise await self._cut(error) from error

    async def start(self, argv: Sequence[str], *, cwd: str) -> SpriteProcess:
        """Start a command; returns once the program runs."""
        preamble(argv, cwd=cwd, env=self._env)
        stdout, stderr = ByteReader(), ByteReader()
        wire = await self._connect(stdout, stderr)
        line = preamble(argv, cwd=cwd, env=self._env, mark=wire.mark)
        process = SpriteProcess(self, wire, stdout, stderr)
        try:
            wire.stdin.write(line)
            async with asyncio.timeout(LAUNCH_PATIENCE):
                await wire.launched.wait()
        except BaseException:
            await self.shielded(process.kill())
            raise
        if wire.errno:
            raise launch_error(wire.errno, argv, cwd)
        if wire.errno is None:  # the connection ended, or the shell did, before the program began
            await process.wait()
        return process

    # -- one connection

    async def _connect(self, stdout: Sink, stderr: Sink) -> Wire:
        """Open a WebSocket; tried again, since nothing runs before the first line of input."""

        async def once() -> Wire:
            if self._closed:
                raise _detached()
            wire = Wire(self.sprite, stdout, stderr)
            try:
                await wire.start()
            except BaseException:
                wire.drop()
                raise
            self._wires.add(wire)
            return wire

        try:
            return await retrying("exec", once, self._on_retry, when=self._may_pass)
        except SpriteError as error:
            raise self._refused(error) from error
        except Exception as error:
            if not self._may_pass(error):
                raise
            raise self._lost(_NO_ANSWER + reason_of(error)) from error

    def _may_pass(self, error: BaseException) -> bool:
        return not self._closed and is_transient(error)

    async def _settle(self, wire: Wire, stdin: bytes) -> int:
        """Send all input and wait for the end; cancelled, the whole group is killed first."""
        wire.stdin.write(stdin)
        wire.stdin.close()
        finished = asyncio.create_task(wire.finish())
        finished.add_done_callback(look_at)
        try:
            return await asyncio.shield(finished)
        except asyncio.CancelledError:
            await self.shielded(self.kill(wire))
            raise

    async def kill(self, wire: Wire) -> None:
        """Kill a process and all that it started, also after its end; at worst, its session."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wire.launched.wait(), KILL_PATIENCE)
        with contextlib.suppress(OSError):
            pid = 0 if wire.received_exit else wire.pid
            await self.run(kill_command(wire.mark, pid), cwd=None)
        wire.mute()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wire.ended.wait(), KILL_PATIENCE)
        if not wire.ended.is_set():
            await self._kill_session(wire)

    async def _kill_session(self, wire: Wire) -> None:
        """End the session itself; the SDK has no asynchronous call for it."""
        if wire.session is None:
            return
        client = self.sprite.client
        url = f"{client.base_url}/v1/sprites/{self.sprite.name}/exec/{wire.session}/kill"
        with contextlib.suppress(Exception):  # already gone, or lost: the connection tells
            # Go's SDK sends a query, Python's a body: the service is given both.
            await client.http_client.post(
                f"{url}?signal=KILL&timeout=0s", json={"signal": "SIGKILL", "timeout": 0}
            )

    async def shielded(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` come to its end even if this task is cancelled again."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def aclose(self) -> None:
        """Close every connection; idempotent. What still runs was to be killed before."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in list(self._wires):
            wire.drop()

    # -- losses

    def _refused(self, error: SpriteError) -> OSError:
        status = status_of(error)
        if status == 404:
            return self._lost("it does not exist any more")
        if status in (401, 403):
            return self._lost("the service refuses the token")
        if is_transient(error) or (status or 0) >= 500:
            return self._lost(_NO_ANSWER + reason_of(error))
        return OSError(errno.EIO, f"the Sprites service refuses: {error}")

    async def _cut(self, error: NetworkError) -> OSError:
        """What an end before the exit code means: the sprite is gone, or only the connection."""
        if self._closed:
            return _detached()
        try:
            await retrying("get sprite", self._look, self._on_retry, attempts=3)
        except SpriteError as gone:
            return self._refused(gone)
        return ConnectionResetError(f"the connection to the sprite was cut: {error}")

    async def _look(self) -> None:
        await self.sprite.client.get_sprite(self.sprite.name)

    def _lost(self, reason: str) -> ConnectionError:
        text = f"the sprite {self.sprite.name} is lost: {reason}"
        tell, self._on_lost = self._on_lost, None
        if tell is not None and self.losses_matter:
            tell(SandboxLostError(text, hint="look at it with `sprite list`"))
        return ConnectionError(text)

    async def ended(self, wire: Wire) -> int:
        """The exit code of a started process.

        Raises:
            ConnectionError: the connection ended before it.
        """
        try:
            return await wire.finish()
        except NetworkError as error:
            raise await self._cut(error) from error


class _NotStartedError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _detached() -> ConnectionError:
    return ConnectionError("the sandbox was let go")


def _was_cut(error: BaseException) -> bool:
    return isinstance(error, NetworkError)
