"""What a failed request says of an E2B sandbox: whether it lives, and if not, what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos_runner.kaos.e2b_errors import (
    LOST_HINT,
    UNREACHABLE_HINT,
    cancellation,
    lost,
    os_error,
    reason,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2b import AsyncSandbox

    from kaos_runner.errors import SandboxLostError

PATIENCE = 30.0
"""Seconds for which an unreachable sandbox is asked again before it counts as lost."""


class Fate:
    """Asks after one sandbox, and tells once when it is lost."""

    def __init__(self, sandbox: AsyncSandbox, on_lost: Callable[[SandboxLostError], None]) -> None:
        self._sandbox = sandbox
        self._on_lost = on_lost
        self.lost: SandboxLostError | None = None

    def check(self) -> None:
        """Go on only while it is not known to be lost.

        Raises:
            ConnectionError: it is.
        """
        if self.lost is not None:
            raise ConnectionError(str(self.lost))

    async def failure(self, error: Exception) -> BaseException:
        """What a failed call means, after asking whether the sandbox still lives."""
        import e2b
        from e2b.envd.rpc import ahandle_rpc_exception_with_health, is_transport_failure

        if (cancelled := cancellation(error)) is not None:
            return cancelled
        told = await ahandle_rpc_exception_with_health(error, self._is_running)
        if isinstance(told, (e2b.SandboxNotRunningException, e2b.SandboxNotFoundException)):
            return await self._gone()
        if isinstance(told, e2b.SandboxUnreachableException):
            return await self._verdict(told)
        if isinstance(told, e2b.AuthenticationException):
            return self._give_up("does not take its access token any more")
        if is_transport_failure(error):
            return ConnectionError(f"the connection to the sandbox broke: {reason(error)}")
        return os_error(told)

    async def gone(self) -> SandboxLostError:
        """Find out what became of a sandbox that the control plane does not know any more."""
        await self._gone()
        assert self.lost is not None  # that is what was found out
        return self.lost

    async def silent(self) -> BaseException:
        """What it means that a stream has not even given a keepalive."""
        from e2b import SandboxUnreachableException

        return await self._verdict(SandboxUnreachableException("the sandbox has fallen silent"))

    async def _is_running(self) -> bool:
        return await self._sandbox.is_running(request_timeout=5)

    async def _verdict(self, error: Exception) -> BaseException:
        """Ask for a while whether the sandbox answers."""
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay
        from tenacity import wait_exponential as wait

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait(multiplier=0.5, max=5),
            stop=stop_after_delay(PATIENCE),
        )
        try:
            running: bool = await retrying(self._is_running)
        except Exception:
            return self._give_up(f"cannot be reached: {reason(error)}", UNREACHABLE_HINT)
        if not running:
            return await self._gone()
        return ConnectionError(f"the connection to the sandbox broke: {reason(error)}")

    async def _gone(self) -> BaseException:
        """Ask the control plane what became of it."""
        from e2b import SandboxNotFoundException, SandboxState

        if self.lost is not None:
            return ConnectionError(str(self.lost))
        try:
            info = await self._sandbox.get_info(request_timeout=10)
        except SandboxNotFoundException:
            return self._give_up("is gone: it was killed, or its time was up")
        except Exception as error:
            return self._give_up(f"does not run any more ({words(error)})")
        if info.state is SandboxState.PAUSED:
            return self._give_up("was paused: its time was up, or somebody paused it")
        return self._give_up("runs, but nothing in it answers")

    def _give_up(self, why: str, hint: str = LOST_HINT) -> ConnectionError:
        """Tell once that the sandbox is lost."""
        if self.lost is None:
            self.lost = lost(self._sandbox.sandbox_id, why, hint)
            self._on_lost(self.lost)
        return ConnectionError(str(self.lost))
