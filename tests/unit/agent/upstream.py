"""A scripted provider on loopback: the OpenAI chat-completions stream, and its failures."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kaos_runner.agent import Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_ids = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of the model, or one failure."""

    text: str | list[str] = ""
    """Several pieces are sent as such."""
    think: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    """Names and arguments, as the SDK's tools have them."""
    ids: tuple[str, ...] = ()
    usage: tuple[int, int, int] | None = (100, 10, 0)
    """Input, output, and the part of the input that was cached."""
    finish: str | None = "stop"
    """None: the stream ends without saying so."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "no"
    abort: bool = False
    """The connection is cut in the middle of the answer."""
    hang: bool = False


type Replies = list[Reply] | Callable[[dict[str, Any]], Reply]


def call(name: str, **arguments: Any) -> tuple[str, Any]:
    """A tool call."""
    return name, arguments


class Upstream:
    """Answers with the replies in turn, or with what a function makes of the request."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    @property
    def provider(self) -> Provider:
        return Provider(base_url=self.url, api_key="key-of-the-recipe", model="scripted")

    def _reply(self, body: dict[str, Any]) -> Reply:
        if callable(self._replies):
            return self._replies(body)
        return self._replies.pop(0) if self._replies else Reply(status=418, message="no more")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        reply = self._reply(body)
        if reply.status != 200:
            return web.json_response(
                {"error": {"message": reply.message}}, status=reply.status, headers=reply.headers
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in _chunks(reply):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        if reply.hang:
            await asyncio.sleep(3600)
        if reply.abort:
            assert request.transport
            request.transport.close()
            return response
        if reply.finish:
            await response.write(b"data: [DONE]\n\n")
        return response


def _chunks(reply: Reply) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    if reply.think:
        deltas.append({"reasoning_content": reply.think})
    pieces = [reply.text] if isinstance(reply.text, str) else reply.text
    deltas += [{"content": piece} for piece in pieces if piece]
    for index, (name, arguments) in enumerate(reply.calls):
        call_id = reply.ids[index] if reply.ids else f"up_{next(_ids)}"
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        head, tail = text[: len(text) // 2], text[len(text) // 2 :]
        function = {"name": name, "arguments": head}
        deltas.append({"tool_calls": [{"index": index, "id": call_id, "function": function}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": tail}}]})
    chunks = [_chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    if reply.finish and not reply.abort:
        finish = "tool_calls" if reply.calls and reply.finish == "stop" else reply.finish
        chunks.append(_chunk([{"index": 0, "delta": {}, "finish_reason": finish}]))
        if reply.usage:
            given, made, cached = reply.usage
            chunks.append(
                _chunk(
                    [],
                    usage={
                        "prompt_tokens": given,
                        "completion_tokens": made,
                        "total_tokens": given + made,
                        "prompt_tokens_details": {"cached_tokens": cached},
                    },
                )
            )
    return chunks


def _chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "scripted",
        "choices": choices,
        **more,
    }


@contextlib.asynccontextmanager
async def scripted(
    replies: Replies,
) -> AsyncIterator[Upstream]:
    """The server, until the end of the scope."""
    upstream = Upstream(replies)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/chat/completions", upstream.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        upstream.url = f"http://{host}:{port}"
        yield upstream
    finally:
        await runner.cleanup()
