"""A conversation that grows too long is shortened by a model call of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from kaos_runner.agent import Turn, open_session
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from tests.unit.agent.conftest import Desk


def test_it_is_counted_recorded_and_played_like_any_other(desk: Desk) -> None:
    work = call("Shell", command="echo one")
    replies = [
        Reply(calls=(work,), usage=(100, 10, 0)),
        Reply(calls=(work,), usage=(9_000, 10, 0)),
        Reply(text="<summary of the conversation>", usage=(9_500, 50, 0)),
        Reply(text="done", usage=(200, 10, 0)),
    ]
    recorded = desk.home / "recorded.yaml"

    async def main() -> tuple[Turn, int]:
        async with scripted(replies) as upstream:
            small = replace(upstream.provider, max_context=10_000)
            async with open_session(desk.spec(provider=small, record=recorded)) as session:
                turn = await session.turn("go")
                return turn, session.usage.input

    turn, used = asyncio.run(main())
    assert turn == Turn(final_message="done", steps=4, tool_calls=2)
    assert used == 100 + 9_000 + 9_500 + 200
    assert [e.text for e in desk.of("text")] == ["done"]
    assert "summary of the conversation" in recorded.read_text()

    first = [e.type for e in desk.events]
    desk.events.clear()

    async def again() -> Turn:
        small = replace(desk.spec().provider, max_context=10_000)
        other = desk.spec(provider=small, replay=recorded, session_dir=desk.home / "again")
        async with open_session(other) as session:
            return await session.turn("go")

    assert asyncio.run(again()) == turn
    assert [e.type for e in desk.events] == first
