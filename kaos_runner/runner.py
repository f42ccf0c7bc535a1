"""The lifecycle of one run: sandbox, workspace, session, prompts, checks, artifacts, cleanup."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from kaos_runner import __version__, events
from kaos_runner.agent import preload
from kaos_runner.backends.base import Checkpointing, Labels, SandboxRequest
from kaos_runner.conversation import Conversation
from kaos_runner.errors import (
    CleanupError,
    DemandsUnmetError,
    ExitCode,
    InterruptedRunError,
    KaosRunnerError,
    SandboxError,
)
from kaos_runner.stage import Stage
from kaos_runner.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from kaos import Kaos

    from kaos_runner.backends.base import Sandbox
    from kaos_runner.conversation import Ask
    from kaos_runner.events import Bus, Phase, Status
    from kaos_runner.ledger import Ledger, State
    from kaos_runner.plan import Plan
    from kaos_runner.record import RunDirectory

SANDBOX_TIMEOUT = 300.0
WORKSPACE_TIMEOUT = 3600.0
ARTIFACTS_TIMEOUT = 600.0
CLEANUP_TIMEOUT = 60.0
KEEPALIVE = timedelta(minutes=10)
"""What a sandbox is asked to live for, renewed five times within it."""

STATUS: dict[int, Status] = {
    ExitCode.OK: "succeeded",
    ExitCode.DEMANDS_UNMET: "failed",
    ExitCode.USAGE: "invalid",
    ExitCode.PREREQUISITE: "unmet",
    ExitCode.SANDBOX: "sandbox_failed",
    ExitCode.AGENT: "agent_failed",
    ExitCode.LIMIT: "limit_reached",
    ExitCode.CLEANUP: "cleanup_failed",
    ExitCode.WALL: "timed_out",
    ExitCode.SIGINT: "interrupted",
    ExitCode.SIGTERM: "interrupted",
}


class Run:
    """One run of one plan; what goes wrong in it is told by its events and its exit code."""

    def __init__(
        self,
        plan: Plan,
        bus: Bus,
        directory: RunDirectory,
        ledger: Ledger,
        ask: Ask | None = None,
    ) -> None:
        self.plan = plan
        self.bus = bus
        self.directory = directory
        self.ledger = ledger
        self.stop = Stop(again=self._tell_patience)
        self.sandbox: Sandbox | None = None
        self.stage: Stage | None = None
        self.conversation = Conversation(plan, bus, directory, ask)
        self.failure: KaosRunnerError | None = None
        self.bug: Exception | None = None
        self.cancelled = False

    async def perform(self) -> int:
        """Run to the end, whatever happens, and give the exit code."""
        started = time.monotonic()
        self._tell_start()
        with self.stop.on_signals():
            self.stop.start_clock(self.plan.recipe.limits.wall)
            await self._try(self.stop.guard(self._work()))
            self.stop.reset()
            if self.sandbox and self.stage:
                await self._try(self.stop.guard(self._bring_home(self.sandbox, self.stage)))
            if self.sandbox:
                await self._try(self._clean_up(self.sandbox))
        return self._finish(time.monotonic() - started)

    async def _work(self) -> None:
        """All that a signal, the wall limit or a lost sandbox cuts short."""
        with self.phase("sandbox"):
            sandbox = await self._open_sandbox()
        async with self._kept_alive(sandbox):
            with self.phase("workspace"):
                self.stage = await self._prepare(sandbox)
            with installed(sandbox.kaos):
                await self.conversation.hold(sandbox, self.stage, self.phase)

    # The steps, in the order of the lifecycle.

    async def _open_sandbox(self) -> Sandbox:
        """Create or connect, while the agent's SDK is imported beside it."""
        plan = self.plan
        opening = asyncio.ensure_future(self._create() if not plan.sandbox_id else self._connect())
        # A turn of the loop: the provider's SDK is imported before the thread below starts, since
        # two imports at once wait for each other's lock.
        await asyncio.sleep(0)
        preloading = asyncio.ensure_future(preload())
        try:
            async with deadline(SANDBOX_TIMEOUT, "the sandbox was not ready"):
                sandbox = await opening
            await preloading
        except BaseException:
            opening.cancel()
            await asyncio.wait({opening, preloading})
            raise
        self.bus.emit(
            events.SandboxReady(
                backend=plan.backend.name,
                sandbox_id=sandbox.id,
                created=not plan.sandbox_id,
                workdir=str(sandbox.kaos.getcwd()),
                isolation=sandbox.isolation,
            )
        )
        if sandbox.isolation == "none":
            self._notice("warning", "nothing is isolated: commands run as you on this machine")
        return sandbox

    async def _create(self) -> Sandbox:
        """Create, with the ledger's row written before and after."""
        plan, run_id = self.plan, self.plan.run_id
        labels = Labels(
            run_id=run_id,
            recipe=plan.recipe.name,
            digest=plan.loaded.digest,
            version=__version__,
        )
        self.ledger.intend(labels, plan.backend.name, self.directory.path)
        try:
            self.sandbox = await plan.backend.create(self._request(), labels)
        except BaseException:
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
            notify=self._notice,
            on_retry=self._tell_retry,
            on_lost=self.stop.ask,
        )

    @contextlib.asynccontextmanager
    async def _kept_alive(self, sandbox: Sandbox) -> AsyncIterator[None]:
        """Renew the sandbox's time for as long as it is needed."""

        async def renew() -> None:
            while True:
                try:
                    await sandbox.keepalive(KEEPALIVE)
                except KaosRunnerError as error:
                    self._notice("warning", f"the sandbox's time was not renewed: {error}")
                await asyncio.sleep(KEEPALIVE.total_seconds() / 5)

        renewal = asyncio.ensure_future(renew())
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.wait({renewal})

    async def _prepare(self, sandbox: Sandbox) -> Stage:
        """Bring in `files`, run `setup`, and take the baseline."""
        stage = Stage(self.plan, self.bus, sandbox.kaos)
        async with deadline(WORKSPACE_TIMEOUT, "the workspace was not ready"):
            if isinstance(sandbox, Checkpointing):
                await sandbox.before_run()
            await stage.prepare()
        return stage

    async def _bring_home(self, sandbox: Sandbox, stage: Stage) -> None:
        """Collect the artifacts, also after a failure."""
        with self.phase("artifacts"):
            async with (
                self._kept_alive(sandbox),
                deadline(ARTIFACTS_TIMEOUT, "the artifacts were not home"),
            ):
                missing = await stage.bring_home(
                    self.conversation.outcomes, self.directory.artifacts
                )
            if missing and self.failure is None:
                msg = f"required artifacts are missing: {', '.join(missing)}"
                raise DemandsUnmetError(msg, hint="mark one that may be missing `optional: true`")

    async def _clean_up(self, sandbox: Sandbox) -> None:
        """Delete, keep or leave the sandbox, as policy and outcome say."""
        with self.phase("cleanup"):
            try:
                async with deadline(CLEANUP_TIMEOUT, "the sandbox was not cleaned up"):
                    ended = await self._end(sandbox)
            except Exception as error:
                command = self.plan.backend.remove_command(sandbox.id)
                self.ledger.ended(self.plan.run_id, "failed")
                reason = str(error) or type(error).__name__
                self._tell_end(sandbox, "failed", reason, command)
                msg = f"the sandbox {sandbox.id} could not be cleaned up: {reason}"
                raise CleanupError(msg, sandbox_id=sandbox.id, command=command) from error
            if not self.plan.sandbox_id:
                self.ledger.ended(self.plan.run_id, ended)

    async def _end(self, sandbox: Sandbox) -> State:
        plan = self.plan
        if not self.succeeded and isinstance(sandbox, Checkpointing):
            await sandbox.after_failure()
        come_back = plan.backend.connect_command(sandbox.id)
        if plan.sandbox_id:
            await sandbox.detach()
            self._tell_end(sandbox, "left", "the run did not create it", come_back)
            return "left"
        if plan.cleanup == "always" or (plan.cleanup == "on_success" and self.succeeded):
            await sandbox.destroy()
            self._tell_end(sandbox, "deleted", f"cleanup: {plan.cleanup}", None)
            return "deleted"
        paused = await sandbox.suspend()
        end: Literal["paused", "kept"] = "paused" if paused else "kept"
        self._tell_end(sandbox, end, f"cleanup: {plan.cleanup}", come_back)
        return "kept"

    # What went wrong.

    @property
    def succeeded(self) -> bool:
        """Whether everything has gone well so far."""
        return self.failure is None and self.bug is None

    async def _try(self, step: Awaitable[None]) -> None:
        """Await a step; the first failure is the run's, later ones are told beside it."""
        try:
            await step
        except KaosRunnerError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self.cancelled = True
            self._fail(InterruptedRunError("SIGTERM"))
        except Exception as error:
            log = "".join(traceback.format_exception(error))
            self.directory.write("bug.log", self.plan.mask(log))
            self.bug = self.bug or error

    def _fail(self, error: KaosRunnerError) -> None:
        if self.succeeded:
            self.failure = error
        else:
            self._notice("error", f"besides: {error.message}", error.hint)

    def _finish(self, seconds: float) -> int:
        """Tell the outcome; the record is complete with it."""
        code, message, hint = ExitCode.OK.value, "everything that the recipe demands holds", None
        if self.failure:
            code, message, hint = self.failure.code, self.failure.message, self.failure.hint
        elif self.bug:
            code = ExitCode.BUG.value
            message = f"a bug in kaos-runner: {type(self.bug).__name__}: {self.bug}"
            hint = f"report it with {self.directory.path / 'bug.log'}; read it first"
        usage = self.conversation.usage
        self.bus.emit(
            events.RunFinished(
                status=STATUS.get(code, "error"),
                exit_code=code,
                message=message,
                hint=hint,
                seconds=seconds,
                steps=usage.steps,
                input_tokens=usage.input,
                output_tokens=usage.output,
            )
        )
        if self.cancelled:
            raise asyncio.CancelledError
        return code

    # What is told.

    @contextlib.contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Tell when a phase begins and ends."""
        started = time.monotonic()
        self.bus.emit(events.PhaseStarted(phase=name))
        ok = False
        try:
            yield
            ok = True
        finally:
            seconds = time.monotonic() - started
            self.bus.emit(events.PhaseFinished(phase=name, seconds=seconds, ok=ok))

    def _tell_start(self) -> None:
        plan = self.plan
        self.bus.emit(
            events.RunStarted(
                recipe=plan.recipe.name,
                recipe_file=str(plan.options.recipe),
                recipe_digest=plan.loaded.digest,
                backend=plan.backend.name,
                isolation=plan.options.isolation,
                workdir=plan.recipe.workdir,
                model=plan.model.name,
                replay=plan.model.replay is not None,
                prompts=len(plan.recipe.prompts),
                run_dir=str(self.directory.path),
            )
        )
        for warning in plan.warnings:
            self._notice("warning", str(warning), warning.hint)

    def _tell_end(
        self,
        sandbox: Sandbox,
        end: Literal["deleted", "kept", "paused", "left", "failed"],
        reason: str,
        command: str | None,
    ) -> None:
        self.bus.emit(
            events.SandboxEnded(sandbox_id=sandbox.id, end=end, reason=reason, command=command)
        )

    def _tell_retry(self, operation: str, attempt: int, reason: str, wait: float) -> None:
        self.bus.emit(
            events.Retry(operation=operation, attempt=attempt, reason=reason, wait_seconds=wait)
        )

    def _tell_patience(self) -> None:
        self._notice("warning", "still cleaning up; this ends by itself, within a deadline")

    def _notice(self, level: str, message: str, hint: str | None = None) -> None:
        known: Literal["info", "warning", "error"] = (
            level if level in ("info", "warning", "error") else "info"
        )
        self.bus.emit(events.Notice(level=known, message=message, hint=hint))


@contextlib.contextmanager
def installed(kaos: Kaos) -> Iterator[None]:
    """Install `kaos` as the current KAOS, and reset it after."""
    from kaos import reset_current_kaos, set_current_kaos

    token = set_current_kaos(kaos)
    try:
        yield
    finally:
        reset_current_kaos(token)


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
