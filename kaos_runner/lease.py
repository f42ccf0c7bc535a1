"""One run's hold on a sandbox: opened, kept alive, and ended by policy, with the ledger told before
and after."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from kaos_runner import __version__, events
from kaos_runner.agent.preload import preload
from kaos_runner.backends.base import Checkpointing, Labels, SandboxRequest
from kaos_runner.errors import CleanupError, KaosRunnerError, SandboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kaos_runner.backends.base import Sandbox
    from kaos_runner.events import Bus
    from kaos_runner.ledger import Ledger, State
    from kaos_runner.plan import Plan
    from kaos_runner.record import RunDirectory

OPEN_TIMEOUT = 300.0
CLEANUP_TIMEOUT = 60.0
TIME_TO_LIVE = timedelta(minutes=10)
"""What a sandbox is asked to live for, renewed five times within it."""

End = Literal["deleted", "kept", "paused", "left", "failed"]


class Lease:
    """The sandbox of one run."""

    def __init__(
        self,
        plan: Plan,
        bus: Bus,
        directory: RunDirectory,
        ledger: Ledger,
        on_lost: Callable[[KaosRunnerError], None],
    ) -> None:
        self.plan = plan
        self.bus = bus
        self.directory = directory
        self.ledger = ledger
        self.on_lost = on_lost
        self.sandbox: Sandbox | None = None
        """Set as soon as there is something to clean up."""

    async def open(self) -> Sandbox:
        """Create or connect, while the agent's SDK is imported beside it."""
        opening = asyncio.ensure_future(self._connect() if self.plan.sandbox_id else self._create())
        tasks: set[asyncio.Future[Any]] = {opening}
        try:
            # A turn of the loop: the provider's SDK is imported before the thread of `preload`
            # starts, since two imports at once wait for each other's lock.
            await asyncio.sleep(0)
            preloading = asyncio.ensure_future(preload())
            tasks.add(preloading)
            async with deadline(OPEN_TIMEOUT, "the sandbox was not ready"):
                sandbox = await opening
            await preloading
        except BaseException:
            opening.cancel()
            await asyncio.wait(tasks)
            raise
        self._tell_ready(sandbox)
        return sandbox

    async def _create(self) -> Sandbox:
        plan, run_id = self.plan, self.plan.run_id
        labels = Labels(
            run_id=run_id, recipe=plan.recipe.name, digest=plan.loaded.digest, version=__version__
        )
        self.ledger.intend(labels, plan.backend.name, self.directory.path)
        try:
            self.sandbox = await plan.backend.create(self._request(), labels)
        except BaseException:
            # The backend's promise: if create raises or is cancelled, nothing is left behind.
            self.ledger.ended(run_id, "deleted")
            raise
        self.ledger.live(run_id, self.sandbox.id)
        return self.sandbox

    async def _connect(self) -> Sandbox:
        assert self.plan.sandbox_id is not None
        self.sandbox = await self.plan.backend.connect(self._request(), self.plan.sandbox_id)
        return self.sandbox

    def _request(self) -> SandboxRequest:
        plan = self.plan
        return SandboxRequest(
            recipe=plan.recipe,
            environ=plan.environ,
            secrets=plan.secrets,
            isolation=plan.options.isolation,
            allow_unisolated=plan.model.shipped,
            notify=self.bus.notice,
            on_retry=self._tell_retry,
            on_lost=self.on_lost,
        )

    @contextlib.asynccontextmanager
    async def kept_alive(self, sandbox: Sandbox) -> AsyncIterator[None]:
        """Renew the sandbox's time for as long as it is needed."""

        async def renew() -> None:
            while True:
                try:
                    await sandbox.keepalive(TIME_TO_LIVE)
                except KaosRunnerError as error:
                    self.bus.notice("warning", f"the sandbox's time was not renewed: {error}")
                await asyncio.sleep(TIME_TO_LIVE.total_seconds() / 5)

        renewal = asyncio.ensure_future(renew())
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.wait({renewal})

    async def end(self, sandbox: Sandbox, *, succeeded: bool) -> None:
        """Delete, keep or leave the sandbox, as policy and outcome say.

        Raises:
            CleanupError: it could not be done; says what is left, and the command that removes it.
        """
        try:
            async with deadline(CLEANUP_TIMEOUT, "the sandbox was not cleaned up"):
                state = await self._end(sandbox, succeeded=succeeded)
        except Exception as error:
            command = self.plan.backend.remove_command(sandbox.id)
            self.ledger.ended(self.plan.run_id, "failed")
            reason = str(error) or type(error).__name__
            self._tell_end(sandbox, "failed", reason, command)
            msg = f"the sandbox {sandbox.id} could not be cleaned up: {reason}"
            raise CleanupError(msg, sandbox_id=sandbox.id, command=command) from error
        if not self.plan.sandbox_id:
            self.ledger.ended(self.plan.run_id, state)

    async def _end(self, sandbox: Sandbox, *, succeeded: bool) -> State:
        plan = self.plan
        if not succeeded and isinstance(sandbox, Checkpointing):
            await sandbox.after_failure()
        come_back = plan.backend.connect_command(sandbox.id)
        if plan.sandbox_id:
            await sandbox.detach()
            self._tell_end(sandbox, "left", "the run did not create it", come_back)
            return "left"
        if plan.cleanup == "always" or (plan.cleanup == "on_success" and succeeded):
            await sandbox.destroy()
            self._tell_end(sandbox, "deleted", f"cleanup: {plan.cleanup}", None)
            return "deleted"
        paused = await sandbox.suspend()
        self._tell_end(
            sandbox, "paused" if paused else "kept", f"cleanup: {plan.cleanup}", come_back
        )
        return "kept"

    def _tell_ready(self, sandbox: Sandbox) -> None:
        self.bus.emit(
            events.SandboxReady(
                backend=self.plan.backend.name,
                sandbox_id=sandbox.id,
                created=not self.plan.sandbox_id,
                workdir=str(sandbox.kaos.getcwd()),
                isolation=sandbox.isolation,
                remove=None
                if self.plan.sandbox_id
                else self.plan.backend.remove_command(sandbox.id),
            )
        )
        if sandbox.isolation == "none":
            self.bus.notice("warning", "nothing is isolated: commands run as you on this machine")

    def _tell_end(self, sandbox: Sandbox, end: End, reason: str, command: str | None) -> None:
        self.bus.emit(
            events.SandboxEnded(sandbox_id=sandbox.id, end=end, reason=reason, command=command)
        )

    def _tell_retry(self, operation: str, attempt: int, reason: str, wait: float) -> None:
        self.bus.emit(
            events.Retry(operation=operation, attempt=attempt, reason=reason, wait_seconds=wait)
        )


@contextlib.asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Turn a step that takes too long into a sandbox error."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        msg = f"{what} within {seconds:g} seconds"
        raise SandboxError(msg) from error
