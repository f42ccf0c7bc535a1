"""The providers' own protocols: the key, the end of a stream, and usage."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from kaos_runner.agent import Provider, open_session
from kaos_runner.agent.wire import Watch
from kaos_runner.errors import AgentError
from tests.unit.agent.upstream import Reply, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.agent.conftest import Desk

ANTHROPIC: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 10,
                "output_tokens": 1,
                "cache_read_input_tokens": 5,
                "cache_creation_input_tokens": 7,
            },
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    },
    {"type": "message_stop"},
]

_MESSAGE = {
    "type": "message",
    "id": "i",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
}
_RESPONSE = {
    "id": "r",
    "object": "response",
    "created_at": 0,
    "model": "scripted",
    "output": [_MESSAGE],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 22,
        "input_tokens_details": {"cached_tokens": 5},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 25,
    },
}
_PLACE = {"item_id": "i", "output_index": 0, "content_index": 0}
RESPONSES: list[dict[str, Any]] = [
    {"type": "response.created", "sequence_number": 0, "response": {**_RESPONSE, "output": []}},
    {
        "type": "response.output_text.delta",
        "sequence_number": 1,
        "delta": "Hel",
        "logprobs": [],
        **_PLACE,
    },
    {
        "type": "response.output_text.delta",
        "sequence_number": 2,
        "delta": "lo",
        "logprobs": [],
        **_PLACE,
    },
    {"type": "response.completed", "sequence_number": 3, "response": _RESPONSE},
]
PATHS = {"anthropic": "/v1/messages", "openai_responses": "/responses"}
KEYS = {"anthropic": "X-Api-Key", "openai_responses": "Authorization"}


@contextlib.asynccontextmanager
async def speaking(kind: str, events: list[dict[str, Any]]) -> AsyncIterator[tuple[str, list[Any]]]:
    """A provider that streams these events; where it is, and the headers that it was sent."""
    headers: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        headers.append(request.headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            line = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            await response.write(line.encode())
        return response

    app = web.Application()
    app.router.add_post(PATHS[kind], answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}", headers
    finally:
        await runner.cleanup()


def hello(desk: Desk, kind: str, events: list[dict[str, Any]]) -> list[Any]:
    async def main() -> list[Any]:
        async with speaking(kind, events) as (url, headers):
            provider = Provider(type=kind, base_url=url, api_key="the-key", model="scripted")
            async with open_session(desk.spec(provider=provider)) as session:
                turn = await session.turn("go")
                assert turn.final_message == "Hello"
            return headers

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "events"), [("anthropic", ANTHROPIC), ("openai_responses", RESPONSES)]
)
def test_it_answers(desk: Desk, kind: str, events: list[dict[str, Any]]) -> None:
    (headers,) = hello(desk, kind, events)
    assert headers[KEYS[kind]].removeprefix("Bearer ") == "the-key"
    (usage,) = desk.of("usage")
    assert (usage.input, usage.output, usage.cache_read) == (22, 3, 5)
    assert usage.cache_write == (7 if kind == "anthropic" else 0)


@pytest.mark.parametrize(
    ("kind", "events"), [("anthropic", ANTHROPIC[:4]), ("openai_responses", RESPONSES[:-1])]
)
def test_it_is_cut_short(desk: Desk, kind: str, events: list[dict[str, Any]]) -> None:
    with pytest.raises(AgentError, match="cut short"):
        hello(desk, kind, events)


def test_openai_legacy(desk: Desk) -> None:
    async def main() -> str:
        calls = (call("Shell", command="echo one > a.txt"),)
        async with desk.opened([Reply(calls=calls), Reply(text="ok")]) as (upstream, _):
            provider = Provider(
                type="openai_legacy", base_url=upstream.url, api_key="the-key", model="m"
            )
            other = desk.spec(provider=provider, session_dir=desk.home / "other")
            async with open_session(other) as session:
                final = (await session.turn("go")).final_message
            assert upstream.headers[0]["Authorization"] == "Bearer the-key"
            return final

    assert asyncio.run(main()) == "ok"
    assert (desk.root / "a.txt").read_text() == "one\n"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("stream", "finish"),
    [
        (b'data: {"finish_reason": null}\n\ndata: {"finish_reason":"stop"}\n\n', "stop"),
        (b'data: {"delta": {"stop_reason": "end_turn"}}\n\n', "end_turn"),
        (b'data: {"type": "response.completed"}\n\n', "completed"),
        (b'data: {"candidates": [{"finishReason": "STOP"}]}\n\n', "STOP"),
        (b'data: {"content": "say \\"finish_reason\\": \\"stop\\""}\n\n', None),
        (b'data: {"finish_reason": null}\n\n', None),
    ],
)
def test_the_end_is_seen_in_any_pieces(stream: bytes, finish: str | None, size: int) -> None:
    watch = Watch()
    for start in range(0, len(stream), size):
        watch.feed(stream[start : start + size])
    assert watch.finish == finish
