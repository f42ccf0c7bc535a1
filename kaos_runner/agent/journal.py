"""What happens in a session, in order: events go out, totals add up, the first failure stays."""

from __future__ import annotations

import json
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kaos_runner import events
from kaos_runner.errors import (
    AgentError,
    CassetteDriftError,
    KaosRunnerError,
    LimitReachedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kaos_runner.agent.meter import Meter

ROOT = "root"
conversation: ContextVar[str] = ContextVar("conversation", default=ROOT)
"""Who is speaking: `root`, or the id of the Task call whose subagent it is."""

NAMES = {
    "Shell": "shell",
    "ReadFile": "read",
    "WriteFile": "write",
    "StrReplaceFile": "edit",
    "Glob": "glob",
    "Grep": "grep",
    "SetTodoList": "todo",
    "Task": "task",
    "FetchURL": "fetch",
}
"""The recipe's name of each tool that the model knows by the SDK's."""


@dataclass(frozen=True, slots=True)
class AnswerCall:
    """A tool call of an answer, as the model wrote it."""

    id: str
    tool: str
    arguments: Mapping[str, Any] | str


@dataclass(slots=True)
class Answer:
    """One answer of the model."""

    think: str = ""
    text: str = ""
    calls: list[AnswerCall] = field(default_factory=list)
    usage: events.Usage | None = None


class Observer(Protocol):
    """Follows the model's answers and what became of its calls: a recording, or a cassette."""

    def answered(self, conversation: str, answer: Answer) -> None:
        """The model has answered."""
        ...

    def finished(self, call_id: str, ok: bool, output: str) -> None:
        """A tool call has ended.

        Raises:
            CassetteDriftError: not as the cassette says.
        """
        ...


@dataclass(slots=True)
class _Call:
    number: int
    tool: str
    subagent: bool
    began: float


class Journal:
    """One per session; synchronous, so that the order of events is that of the facts."""

    def __init__(self, emit: Callable[[events.AnyEvent], None], meter: Meter) -> None:
        self.emit = emit
        self.meter = meter
        self.observers: list[Observer] = []
        self.stopping = False
        """The turn is being cancelled: no model call and no tool call may begin."""
        self._calls: dict[str, _Call] = {}
        self._failure: KaosRunnerError | None = None
        self._warned = False
        self._text: list[str] = []
        self._before = meter.totals

    # The turn

    def begin_turn(self) -> None:
        """Forget what the last turn left; drift and limits stay."""
        self.stopping = False
        if not isinstance(self._failure, LimitReachedError | CassetteDriftError):
            self._failure = None
        self._text = []
        self._before = self.meter.totals

    @property
    def final_message(self) -> str:
        """The root agent's text since its last model call."""
        return "".join(self._text).strip()

    @property
    def turn_steps(self) -> int:
        """Model calls of this turn."""
        return self.meter.steps - self._before.steps

    @property
    def turn_calls(self) -> int:
        """Tool calls of this turn."""
        return self.meter.tool_calls - self._before.tool_calls

    # Failures

    def fail(self, error: KaosRunnerError) -> KaosRunnerError:
        """Keep the first failure: a subagent's would else end as a tool error and be forgotten."""
        if self._failure is None:
            self._failure = error
        return self._failure

    @property
    def failure(self) -> KaosRunnerError | None:
        """The failure that ends this turn."""
        return self._failure

    def check_open(self) -> None:
        """Raise unless the session may go on."""
        if self._failure is not None:
            raise self._failure
        if self.stopping:
            msg = "the turn was cancelled"
            raise AgentError(msg)

    # The model

    def step(self) -> bool:
        """A model call begins; whether it is a subagent's."""
        subagent = conversation.get() != ROOT
        try:
            number = self.meter.begin_step()
        except LimitReachedError as error:
            raise self.fail(error) from None
        self.emit(events.StepStarted(step=number, subagent=subagent))
        if not subagent:
            self._text = []
        return subagent

    def text(self, text: str, *, subagent: bool) -> None:
        """A whole piece of text: in parts, a secret could pass the mask."""
        if not subagent:
            self._text.append(text)
        if text:
            self.emit(events.Text(text=text, subagent=subagent))

    def think(self, text: str, *, subagent: bool) -> None:
        """A whole piece of thinking."""
        if text:
            self.emit(events.Think(text=text, subagent=subagent))

    def call(self, call_id: str, name: str, arguments: str | None, *, subagent: bool) -> AnswerCall:
        """A tool call, complete; it has not begun yet."""
        self.meter.tool_calls += 1
        tool = NAMES.get(name, name)
        number = self.meter.tool_calls
        self._calls[call_id] = _Call(number, tool, subagent, time.monotonic())
        parsed = _parsed(arguments)
        self.emit(
            events.ToolCall(call=number, tool=tool, arguments=_plain(parsed), subagent=subagent)
        )
        return AnswerCall(call_id, tool, parsed)

    def seen(self, call_id: str) -> bool:
        """Whether a call of this session has that id: providers may choose one twice."""
        return call_id in self._calls

    def answered(self, answer: Answer) -> None:
        """The answer is complete."""
        if answer.usage is not None:
            self.emit(answer.usage)
        for observer in self.observers:
            observer.answered(conversation.get(), answer)

    def spend(self, *, fresh: int, output: int, cache_read: int, cache_write: int) -> None:
        """Count tokens, and stop at the limit."""
        try:
            self.meter.add(
                fresh=fresh, output=output, cache_read=cache_read, cache_write=cache_write
            )
        except LimitReachedError as error:
            raise self.fail(error) from None

    def warn_unmetered(self) -> None:
        """Say once that a limit of tokens cannot be held."""
        if self._warned or not self.meter.limits_tokens:
            return
        self._warned = True
        message = "the provider reports no usage, so `limits.tokens` cannot be enforced"
        self.emit(events.Notice(level="warning", message=message))

    # The tools

    def number(self, call_id: str) -> int:
        """The number of a call within the run; 0 for one that the model never made."""
        call = self._calls.get(call_id)
        return call.number if call else 0

    def begin_call(self, call_id: str) -> None:
        """The call begins now."""
        if call := self._calls.get(call_id):
            call.began = time.monotonic()

    def finish_call(self, call_id: str, *, ok: bool, output: str) -> None:
        """The call has ended."""
        call = self._calls.get(call_id)
        if call is None:
            return
        self.emit(
            events.ToolResult(
                call=call.number,
                tool=call.tool,
                ok=ok,
                output=output,
                seconds=round(time.monotonic() - call.began, 3),
                subagent=call.subagent,
            )
        )
        for observer in self.observers:
            try:
                observer.finished(call_id, ok, output)
            except AgentError as error:
                self.fail(error)


def _parsed(arguments: str | None) -> Mapping[str, Any] | str:
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        return arguments or ""
    return value if isinstance(value, dict) else arguments or ""


def _plain(arguments: Mapping[str, Any] | str) -> dict[str, Any] | str:
    return arguments if isinstance(arguments, str) else dict(arguments)
