"""The model as the loop sees it: counted, limited, asked again when the provider has trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from kosong.chat_provider import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
)
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from kaos_runner import events
from kaos_runner.agent.stream import CarriedError, MeteredStream
from kaos_runner.agent.wire import watching
from kaos_runner.errors import KaosRunnerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kosong.chat_provider import (
        ChatProvider,
        StreamedMessage,
        ThinkingEffort,
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
