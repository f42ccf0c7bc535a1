"""Whatever ends a turn from outside ends it for real, processes included."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaos_runner.agent import AgentSession, open_session
from kaos_runner.errors import AgentError
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.unit.agent.conftest import Desk

# The SDK opens its conversation's file in a thread, and forgets it when it is cancelled meanwhile.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed file.*context.*\.jsonl:ResourceWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in.*context.*\.jsonl:pytest.PytestUnraisableExceptionWarning"
    ),
]

SLEEP = call("Shell", command="echo $$ > pid; sleep 60 & echo $! > child; wait", timeout=90)
TASK = call("Task", description="d", subagent_name="coder", prompt="p")


@pytest.fixture(autouse=True)
def _forgotten_here() -> Iterator[None]:
    """What the SDK forgot is found in the test that made it forget."""
    yield
    gc.collect()


def alive(desk: Desk) -> list[str]:
    """The processes of the shell command that still run."""
    pids = [(desk.root / name).read_text().strip() for name in ("pid", "child")]
    return [pid for pid in pids if _runs(pid)]


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def begun(desk: Desk) -> None:
    """Wait until the shell command runs."""
    child = desk.root / "child"
    await until(lambda: child.exists() and bool(child.read_text().strip()))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only shows from outside."""
    async with asyncio.timeout(20):  # well before the sleep of 60 s ends by itself
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def interrupted(
    desk: Desk,
    replies: list[Reply],
    interrupt: Callable[[AgentSession, asyncio.Task[object]], Awaitable[None]],
    expected: type[BaseException],
) -> None:
    """Interrupt a turn, and see that nothing is left; then the session must still work."""

    async def main() -> None:
        async with desk.opened([*replies, Reply(text="back")]) as (upstream, session):
            turn: asyncio.Task[object] = asyncio.create_task(session.turn("go"))
            await begun(desk)
            await interrupt(session, turn)
            with pytest.raises(expected):
                await turn
            await until(lambda: not alive(desk))
            mine = asyncio.current_task()
            assert [t for t in asyncio.all_tasks() - {mine} if "soul" in repr(t.get_coro())] == []
            requests = len(upstream.requests)
            assert (await session.turn("again")).final_message == "back"
            assert len(upstream.requests) == requests + 1

    asyncio.run(main())


async def _cancel_task(_session: AgentSession, turn: asyncio.Task[object]) -> None:
    turn.cancel()


async def _cancel_task_twice(_session: AgentSession, turn: asyncio.Task[object]) -> None:
    turn.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
        turn.cancel()


async def _cancel_session(session: AgentSession, _turn: asyncio.Task[object]) -> None:
    await session.cancel()


@pytest.mark.parametrize("subagent", [False, True])
@pytest.mark.parametrize(
    ("interrupt", "expected"),
    [
        (_cancel_task, asyncio.CancelledError),
        (_cancel_task_twice, asyncio.CancelledError),
        (_cancel_session, AgentError),
    ],
)
def test_no_process_is_left(
    desk: Desk,
    interrupt: Callable[[AgentSession, asyncio.Task[object]], Awaitable[None]],
    expected: type[BaseException],
    subagent: bool,
) -> None:
    replies = [Reply(calls=(TASK,))] * subagent + [Reply(calls=(SLEEP,))]
    interrupted(desk, replies, interrupt, expected)
    assert desk.results()[1 + subagent] == (False, "cancelled")


def test_a_timeout_around_a_turn_ends_it(desk: Desk) -> None:
    async def main() -> None:
        async with desk.opened([Reply(calls=(SLEEP,))]) as (_, session):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await session.turn("go")
            await until(lambda: not alive(desk))

    asyncio.run(main())


def test_a_model_that_hangs_can_be_cancelled(desk: Desk) -> None:
    async def main() -> None:
        async with desk.opened([Reply(text="x", hang=True)]) as (_, session):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await session.turn("go")

    asyncio.run(main())


def test_a_session_that_is_left_in_the_middle_of_a_turn(desk: Desk) -> None:
    async def main() -> None:
        async with scripted([Reply(calls=(SLEEP,))]) as upstream:
            async with open_session(desk.spec(provider=upstream.provider)) as session:
                turn = asyncio.create_task(session.turn("go"))
                await begun(desk)
            await until(lambda: not alive(desk))
            with pytest.raises(AgentError):
                await turn

    asyncio.run(main())


def test_a_command_that_takes_too_long_is_killed(desk: Desk) -> None:
    short = call("Shell", command=SLEEP[1]["command"], timeout=1)

    async def main() -> None:
        async with desk.opened([Reply(calls=(short,)), Reply(text="ok")]) as (_, session):
            await session.turn("go")

    asyncio.run(main())
    assert desk.results()[1] == (False, "Command killed by timeout (1s)")
    asyncio.run(until(lambda: not alive(desk)))


def test_a_command_reads_nothing(desk: Desk) -> None:
    async def main() -> None:
        calls = (call("Shell", command="cat; echo read"),)
        async with desk.opened([Reply(calls=calls), Reply(text="ok")]) as (_, session):
            await session.turn("go")

    asyncio.run(main())
    assert desk.results()[1] == (True, "read\n")


def test_only_one_turn_at_a_time(desk: Desk) -> None:
    async def main() -> None:
        async with desk.opened([Reply(text="x", hang=True)]) as (upstream, session):
            turn = asyncio.create_task(session.turn("go"))
            await until(lambda: bool(upstream.requests))
            with pytest.raises(RuntimeError, match="already running"):
                await session.turn("me too")
            await session.cancel()
            with pytest.raises(AgentError):
                await turn

    asyncio.run(main())


def test_what_runs_on_in_the_background_does_not_hold_up_the_call(desk: Desk) -> None:
    command = "sleep 60 & echo $! > child; echo started"

    async def main() -> None:
        calls = (call("Shell", command=command, timeout=40),)
        async with desk.opened([Reply(calls=calls), Reply(text="ok")]) as (_, session):
            await session.turn("go")
        os.kill(int((desk.root / "child").read_text()), signal.SIGKILL)

    asyncio.run(main())
    assert desk.results()[1] == (True, "started\n")


def test_all_of_a_long_output_is_read(desk: Desk) -> None:
    async def main() -> None:
        calls = (call("Shell", command="seq 1 9999; printf '%0200000d' 7; echo; echo last >&2"),)
        async with desk.opened([Reply(calls=calls), Reply(text="ok")]) as (_, session):
            await session.turn("go")

    asyncio.run(main())
    ok, output = desk.results()[1]
    assert ok
    assert output.startswith("1\n2\n3\n")
    assert "9999\n000" in output or "last\n" in output
