"""The model as the loop sees it: counted, limited, told as events, and a cut stream noticed."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Self

from kosong.chat_provider import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ChatProviderError,
)
from kosong.message import TextPart, ThinkPart, ToolCall
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from kaos_runner import events
from kaos_runner.agent.journal import Answer
from kaos_runner.agent.wire import Watch, watching
from kaos_runner.errors import AgentError, KaosRunnerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kosong.chat_provider import (
        ChatProvider,
        StreamedMessage,
        StreamedMessagePart,
        ThinkingEffort,
        TokenUsage,
    )
    from kosong.message import Message
    from kosong.tooling import Tool
    from tenacity import RetryCallState

    from kaos_runner.agent.journal import Journal

ATTEMPTS = 4
LONGEST_WAIT = 60.0
"""Seconds; what a provider's Retry-After asks for beyond it is not waited for."""
_COMPACTION = "You are a helpful assistant that compacts"
"""How the SDK's prompt for shortening a conversation begins (`kimi_cli.soul.compaction`)."""
_TRANSIENT = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


class CarriedError(ChatProviderError):
    """One of our errors in the shape that makes the SDK cancel the step's tool calls."""

    def __init__(self, error: KaosRunnerError) -> None:
        super().__init__(error.message)
        self.error = error


class MeteredProvider:
    """A chat provider around the real one; the agent, its subagents and compaction share it."""

    def __init__(self, inner: ChatProvider, journal: Journal) -> None:
        self.name = inner.name
        self._inner = inner
        self._journal = journal

    @property
    def model_name(self) -> str:
        """As the real one."""
        return self._inner.model_name

    @property
    def thinking_effort(self) -> ThinkingEffort | None:
        """As the real one."""
        return self._inner.thinking_effort

    def with_thinking(self, effort: ThinkingEffort) -> Self:
        """As the real one."""
        return type(self)(self._inner.with_thinking(effort), self._journal)

    async def generate(
        self, system_prompt: str, tools: Sequence[Tool], history: Sequence[Message]
    ) -> MeteredStream:
        """Begin a model call, unless a limit or a failure forbids it.

        Raises:
            CarriedError: it does.
            ChatProviderError: the provider refused, or cannot be reached.
        """
        try:
            self._journal.check_open()
            subagent = self._journal.step()
        except KaosRunnerError as error:
            raise CarriedError(error) from None
        with watching() as watch:
            stream = await self._open(system_prompt, tools, history)
        quiet = system_prompt.startswith(_COMPACTION)
        known = frozenset(tool.name for tool in tools)
        return MeteredStream(stream, self._journal, watch, known, subagent=subagent, quiet=quiet)

    async def _open(
        self, system_prompt: str, tools: Sequence[Tool], history: Sequence[Message]
    ) -> StreamedMessage:
        retrying = AsyncRetrying(
            retry=retry_if_exception(_transient),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_wait,
            before_sleep=self._tell,
            reraise=True,
        )
        return await retrying(self._inner.generate, system_prompt, tools, history)

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        self._journal.emit(
            events.Retry(
                operation="model call",
                attempt=state.attempt_number,
                reason=str(error),
                wait_seconds=round(wait, 3),
            )
        )


def _transient(error: BaseException) -> bool:
    if isinstance(error, APIStatusError):
        asked = _retry_after(error)
        return error.status_code in _TRANSIENT and (asked is None or asked <= LONGEST_WAIT)
    return isinstance(error, APIConnectionError | APITimeoutError)


_backoff = wait_exponential_jitter(initial=0.5, max=20, jitter=0.5)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = _retry_after(error) if error else None
    return _backoff(state) if asked is None else asked


def _retry_after(error: BaseException) -> float | None:
    """What the provider's answer asks for, in seconds; the SDK's error keeps it as its cause."""
    response = getattr(error.__cause__, "response", None)
    value = response.headers.get("retry-after") if response is not None else None
    try:
        return max(float(value), 0.0) if value is not None else None
    except ValueError:
        return None


class MeteredStream:
    """One answer as it comes: pieces go on at once, events tell of whole texts and calls only."""

    def __init__(
        self,
        inner: StreamedMessage,
        journal: Journal,
        watch: Watch,
        known: frozenset[str],
        *,
        subagent: bool,
        quiet: bool,
    ) -> None:
        self._inner = inner
        self._journal = journal
        self._watch = watch
        self._known = known
        self._subagent = subagent
        self._quiet = quiet
        self._answer = Answer()
        self._open: TextPart | ThinkPart | ToolCall | None = None

    @property
    def id(self) -> str | None:
        """As the real one."""
        return self._inner.id

    @property
    def usage(self) -> TokenUsage | None:
        """As the real one."""
        return self._inner.usage

    async def __aiter__(self) -> AsyncIterator[StreamedMessagePart]:
        """The pieces.

        Raises:
            CarriedError: the stream was cut short, or a limit was reached.
            ChatProviderError: the provider failed in the middle.
        """
        try:
            async for part in self._inner:
                self._take(part)
                yield part
        except ChatProviderError:
            self._flush_text()
            raise
        try:
            self._end()
        except KaosRunnerError as error:
            raise CarriedError(error) from None

    def _take(self, part: StreamedMessagePart) -> None:
        """Follow what the loop will make of the pieces: it merges neighbours of one kind."""
        if isinstance(part, ToolCall):
            if not part.id or self._journal.seen(part.id) or self._used(part.id):
                part.id = f"call_{uuid.uuid4().hex}"  # the SDK and we tell calls apart by it
        elif self._open is not None and self._open.merge_in_place(part):
            return
        self._flush()
        if isinstance(part, TextPart | ThinkPart | ToolCall):
            self._open = part.model_copy(deep=True)

    def _used(self, call_id: str) -> bool:
        return isinstance(self._open, ToolCall) and self._open.id == call_id

    def _flush(self) -> None:
        part, self._open = self._open, None
        if isinstance(part, TextPart):
            self._answer.text += part.text
            if not self._quiet:
                self._journal.text(part.text, subagent=self._subagent)
        elif isinstance(part, ThinkPart):
            self._answer.think += part.think
            if not self._quiet:
                self._journal.think(part.think, subagent=self._subagent)
        elif isinstance(part, ToolCall):
            self._flush_call(part)

    def _flush_call(self, part: ToolCall) -> None:
        name, arguments = part.function.name, part.function.arguments
        call = self._journal.call(part.id, name, arguments, subagent=self._subagent)
        self._answer.calls.append(call)
        # These two the loop answers itself; every other call reaches a tool of ours.
        if name not in self._known:
            self._journal.finish_call(part.id, ok=False, output=f"Tool `{name}` not found")
        elif isinstance(call.arguments, str) and not _is_json(call.arguments):
            self._journal.finish_call(part.id, ok=False, output="The arguments are not JSON")

    def _flush_text(self) -> None:
        if not isinstance(self._open, ToolCall):
            self._flush()
        self._open = None

    def _end(self) -> None:
        """The stream is over: is the answer complete, and what did it cost?"""
        if self._watch.attached and self._watch.finish is None:
            self._flush_text()
            msg = "the provider's stream was cut short: the answer has no end"
            raise AgentError(msg, hint="run it again; a proxy on the way may close long answers")
        self._flush()
        if self._watch.finish in ("length", "max_tokens", "MAX_TOKENS") and not self._answer.calls:
            msg = "the answer was cut off at the provider's limit of output tokens"
            raise AgentError(msg, hint="ask for less in one prompt")
        if self._watch.finish in ("content_filter", "refusal", "SAFETY"):
            msg = f"the provider withheld the answer ({self._watch.finish})"
            raise AgentError(msg)
        usage = self._inner.usage
        if usage is not None:
            self._answer.usage = events.Usage(
                input=usage.input,
                output=usage.output,
                cache_read=usage.input_cache_read,
                cache_write=usage.input_cache_creation,
                subagent=self._subagent,
            )
        else:
            self._journal.warn_unmetered()
        self._journal.answered(self._answer)
        if usage is not None:
            self._journal.spend(
                fresh=usage.input_other,
                output=usage.output,
                cache_read=usage.input_cache_read,
                cache_write=usage.input_cache_creation,
            )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
