"""What ends a run from outside: a signal, the wall clock, a sandbox that went away."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Literal

from kaos_runner.errors import InterruptedRunError, KaosRunnerError, WallLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

GRACE = 30.0
"""Seconds that work which was cancelled gets to end."""


class Stop:
    """The first reason to stop wins; `guard` runs work until it ends or there is a reason."""

    def __init__(self, again: Callable[[], None]) -> None:
        self.reason: KaosRunnerError | None = None
        self._event = asyncio.Event()
        self._again = again
        self._deadline: float | None = None
        self._wall = 0.0

    def ask(self, reason: KaosRunnerError) -> None:
        """Ask the work to stop; a later reason is only told about."""
        if self.reason is None:
            self.reason = reason
            self._event.set()
        elif isinstance(reason, InterruptedRunError):
            self._again()

    def start_clock(self, wall: float) -> None:
        """Let the wall limit, in seconds, begin now."""
        self._wall = wall
        self._deadline = asyncio.get_running_loop().time() + wall

    def reset(self) -> None:
        """Forget the reason and the clock: what follows may be stopped anew, by a signal."""
        self.reason = self._deadline = None
        self._event.clear()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask to stop, for as long as this lasts, cleanup included."""
        loop = asyncio.get_running_loop()
        names: tuple[Literal["SIGINT", "SIGTERM"], ...] = ("SIGINT", "SIGTERM")
        installed = []
        try:
            for name in names:
                # Only the main thread can; a run in another thread is stopped by cancelling it.
                with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                    number = signal.Signals[name]
                    loop.add_signal_handler(number, self.ask, InterruptedRunError(name))
                    installed.append(number)
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    async def guard[T](self, work: Coroutine[None, None, T]) -> T:
        """The work's result; work that has to stop is cancelled and awaited.

        Raises:
            KaosRunnerError: the reason to stop, or whatever the work raised itself.
        """
        if self.reason is not None:
            work.close()
            raise self.reason
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE)
        if self.reason is not None and (not task.done() or task.cancelled() or task.exception()):
            raise self.reason
        return task.result()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._event.wait()
        except TimeoutError:
            minutes, seconds = divmod(round(self._wall), 60)
            text = f"{minutes}m{seconds:02d}s" if minutes else f"{self._wall:g}s"
            hint = "raise `limits.wall` in the recipe, or ask for less"
            self.ask(WallLimitError(f"the wall limit of {text} was reached", hint=hint))
