"""What the provider can do wrong, and where the recipe's limits end a run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.agent import Provider, open_session
from kaos_runner.errors import AgentError, KaosRunnerError, LimitReachedError
from kaos_runner.recipe.model import Limits
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from tests.unit.agent.conftest import Desk

NOW = {"Retry-After": "0"}


def fail(desk: Desk, replies: list[Reply], **given: Any) -> tuple[KaosRunnerError, int]:
    """The error that a turn ends with, and how many requests were sent."""

    async def main() -> tuple[KaosRunnerError, int]:
        async with scripted(replies) as upstream:
            async with open_session(desk.spec(provider=upstream.provider, **given)) as session:
                with pytest.raises(KaosRunnerError) as caught:
                    await session.turn("go")
            return caught.value, len(upstream.requests)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "hint"),
    [(400, "model's name"), (401, "KIMI_API_KEY"), (403, "KIMI_API_KEY"), (404, "`scripted`")],
)
def test_a_refusal_is_not_tried_again(desk: Desk, status: int, hint: str) -> None:
    error, requests = fail(desk, [Reply(status=status, message="because")])
    assert isinstance(error, AgentError)
    assert str(status) in error.message
    assert "because" in error.message
    assert hint in (error.hint or "")
    assert requests == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_trouble_is_tried_again_in_the_open(desk: Desk, status: int) -> None:
    error, requests = fail(desk, [Reply(status=status, headers=NOW)] * 4)
    assert isinstance(error, AgentError)
    assert requests == 4
    retries = desk.of("retry")
    assert [(e.operation, e.attempt, e.wait_seconds) for e in retries] == [
        ("model call", n, 0.0) for n in (1, 2, 3)
    ]
    assert len(desk.of("step_started")) == 1


def test_a_long_wait_is_not_waited_for(desk: Desk) -> None:
    error, requests = fail(desk, [Reply(status=429, headers={"Retry-After": "3600"})])
    assert "quota" in (error.hint or "")
    assert requests == 1


def test_trouble_that_passes_is_forgotten(desk: Desk) -> None:
    async def main() -> str:
        async with desk.opened([Reply(status=500, headers=NOW), Reply(text="ok")]) as (_, session):
            return (await session.turn("go")).final_message

    assert asyncio.run(main()) == "ok"


def test_nobody_answers(desk: Desk) -> None:
    async def main() -> AgentError:
        async with scripted([]) as upstream:
            gone = Provider(base_url=upstream.url, api_key="k", model="m")
        async with open_session(desk.spec(provider=gone)) as session:
            with pytest.raises(AgentError) as caught:
                await session.turn("go")
        return caught.value

    error = asyncio.run(main())
    assert "cannot be reached" in error.message
    assert "base_url" in (error.hint or "")


@pytest.mark.parametrize("provider", [Provider(base_url="http://127.0.0.1:1", model="")])
def test_no_model(desk: Desk, provider: Provider) -> None:
    async def main() -> None:
        async with open_session(desk.spec(provider=provider)) as session:
            with pytest.raises(AgentError, match="no model is set"):
                await session.turn("go")

    asyncio.run(main())


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="Half an ans", finish=None),
        Reply(text="Half", abort=True),
        Reply(calls=(call("Shell", command="touch never"),), finish=None),
        Reply(calls=(call("Shell", command="touch never"),), abort=True),
        Reply(finish=None),
    ],
)
def test_a_cut_stream_is_no_answer(desk: Desk, reply: Reply) -> None:
    error, requests = fail(desk, [reply, Reply(text="later")])
    assert isinstance(error, AgentError)
    assert "cut short" in error.message or "broke off" in error.message
    assert requests == 1
    assert not (desk.root / "never").exists()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(), "empty answer"),
        (Reply(text="Too lo", finish="length"), "limit of output tokens"),
        (Reply(text="No", finish="content_filter"), "withheld"),
    ],
)
def test_an_answer_that_is_none(desk: Desk, reply: Reply, words: str) -> None:
    error, _ = fail(desk, [reply])
    assert isinstance(error, AgentError)
    assert words in error.message


def test_the_session_lives_on_after_a_failure(desk: Desk) -> None:
    async def main() -> str:
        async with desk.opened([Reply(status=400), Reply(text="ok")]) as (_, session):
            with pytest.raises(AgentError):
                await session.turn("one")
            return (await session.turn("two")).final_message

    assert asyncio.run(main()) == "ok"


def test_the_limit_of_steps(desk: Desk) -> None:
    more = Reply(calls=(call("Shell", command="true"),))
    error, requests = fail(desk, [more] * 9, limits=Limits(steps=3))
    assert isinstance(error, LimitReachedError)
    assert "3 steps" in error.message
    assert requests == 3


def test_a_run_of_exactly_the_limit_passes(desk: Desk) -> None:
    async def main() -> None:
        replies = [Reply(calls=(call("Shell", command="true"),)), Reply(text="ok")]
        async with scripted(replies) as upstream:
            spec = desk.spec(provider=upstream.provider, limits=Limits(steps=2, tokens=220))
            async with open_session(spec) as session:
                await session.turn("go")
                with pytest.raises(LimitReachedError):
                    await session.turn("once more")
            assert len(upstream.requests) == 2

    asyncio.run(main())


def test_a_subagent_counts(desk: Desk) -> None:
    task = call("Task", description="d", subagent_name="coder", prompt="p")
    replies = [Reply(calls=(task,)), *[Reply(calls=(call("Shell", command="true"),))] * 9]
    error, requests = fail(desk, replies, limits=Limits(steps=4))
    assert isinstance(error, LimitReachedError)
    assert requests == 4


def test_the_limit_of_tokens(desk: Desk) -> None:
    replies = [
        Reply(calls=(call("Shell", command="true"),), usage=(90, 5, 80)),
        Reply(calls=(call("Shell", command="touch late"),), usage=(90, 5, 80)),
    ]
    error, requests = fail(desk, replies, limits=Limits(tokens=150))
    assert isinstance(error, LimitReachedError)
    assert "150 tokens" in error.message
    assert "190" in error.message
    assert requests == 2
    assert not (desk.root / "late").exists()


def test_a_limit_that_cannot_be_held_is_said(desk: Desk) -> None:
    async def main() -> None:
        async with scripted([Reply(text="ok", usage=None)]) as upstream:
            spec = desk.spec(provider=upstream.provider, limits=Limits(tokens=10))
            async with open_session(spec) as session:
                await session.turn("go")

    asyncio.run(main())
    assert [e.level for e in desk.of("notice")] == ["warning"]


def test_a_subagent_s_failure_is_the_run_s(desk: Desk) -> None:
    task = call("Task", description="d", subagent_name="coder", prompt="p")
    error, requests = fail(desk, [Reply(calls=(task,)), Reply(status=401), Reply(text="never")])
    assert isinstance(error, AgentError)
    assert "401" in error.message
    assert requests == 2
