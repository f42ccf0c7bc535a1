"""One conversation with the agent, over all prompts of a run."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from kaos_runner import events
from kaos_runner.agent import cassette, facts, history
from kaos_runner.agent.journal import Journal
from kaos_runner.agent.meter import Meter
from kaos_runner.agent.preload import preload
from kaos_runner.agent.processes import KILL_SECONDS, settled
from kaos_runner.agent.spec import Turn
from kaos_runner.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kimi_agent_sdk import Session

    from kaos_runner.agent.recording import Recording
    from kaos_runner.agent.replay import Replay
    from kaos_runner.agent.spec import Provider, SessionSpec, Totals

PATIENCE_SECONDS = 5.0
"""How long a cancelled turn may take to end by itself, before its processes are killed for it."""
CANCEL_SECONDS = 20.0
"""How long it may take after that; then it is left behind, and can reach nothing any more."""


@contextlib.asynccontextmanager
async def open_session(spec: SessionSpec) -> AsyncIterator[AgentSession]:
    """Open a session; closing it ends whatever still runs.

    Raises:
        RecipeError: the cassette is invalid.
        UsageError: the recording cannot be written.
        SandboxError: the sandbox has no POSIX shell.
        AgentError: the session to resume is not there.
        CassetteDriftError: on a clean exit, when turns of the cassette were not played.
    """
    played = cassette.load(spec.replay) if spec.replay else None
    session_id, answers = history.prepare(spec)
    await preload()
    from kaos_runner.agent import replay as replaying
    from kaos_runner.agent import sdk, wire
    from kaos_runner.agent.binding import Binding
    from kaos_runner.agent.recording import Recording

    async with contextlib.AsyncExitStack() as stack:
        journal = Journal(spec.emit, Meter(spec.limits))
        provider, player, recording = spec.provider, None, None
        http = wire.cassette_client() if played else wire.provider_client(provider.type)
        if played:
            player = await stack.enter_async_context(replaying.serving(played, spec.workdir))
            player.skip(answers)
            provider = player.provider(spec.provider.max_context)
            journal.observers.append(player)
        stack.push_async_callback(http.aclose)
        if spec.record:
            recording = Recording(spec.record, provider.model, spec.workdir, spec.mask)
            recording.check()
            journal.observers.append(recording)
        binding = Binding(spec, await facts.detect(spec.kaos), journal, provider)
        sdk_session = await sdk.make(binding, provider, http, session_id)
        session = AgentSession(
            spec, sdk_session, journal, provider, player, recording, binding.running
        )
        stack.push_async_callback(session.aclose)
        yield session
        session.finish()


class AgentSession:
    """A conversation that takes one turn after another."""

    def __init__(
        self,
        spec: SessionSpec,
        session: Session,
        journal: Journal,
        provider: Provider,
        player: Replay | None,
        recording: Recording | None,
        calls: set[asyncio.Task[Any]],
    ) -> None:
        self._spec = spec
        self._session = session
        self._journal = journal
        self._provider = provider
        self._player = player
        self._recording = recording
        self._calls = calls
        self._running: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """By which `resume` finds it in its `session_dir`."""
        return self._session.id

    @property
    def usage(self) -> Totals:
        """What was used so far, subagents included."""
        return self._journal.meter.totals

    async def turn(
        self, text: str, *, prompt: int = 0, prompt_id: str | None = None, attempt: int = 1
    ) -> Turn:
        """Give the agent a text, and let it work until it is done.

        Raises:
            AgentError: the provider failed, or the agent did nothing.
            CassetteDriftError: the run left its cassette.
            LimitReachedError: a limit was reached.
            RuntimeError: another turn is running.
        """
        if self._running is not None:
            msg = "a turn is already running in this session"
            raise RuntimeError(msg)
        self._journal.begin_turn()
        self._journal.emit(
            events.TurnStarted(prompt=prompt, prompt_id=prompt_id, attempt=attempt, text=text)
        )
        await self._run(text)
        turn = Turn(
            final_message=self._journal.final_message,
            steps=self._journal.turn_steps,
            tool_calls=self._journal.turn_calls,
        )
        if not turn.final_message and not turn.tool_calls:
            msg = "the agent did nothing: no text, and no tool call"
            raise AgentError(msg, hint="run it again, or ask for something else")
        self._journal.emit(
            events.TurnFinished(
                prompt=prompt,
                prompt_id=prompt_id,
                attempt=attempt,
                final_message=turn.final_message,
                steps=turn.steps,
                tool_calls=turn.tool_calls,
            )
        )
        return turn

    async def _run(self, text: str) -> None:
        """Drive the turn in a task of its own, so that being cancelled here can end it properly."""
        running = self._running = asyncio.create_task(self._drive(text))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await settled(asyncio.create_task(self._abort(running)))
            raise
        except Exception as error:
            from kaos_runner.agent.failures import translated

            ours = translated(error, self._provider)
            raise self._cause(ours) from (error if ours is not error else None)
        finally:
            self._running = None
            self._save()
        if self._journal.failure is not None:
            raise self._journal.failure

    def _cause(self, error: BaseException) -> BaseException:
        """What went wrong first: drift comes as a refusal, a subagent's error not at all."""
        if self._player is not None and self._player.drift is not None:
            return self._player.drift
        return self._journal.failure or error

    async def _drive(self, text: str) -> None:
        from kaos_runner.agent.closed import ClosedKaos, bound

        with bound(ClosedKaos(self._spec.kaos, self._spec.workdir)):
            async with contextlib.aclosing(self._session.prompt(text)) as wire:
                async for _ in wire:
                    pass  # events come from the model and the tools, where their order is known

    async def cancel(self) -> None:
        """End the turn that runs, with its processes; its `turn` raises AgentError."""
        if (running := self._running) is not None:
            await settled(asyncio.create_task(self._abort(running)))

    async def _abort(self, running: asyncio.Task[None]) -> None:
        """Ask the turn to end: each call kills its own process; what is left is killed after it."""
        self._journal.stopping = True
        self._session.cancel()
        calls = set(self._calls)
        for call in calls:
            call.cancel()  # cancelled between two steps of its own, the SDK leaves them running
        await asyncio.wait({running, *calls}, timeout=PATIENCE_SECONDS)
        await self._kill()
        await asyncio.wait({running}, timeout=CANCEL_SECONDS)
        if not running.done():
            running.cancel()
        elif not running.cancelled():
            running.exception()  # seen: it says that it was cancelled

    async def _kill(self) -> None:
        kill_all = getattr(self._spec.kaos, "kill_all", None)
        if kill_all is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(KILL_SECONDS):
                await kill_all()

    def finish(self) -> None:
        """All prompts are done: is the cassette, too?

        Raises:
            CassetteDriftError: turns are left.
        """
        if self._player is not None:
            self._player.check_played()

    async def aclose(self) -> None:
        """End what runs, and release what the session holds. Idempotent."""
        await self.cancel()
        await self._session.close()
        self._save()

    def _save(self) -> None:
        """Write the recording, also of a turn that failed; a full disk fails no run."""
        try:
            if self._recording is not None:
                self._recording.write()
        except OSError as error:
            message = f"the recording was not written: {error}"
            self._journal.emit(events.Notice(level="error", message=message))
