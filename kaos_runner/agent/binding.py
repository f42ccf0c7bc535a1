"""The one wrapper around every tool call of a session."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from kimi_cli.soul.toolset import get_current_tool_call_or_none
from kosong.message import TextPart
from kosong.tooling import ToolError, ToolReturnValue

from kaos_runner.agent.approvals import described, first_match, subject
from kaos_runner.agent.closed import bound
from kaos_runner.agent.spec import ApprovalQuestion
from kaos_runner.errors import AgentError, KaosRunnerError
from kaos_runner.events import Approval

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from kosong.utils.typing import JsonType

    from kaos_runner.agent.facts import Facts
    from kaos_runner.agent.journal import Journal
    from kaos_runner.agent.spec import Provider, SessionSpec
    from kaos_runner.recipe.model import ApprovalRule

building: ContextVar[Binding] = ContextVar("building")
"""Set while a session is made: the SDK makes its tools, and each takes its binding from here."""

_WRITERS = frozenset({"write", "edit"})


class Binding:
    """What the tools of one session share: the sandbox that they act in, the rules they act by."""

    def __init__(
        self, spec: SessionSpec, facts: Facts, journal: Journal, provider: Provider
    ) -> None:
        self.spec = spec
        self.provider = provider
        self.facts = facts
        self.journal = journal
        self.kaos = spec.kaos
        self._locks: dict[str, asyncio.Lock] = {}
        self._asking = asyncio.Lock()
        self.running: set[asyncio.Task[Any]] = set()
        """Every call that acts now, each in its own task: the SDK may forget one when cancelled."""

    async def run(
        self,
        tool: str,
        arguments: JsonType,
        act: Callable[[JsonType], Awaitable[ToolReturnValue]],
    ) -> ToolReturnValue:
        """Decide, bind, scope, lock, act, and mask what comes of it."""
        current = get_current_tool_call_or_none()
        call_id = current.id if current else ""
        self.journal.begin_call(call_id)
        task = asyncio.current_task()
        assert task is not None  # the toolset makes one for each call
        self.running.add(task)
        try:
            result = await self._guarded(tool, arguments, act, call_id)
        except asyncio.CancelledError:
            self.journal.finish_call(call_id, ok=False, output="cancelled")
            raise
        except Exception as error:  # what the SDK makes of it, but masked
            result = ToolError(message=f"Error running tool: {error}", brief="Tool runtime error")
        finally:
            self.running.discard(task)
        result = self._masked(result)
        self.journal.finish_call(call_id, ok=not result.is_error, output=said(result))
        return result

    async def _guarded(
        self,
        tool: str,
        arguments: JsonType,
        act: Callable[[JsonType], Awaitable[ToolReturnValue]],
        call_id: str,
    ) -> ToolReturnValue:
        try:
            self.journal.check_open()
        except KaosRunnerError as error:
            return ToolError(message=error.message, brief="The run is over")
        given = arguments if isinstance(arguments, dict) else {}
        workdir, home = self.spec.workdir, self._home()
        about = subject(tool, given, workdir, home)
        if (rule := await self._denied(tool, given, about, call_id)) is not None:
            return ToolError(
                message=f"Denied by the approval rule `{described(rule)}`. Find another way.",
                brief="Denied",
            )
        async with self._locked(tool, about):
            with bound(self.kaos), self._scope(tool, given, about):
                return await act(arguments)

    def failed(self, error: Exception) -> None:
        """A subagent failed: if the provider did, so has the run."""
        from kaos_runner.agent.failures import translated

        ours = translated(error, self.provider)
        if isinstance(ours, KaosRunnerError) and not self.journal.stopping:
            self.journal.fail(ours)

    def _home(self) -> str:
        return str(self.kaos.gethome())

    # Approval

    async def _denied(
        self, tool: str, arguments: Mapping[str, Any], about: str, call_id: str
    ) -> ApprovalRule | None:
        """The rule that denies this call, if one does."""
        rule = first_match(self.spec.agent.approvals, tool, about, self.spec.workdir)
        if rule is None:
            return None
        number = self.journal.number(call_id)
        allowed, by = rule.action == "allow", "rule"
        if rule.action == "ask":
            question = ApprovalQuestion(
                call=number, tool=tool, subject=about, arguments=arguments, rule=rule
            )
            allowed, by = await self._ask(question)
        self.journal.emit(
            Approval.model_validate(
                {
                    "call": number,
                    "tool": tool,
                    "decision": "allow" if allowed else "deny",
                    "by": by,
                    "rule": described(rule),
                }
            )
        )
        return None if allowed else rule

    async def _ask(self, question: ApprovalQuestion) -> tuple[bool, str]:
        if self.spec.ask is None:
            return False, "no_terminal"
        async with self._asking:  # one question at a time
            return await self.spec.ask(question), "person"

    # Scope

    @contextlib.asynccontextmanager
    async def _locked(self, tool: str, path: str) -> AsyncIterator[None]:
        """One writer at a time for each path: of two edits in one step both are kept."""
        if tool not in _WRITERS:
            yield
            return
        async with self._locks.setdefault(path, asyncio.Lock()):
            yield

    def _scope(
        self, tool: str, arguments: Mapping[str, Any], about: str
    ) -> contextlib.AbstractContextManager[object]:
        """The Kaos' snapshot, where it has one, for the time of this call.

        What the tool will ask about is named, so that the first request fetches all of it.
        """
        snapshot = getattr(self.kaos, "snapshot", None)
        if snapshot is None:
            return contextlib.nullcontext()
        paths, globs = [], []
        if tool in ("read", "edit", "glob"):
            paths = [about]
        elif tool == "write":
            paths = [posixpath.dirname(about), about]
        pattern = arguments.get("pattern")
        if tool == "glob" and isinstance(pattern, str) and stays_inside(pattern):
            globs = [(about, pattern)]
        scope: contextlib.AbstractContextManager[object] = snapshot(paths, globs=globs)
        return scope

    # Masking

    def _masked(self, result: ToolReturnValue) -> ToolReturnValue:
        mask = self.spec.mask
        output = result.output
        masked = (
            mask(output)
            if isinstance(output, str)
            else [TextPart(text=mask(p.text)) if isinstance(p, TextPart) else p for p in output]
        )
        return result.model_copy(
            update={"output": masked, "message": mask(result.message), "display": []}
        )


def stays_inside(pattern: str) -> bool:
    """Whether a glob finds nothing but what is below its directory."""
    return bool(pattern) and not pattern.startswith("/") and ".." not in pattern.split("/")


def said(result: ToolReturnValue) -> str:
    """A result as people read it: its output, with an error's message, or the message alone."""
    output = result.output
    text = (
        output
        if isinstance(output, str)
        else "".join(p.text if isinstance(p, TextPart) else f"[{p.type}]" for p in output)
    )
    if not text:
        return result.message
    return f"{text.rstrip()}\n{result.message}" if result.is_error and result.message else text


def taken() -> Binding:
    """The binding of the session that is being made.

    Raises:
        AgentError: none is: a tool of ours never acts unbound.
    """
    try:
        return building.get()
    except LookupError:
        msg = "a tool was made outside a session"
        raise AgentError(msg) from None
