"""One answer of the model as it streams in: told as events, counted, and held to a proper end."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from kosong.chat_provider import ChatProviderError
from kosong.message import TextPart, ThinkPart, ToolCall

from kaos_runner import events
from kaos_runner.agent.journal import Answer
from kaos_runner.errors import AgentError, KaosRunnerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kosong.chat_provider import StreamedMessage, StreamedMessagePart, TokenUsage

    from kaos_runner.agent.journal import Journal
    from kaos_runner.agent.wire import Watch


class CarriedError(ChatProviderError):
    """One of our errors in the shape that makes the SDK cancel the step's tool calls."""

    def __init__(self, error: KaosRunnerError) -> None:
        super().__init__(error.message)
        self.error = error


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
