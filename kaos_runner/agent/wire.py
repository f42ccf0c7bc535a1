"""The HTTP client under the provider's SDK, and what its bytes tell that the SDK keeps back."""

from __future__ import annotations

import contextlib
import re
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import httpx

from kaos_runner.agent.journal import conversation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kosong.chat_provider import ChatProvider

CONVERSATION_HEADER = "X-Kaos-Runner-Conversation"
"""Tells the cassette's server who asks. No provider is sent it."""

# One per protocol. A text that holds such words is escaped in JSON, and so does not match.
_FINISH = re.compile(
    rb'"(?:finish_reason|stop_reason|finishReason)"\s*:\s*"(\w+)"'
    rb'|"type"\s*:\s*"response\.(completed|incomplete|failed)"'
)
_LONGEST_MARK = 128
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


class Watch:
    """Whether an answer's stream came to its proper end."""

    def __init__(self) -> None:
        self.attached = False
        """False: the client beneath is not ours, and nothing is known."""
        self.finish: str | None = None
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Look for the end in the bytes of the stream."""
        window = self._tail + chunk
        for match in _FINISH.finditer(window):
            self.finish = (match.group(1) or match.group(2)).decode()
        self._tail = window[-_LONGEST_MARK:]


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Watch the request that is sent inside."""
    watch = Watch()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


@cache
def _watched_class(base: type[Any]) -> type[Any]:
    """A stream class of the same library: not every provider's SDK has httpx itself beneath."""

    def __init__(self: Any, inner: Any, watch: Watch) -> None:
        self.inner, self.watch = inner, watch

    async def __aiter__(self: Any) -> AsyncIterator[bytes]:
        async for chunk in self.inner:
            self.watch.feed(chunk)
            yield chunk

    async def aclose(self: Any) -> None:
        await self.inner.aclose()

    body = {"__init__": __init__, "__aiter__": __aiter__, "aclose": aclose}
    return type("WatchedStream", (base,), body)


async def _watch_response(response: Any) -> None:
    watch = _watch.get()
    kind = response.headers.get("content-type", "")
    plain = response.headers.get("content-encoding", "identity") == "identity"
    bases = [cls for cls in type(response.stream).__mro__ if cls.__name__ == "AsyncByteStream"]
    if watch is not None and plain and bases and kind.startswith("text/event-stream"):
        watch.attached = True
        response.stream = _watched_class(bases[0])(response.stream, watch)


async def _name_conversation(request: httpx.Request) -> None:
    request.headers[CONVERSATION_HEADER] = conversation.get()


def provider_client(kind: str) -> httpx.AsyncClient:
    """A client with the limits and timeouts of the provider's SDK, and the host's proxies."""
    hooks: dict[str, Any] = {"response": [_watch_response]}
    headers = {"Accept-Encoding": "identity"}
    if kind == "anthropic":
        import anthropic

        client: Any = anthropic.DefaultAsyncHttpxClient(event_hooks=hooks, headers=headers)
        return cast("httpx.AsyncClient", client)
    import openai

    return openai.DefaultAsyncHttpxClient(event_hooks=hooks, headers=headers)


def cassette_client() -> httpx.AsyncClient:
    """A client for our own server on loopback: nothing of the host's environment applies."""
    return httpx.AsyncClient(
        trust_env=False,
        verify=False,  # plain HTTP: loading certificates would cost more than the session
        timeout=60,
        event_hooks={"request": [_name_conversation], "response": [_watch_response]},
        headers={"Accept-Encoding": "identity"},
    )


def rewire(provider: ChatProvider, http: httpx.AsyncClient) -> None:
    """Put our HTTP client under a provider, and leave retries to us: two loops would multiply them.

    Google's SDK takes no such client; there the end of a stream is not watched.
    """
    for name in ("client", "_client"):
        client: Any = getattr(provider, name, None)
        if type(client).__name__ in ("AsyncOpenAI", "AsyncAnthropic"):
            setattr(provider, name, client.with_options(http_client=http, max_retries=0))
