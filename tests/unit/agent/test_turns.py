"""Turns through the real SDK: tools, subagents, and prompts taken literally."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.agent import Turn, open_session
from kaos_runner.errors import AgentError
from kaos_runner.recipe.model import Agent
from tests.unit.agent.conftest import Desk, new_desk
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from pathlib import Path


def take(desk: Desk, replies: list[Reply], *prompts: str, **given: Any) -> list[Turn]:
    """One session over a scripted provider, with a turn for each prompt."""

    async def main() -> list[Turn]:
        async with scripted(replies) as upstream:
            spec = desk.spec(provider=upstream.provider, **given)
            async with open_session(spec) as session:
                return [await session.turn(prompt) for prompt in prompts]

    return asyncio.run(main())


def test_text_alone_is_a_turn(desk: Desk) -> None:
    turns = take(desk, [Reply(text=["Hel", "lo."], think="Hm.")], "Hi")
    assert turns == [Turn(final_message="Hello.", steps=1, tool_calls=0)]
    kinds = [event.type for event in desk.events]
    assert kinds == ["turn_started", "step_started", "think", "text", "usage", "turn_finished"]


def test_parallel_calls_all_act(desk: Desk) -> None:
    calls = tuple(call("Shell", command=f"echo {n} > {n}.txt; cat {n}.txt") for n in range(6))
    (turn,) = take(desk, [Reply(calls=calls), Reply(text="done")], "go")
    assert turn == Turn(final_message="done", steps=2, tool_calls=6)
    assert desk.results() == {n + 1: (True, f"{n}\n") for n in range(6)}
    assert [e.call for e in desk.of("tool_call")] == [1, 2, 3, 4, 5, 6]


def test_calls_with_one_id_are_told_apart(desk: Desk) -> None:
    replies = [
        Reply(
            calls=(call("Shell", command="echo a"), call("Shell", command="echo b")), ids=("x", "x")
        ),
        Reply(calls=(call("Shell", command="echo c"),), ids=("x",)),
        Reply(text="done"),
    ]
    take(desk, replies, "go")
    assert desk.results() == {1: (True, "a\n"), 2: (True, "b\n"), 3: (True, "c\n")}


def test_edits_of_one_file_in_one_step_are_all_kept(desk: Desk) -> None:
    words = [f"word{n}." for n in range(12)]
    (desk.root / "a.txt").write_text(" ".join(words))
    calls = tuple(
        call(
            "StrReplaceFile",
            path=f"{desk.root}/./a.txt" if n % 2 else "a.txt",
            edit={"old": word, "new": f"new{n}"},
        )
        for n, word in enumerate(words)
    )
    take(desk, [Reply(calls=calls), Reply(text="done")], "go")
    assert (desk.root / "a.txt").read_text() == " ".join(f"new{n}" for n in range(12))


def test_a_subagent_works_in_the_same_sandbox(desk: Desk) -> None:
    task = call("Task", description="d", subagent_name="coder", prompt="/compact the files")
    replies = [
        Reply(calls=(task,)),
        Reply(calls=(call("Shell", command="echo sub > sub.txt"),), usage=(7, 3, 2)),
        Reply(text="I wrote sub.txt.", usage=(8, 4, 0)),
        Reply(text="done"),
    ]

    async def main() -> None:
        async with scripted(replies) as upstream:
            async with open_session(desk.spec(provider=upstream.provider)) as session:
                turn = await session.turn("go")
                assert turn == Turn(final_message="done", steps=4, tool_calls=2)
                assert session.usage.input == 100 + 7 + 8 + 100
                assert session.usage.output == 10 + 3 + 4 + 10
                assert session.usage.cache_read == 2
            assert upstream.requests[1]["messages"][-1]["content"] == "/compact the files"
            names = {tool["function"]["name"] for tool in upstream.requests[1]["tools"]}
            root = {tool["function"]["name"] for tool in upstream.requests[0]["tools"]}
            assert root - names == {"Task"}
            assert "You are a subagent" in upstream.requests[1]["messages"][0]["content"]

    asyncio.run(main())
    assert (desk.root / "sub.txt").read_text() == "sub\n"
    assert [e.subagent for e in desk.of("step_started")] == [False, True, True, False]
    assert [e.subagent for e in desk.of("tool_result")] == [True, False]
    assert desk.results()[1] == (True, "I wrote sub.txt.")


@pytest.mark.parametrize(
    "prompt",
    [
        "/yolo",
        " /yolo on",
        "\n/clear",
        "/init",
        "/compact",
        "/nonsense",
        "/x y",
        "/",
        "/a:b c",
        "//",
    ],
)
def test_no_prompt_is_a_slash_command(desk: Desk, prompt: str) -> None:
    async def main() -> None:
        async with scripted([Reply(text="ok")]) as upstream:
            async with open_session(desk.spec(provider=upstream.provider)) as session:
                await session.turn(prompt)
            assert upstream.requests[0]["messages"][-1] == {"role": "user", "content": prompt}

    asyncio.run(main())


def test_only_the_chosen_tools_are_there(desk: Desk) -> None:
    async def main() -> None:
        async with scripted([Reply(text="ok")]) as upstream:
            spec = desk.spec(provider=upstream.provider, agent=Agent(tools=("read", "grep")))
            async with open_session(spec) as session:
                await session.turn("go")
            names = {tool["function"]["name"] for tool in upstream.requests[0]["tools"]}
            assert names == {"ReadFile", "Grep"}

    asyncio.run(main())


def test_a_call_that_no_tool_takes_has_a_result(desk: Desk) -> None:
    calls = (call("Nonsense"), ("Shell", "{not json"), call("Shell", cmd="x"))
    take(desk, [Reply(calls=calls), Reply(text="done")], "go")
    assert [ok for ok, _ in desk.results().values()] == [False, False, False]
    assert desk.results()[1] == (False, "Tool `Nonsense` not found")


def test_a_turn_in_which_nothing_happens_fails(desk: Desk) -> None:
    with pytest.raises(AgentError, match="did nothing"):
        take(desk, [Reply(think="Hm.")], "go")


def test_the_system_prompt_tells_the_truth(desk: Desk) -> None:
    (desk.root / "AGENTS.md").write_text("Tabs, ${never} {{spaces}}.\n")

    async def main() -> str:
        async with scripted([Reply(text="ok")]) as upstream:
            async with open_session(desk.spec(provider=upstream.provider)) as session:
                await session.turn("go")
            text: str = upstream.requests[0]["messages"][0]["content"]
            return text

    prompt = asyncio.run(main())
    assert "NOTHING ISOLATES IT" in prompt
    assert "not in a sandbox" not in prompt
    assert f"The working directory is `{desk.root}`" in prompt
    assert "Tabs, ${never} {{spaces}}." in prompt
    assert "`/bin/bash`" in prompt


def test_a_session_opens_with_one_operation(desk: Desk) -> None:
    async def main() -> int:
        async with desk.opened([]) as _:
            return len(desk.transport.ran)

    assert asyncio.run(main()) == 1


@pytest.mark.parametrize(
    ("given", "operations"),
    [
        (call("Shell", command="true"), 1),
        (call("ReadFile", path="a.txt"), 1),
        (call("Grep", pattern="x"), 1),
        (call("Glob", pattern="*.txt", include_dirs=False), 1),
        (call("WriteFile", path="b.txt", content="x"), 2),
        (call("WriteFile", path="a.txt", content="x"), 2),
        (call("StrReplaceFile", path="a.txt", edit={"old": "x", "new": "y"}), 2),
        (call("SetTodoList", todos=[{"title": "t", "status": "done"}]), 0),
    ],
)
def test_what_a_tool_call_costs(desk: Desk, given: Any, operations: int) -> None:
    (desk.root / "a.txt").write_text("x\n")

    async def main() -> int:
        async with desk.opened([Reply(calls=(given,)), Reply(text="ok")]) as (_, session):
            before = len(desk.transport.ran)
            await session.turn("go")
            return len(desk.transport.ran) - before

    assert asyncio.run(main()) == operations
    assert [e.ok for e in desk.of("tool_result")] == [True]


def test_twenty_sessions_at_once_are_each_right(tmp_path: Path) -> None:
    desks = [new_desk(tmp_path / str(n)) for n in range(20)]

    async def one(n: int) -> Turn:
        desk = desks[n]
        task = call("Task", description="d", subagent_name="coder", prompt=f"sub {n}")
        replies = [
            Reply(calls=(call("WriteFile", path="n.txt", content=f"{n}"), task)),
            Reply(calls=(call("Shell", command=f"pwd > sub{n}.txt"),)),
            Reply(text=f"sub {n} done"),
            Reply(text=f"{n} done"),
        ]
        async with desk.opened(replies) as (_, session):
            return await session.turn(f"go {n}")

    async def main() -> list[Turn]:
        return await asyncio.gather(*(one(n) for n in range(20)))

    turns = asyncio.run(main())
    assert [turn.final_message for turn in turns] == [f"{n} done" for n in range(20)]
    for n, desk in enumerate(desks):
        assert (desk.root / "n.txt").read_text() == str(n)
        assert (desk.root / f"sub{n}.txt").read_text() == f"{desk.root}\n"
        assert sorted(p.name for p in desk.root.iterdir()) == ["n.txt", f"sub{n}.txt"]
