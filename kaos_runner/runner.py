"""The lifecycle of one run: sandbox, workspace, session, prompts, checks, artifacts, cleanup."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from typing import TYPE_CHECKING

from kaos_runner import events
from kaos_runner.backends.base import Checkpointing
from kaos_runner.conversation import Conversation
from kaos_runner.errors import DemandsUnmetError, ExitCode, InterruptedRunError, KaosRunnerError
from kaos_runner.lease import Lease, deadline
from kaos_runner.stage import Stage
from kaos_runner.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from kaos import Kaos

    from kaos_runner.backends.base import Sandbox
    from kaos_runner.conversation import Ask
    from kaos_runner.events import Bus, Status
    from kaos_runner.ledger import Ledger
    from kaos_runner.plan import Plan
    from kaos_runner.record import RunDirectory

WORKSPACE_TIMEOUT = 3600.0
ARTIFACTS_TIMEOUT = 600.0
LEAVE_TIMEOUT = 15.0

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
        self.stop = Stop(again=self._tell_patience)
        self.lease = Lease(plan, bus, directory, ledger, on_lost=self.stop.ask)
        self.stage: Stage | None = None
        self.conversation = Conversation(plan, bus, directory, ask)
        self.failure: KaosRunnerError | None = None
        self.bug: Exception | None = None
        self.cancelled = False

    async def perform(self) -> int:
        """Run to the end, whatever happens, and give the exit code.

        Signals are the caller's: `with run.stop.on_signals()` makes them end this run.
        """
        started = time.monotonic()
        self._tell_start()
        self.stop.start_clock(self.plan.recipe.limits.wall)
        await self._try(self.stop.guard(self._work()))
        self.stop.reset()
        if self.lease.sandbox and self.stage:
            await self._try(self.stop.guard(self._bring_home(self.lease.sandbox, self.stage)))
        if self.lease.sandbox:
            await self._try(self._clean_up(self.lease.sandbox))
        return self._finish(time.monotonic() - started)

    async def _work(self) -> None:
        """All that a signal, the wall limit or a lost sandbox cuts short."""
        with self.bus.phase("prepare"):
            await Stage.examine(self.plan)
        with self.bus.phase("sandbox"):
            sandbox = await self.lease.open()
        async with self.lease.kept_alive(sandbox):
            with self.bus.phase("workspace"):
                self.stage = await self._prepare(sandbox)
            with installed(sandbox.kaos):
                await self.conversation.hold(sandbox, self.stage)

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
        with self.bus.phase("artifacts"):
            async with (
                self.lease.kept_alive(sandbox),
                deadline(ARTIFACTS_TIMEOUT, "the artifacts were not home"),
            ):
                outcomes = self.conversation.outcomes
                missing = await stage.bring_home(outcomes, self.directory.artifacts)
            if missing and self.succeeded:
                msg = f"required artifacts are missing: {', '.join(missing)}"
                raise DemandsUnmetError(msg, hint="mark one that may be missing `optional: true`")

    async def _clean_up(self, sandbox: Sandbox) -> None:
        """End the hold on the sandbox; a signal does not cut this short."""
        with self.bus.phase("cleanup"):
            if self.stage:
                # A sandbox that cannot do this any more is about to say so itself.
                with contextlib.suppress(KaosRunnerError, OSError, TimeoutError):
                    async with asyncio.timeout(LEAVE_TIMEOUT):
                        await self.stage.leave()
            await self.lease.end(sandbox, succeeded=self.succeeded)

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
            self.bus.notice("error", f"besides: {error.message}", error.hint)

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
            self.bus.notice("warning", str(warning), warning.hint)

    def _tell_patience(self) -> None:
        self.bus.notice("warning", "still cleaning up; this ends by itself, within a deadline")


@contextlib.contextmanager
def installed(kaos: Kaos) -> Iterator[None]:
    """Install `kaos` as the current KAOS, and reset it after."""
    from kaos import reset_current_kaos, set_current_kaos

    token = set_current_kaos(kaos)
    try:
        yield
    finally:
        reset_current_kaos(token)
