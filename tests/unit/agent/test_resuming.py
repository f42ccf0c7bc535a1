"""A conversation outlives the process that began it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.agent import open_session
from kaos_runner.errors import AgentError
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from tests.unit.agent.conftest import Desk

FIRST = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from kaos_runner.agent import claim, open_session
from tests.unit.agent.conftest import new_desk

claim(os.environ)

async def main():
    desk = new_desk(Path(sys.argv[1]))
    cassette = desk.cassette('''
- tools: [{tool: shell, args: {command: echo one > a.txt}}]
- text: I wrote it.
- tools: [{tool: shell, args: {command: kill -9 PID}}]
- text: later
- text: much later
'''.replace("PID", str(os.getpid())))
    async with open_session(desk.spec(replay=cassette)) as session:
        await session.turn("Write it.")
        (desk.home / "id").write_text(session.id)
        await session.turn("Then die.")

asyncio.run(main())
"""


def messages_of(desk: Desk, replies: list[Reply], resume: str) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        async with scripted(replies) as upstream:
            async with open_session(desk.spec(provider=upstream.provider, resume=resume)) as s:
                assert s.id == resume
                await s.turn("Go on.")
            found: list[dict[str, Any]] = upstream.requests[0]["messages"]
            return found

    return asyncio.run(main())


def test_a_killed_run_is_gone_on_with(desk: Desk) -> None:
    home = desk.home / "first"
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(home), os.getcwd()],  # noqa: PTH109
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    session_id = (home / "id").read_text()
    desk.home = home
    messages = messages_of(desk, [Reply(text="ok")], session_id)
    assert [m["role"] for m in messages] == [
        "system", "user", "assistant", "tool", "assistant", "user", "user",
    ]  # fmt: skip
    assert [m["content"] for m in messages if m["role"] == "user"] == [
        "Write it.",
        "Then die.",
        "Go on.",
    ]


def test_a_cassette_goes_on_where_it_was(desk: Desk) -> None:
    cassette = desk.cassette("- text: one\n- text: two\n- text: three\n")

    async def interrupted() -> str:
        with contextlib.suppress(ZeroDivisionError):
            async with open_session(desk.spec(replay=cassette)) as session:
                await session.turn("1")
                raise ZeroDivisionError
        return session.id

    async def main() -> None:
        session_id = await interrupted()
        async with open_session(desk.spec(replay=cassette, resume=session_id)) as again:
            assert (await again.turn("2")).final_message == "two"
            assert (await again.turn("3")).final_message == "three"

    asyncio.run(main())


def test_a_half_written_conversation_is_mended(desk: Desk) -> None:
    async def main() -> str:
        calls = (call("Shell", command="echo a"), call("Shell", command="echo b"))
        async with desk.opened([Reply(calls=calls, ids=("a", "b")), Reply(text="ok")]) as (
            _,
            session,
        ):
            await session.turn("go")
            return session.id

    session_id = asyncio.run(main())
    context = desk.home / "session" / "context.jsonl"
    lines = context.read_text().splitlines(keepends=True)
    last_result = max(i for i, line in enumerate(lines) if json.loads(line)["role"] == "tool")
    context.write_text("".join(lines[:last_result]) + '{"role": "assist')
    messages = messages_of(desk, [Reply(text="ok")], session_id)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert "interrupted" in str(messages[-2])


@pytest.mark.parametrize("session_id", ["../../evil", "", "0" * 36])
def test_only_the_session_that_is_there(desk: Desk, session_id: str) -> None:
    async def main() -> None:
        async with open_session(desk.spec(resume=session_id)):
            pass

    with pytest.raises(AgentError, match="no session"):
        asyncio.run(main())


def test_the_session_s_directory_is_private(desk: Desk) -> None:
    async def main() -> None:
        async with open_session(desk.spec(replay=desk.cassette("- text: x\n"))) as session:
            await session.turn("go")

    asyncio.run(main())
    directory = desk.home / "session"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "context.jsonl").stat().st_mode & 0o077 == 0
