"""One session for all prompts: turns, checks, retries with the failing output fed back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kaos_runner import events, output
from kaos_runner.agent import Provider, SessionSpec, Totals, open_session
from kaos_runner.errors import DemandsUnmetError
from kaos_runner.recipe.render import PromptOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kaos_runner.agent import AgentSession, ApprovalQuestion
    from kaos_runner.backends.base import Sandbox
    from kaos_runner.events import Bus
    from kaos_runner.plan import Plan
    from kaos_runner.recipe.model import Prompt
    from kaos_runner.record import RunDirectory
    from kaos_runner.stage import Stage

    type Ask = Callable[[ApprovalQuestion], Awaitable[bool]]


class Conversation:
    """Carries out a recipe's prompts and checks in one session."""

    def __init__(self, plan: Plan, bus: Bus, directory: RunDirectory, ask: Ask | None) -> None:
        self.plan = plan
        self.bus = bus
        self.directory = directory
        self.ask = ask
        self.outcomes: list[PromptOutcome] = []
        self._session: AgentSession | None = None

    @property
    def usage(self) -> Totals:
        """Model calls and tokens so far."""
        return self._session.usage if self._session else Totals()

    async def hold(self, sandbox: Sandbox, stage: Stage) -> None:
        """Give every prompt to the agent, then try the recipe's own checks.

        Raises:
            DemandsUnmetError: a check or an output schema does not hold, retries included.
            AgentError: the agent failed.
            LimitReachedError: a limit of the recipe was reached.
        """
        async with contextlib.AsyncExitStack() as stack:
            with self.bus.phase("session"):
                session = await stack.enter_async_context(open_session(self._spec(sandbox)))
                self._session = session
            with self.bus.phase("prompts"):
                for index in range(len(self.plan.recipe.prompts)):
                    await self._prompt(session, stage, index)
        with self.bus.phase("checks"):
            await self._final_checks(stage)

    async def _prompt(self, session: AgentSession, stage: Stage, index: int) -> None:
        """One prompt: turns until its checks hold, or until its retries are used up."""
        prompt = self.plan.rendered.prompt(index, self.outcomes)
        await stage.mark()
        text, attempt = _text(prompt), 1
        while True:
            turn = await session.turn(text, prompt=index, prompt_id=prompt.id, attempt=attempt)
            value, failures = await self._demands(stage, prompt, index, attempt, turn.final_message)
            if not failures or attempt > prompt.retry:
                break
            text, attempt = _feedback(failures, prompt), attempt + 1
        status = "failed" if failures else "succeeded"
        self.outcomes.append(
            PromptOutcome(
                id=prompt.id, final_message=turn.final_message, output=value, status=status
            )
        )
        self.bus.emit(
            events.PromptFinished(
                prompt=index,
                prompt_id=prompt.id,
                status="failed" if failures else "succeeded",
                attempts=attempt,
                final_message=turn.final_message,
                output=value,
            )
        )
        if failures:
            name = prompt.id or f"prompts[{index}]"
            raise _unmet([f.name for f in failures], f" of prompt {name}")

    async def _demands(
        self, stage: Stage, prompt: Prompt, index: int, attempt: int, message: str
    ) -> tuple[Any, list[events.CheckFinished]]:
        """The turn's structured output, and every demand that does not hold."""
        value = None
        results = []
        if prompt.output:
            value, fault = output.parse(message, prompt.output.schema_)
            place = stage.place(("prompts", index, "output"))
            results.append(
                events.CheckFinished(
                    name="output schema",
                    kind="output",
                    prompt=index,
                    attempt=attempt,
                    ok=fault is None,
                    detail=fault or "valid",
                    seconds=0,
                    **place,
                )
            )
            self.bus.emit(results[0])
        for number, check in enumerate(prompt.checks):
            where = ("prompts", index, "checks", number)
            results.append(await stage.check(check, where, prompt=index, attempt=attempt))
        return value, [result for result in results if not result.ok]

    async def _final_checks(self, stage: Stage) -> None:
        checks = self.plan.rendered.checks(self.outcomes)
        results = [
            await stage.check(check, ("checks", number), prompt=None, attempt=1)
            for number, check in enumerate(checks)
        ]
        if failed := [result.name for result in results if not result.ok]:
            raise _unmet(failed)

    def _spec(self, sandbox: Sandbox) -> SessionSpec:
        plan = self.plan
        return SessionSpec(
            agent=plan.recipe.agent,
            provider=Provider(
                type=plan.model.provider,
                base_url=plan.model.base_url,
                api_key=plan.model.api_key or "",
                api_key_env=plan.model.api_key_env,
                model=plan.model.name,
                max_context=plan.model.max_context,
            ),
            kaos=sandbox.kaos,
            backend=plan.backend.name,
            isolation=sandbox.isolation,
            workdir=str(sandbox.kaos.getcwd()),
            limits=plan.recipe.limits,
            emit=self.bus.emit,
            mask=plan.mask,
            ask=self.ask,
            session_dir=self.directory.session,
            replay=plan.model.replay,
            record=plan.options.record,
            resume=None,
        )


def _text(prompt: Prompt) -> str:
    assert isinstance(prompt.text, str), "a text file is read by the loader"
    return prompt.text + (output.instruction(prompt.output.schema_) if prompt.output else "")


def _feedback(failures: list[events.CheckFinished], prompt: Prompt) -> str:
    """What the agent is told after failed checks: what was tried, and its output."""
    parts = [f"{failure.name}:\n{failure.detail}" for failure in failures]
    again = output.instruction(prompt.output.schema_) if prompt.output else ""
    return (
        "Your work was checked, and this does not hold yet. Find the cause and mend it; "
        "do not weaken the check.\n\n" + "\n\n".join(parts) + again
    )


def _unmet(names: list[str], whose: str = "") -> DemandsUnmetError:
    plural = "checks" if len(names) > 1 else "check"
    return DemandsUnmetError(f"{len(names)} {plural}{whose} failed: {', '.join(names)}")
