"""The agent in a sandbox of the local backend, isolated and not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from kaos_runner.agent import SessionSpec, open_session
from kaos_runner.backends.base import Labels, SandboxRequest
from kaos_runner.backends.local import LocalBackend, LocalConfig
from kaos_runner.recipe.model import Prompt, Recipe
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kaos_runner.backends.local_sandbox import LocalSandbox
    from tests.unit.agent.conftest import Desk

# The SDK opens its conversation's file in a thread, and forgets it when it is cancelled meanwhile.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed file.*context.*\.jsonl:ResourceWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in.*context.*\.jsonl:pytest.PytestUnraisableExceptionWarning"
    ),
]

Isolation = Literal["bubblewrap", "none"]
LABELS = Labels(run_id="r", recipe="r", digest="d", version="v")


@pytest.fixture(params=["none", "bubblewrap"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    if request.param == "bubblewrap" and not shutil.which("bwrap"):
        assert not os.environ.get("CI"), "the Debian package bubblewrap is missing"
        pytest.skip("needs the Debian package bubblewrap")
    kind: Isolation = request.param
    return kind


@pytest.fixture(autouse=True)
def _forgotten_here() -> Iterator[None]:
    """What the SDK forgot is found in the test that made it forget."""
    yield
    gc.collect()


@contextlib.asynccontextmanager
async def sandbox(isolation: Isolation) -> AsyncIterator[LocalSandbox]:
    recipe = Recipe(
        version=1, name="r", backend=LocalConfig(), prompts=(Prompt(text="p"),), env={"OURS": "yes"}
    )
    request = SandboxRequest(recipe=recipe, environ=os.environ, isolation=isolation)
    made = await LocalBackend().create(request, LABELS)
    try:
        yield made
    finally:
        await made.destroy()


def spec(desk: Desk, made: LocalSandbox, **given: Any) -> SessionSpec:
    workdir = str(made.kaos.getcwd())
    return desk.spec(kaos=made.kaos, workdir=workdir, isolation=made.isolation, **given)


def test_every_tool_acts_in_it(desk: Desk, isolation: Isolation) -> None:
    task = call("Task", description="d", subagent_name="coder", prompt="p")
    replies = [
        Reply(calls=(call("WriteFile", path="a.txt", content="one\n"),)),
        Reply(
            calls=(
                call("ReadFile", path="a.txt"),
                call("Glob", pattern="*.txt"),
                call("Grep", pattern="one", output_mode="content"),
                call("Shell", command="pwd; echo $OURS; env | grep -c HOST_ONLY"),
            )
        ),
        Reply(calls=(task,)),
        Reply(calls=(call("StrReplaceFile", path="a.txt", edit={"old": "one", "new": "two"}),)),
        Reply(text="sub"),
        Reply(text="done"),
    ]

    async def main() -> str:
        async with sandbox(isolation) as made, scripted(replies) as upstream:
            async with open_session(spec(desk, made, provider=upstream.provider)) as session:
                await session.turn("go")
            assert await made.kaos.readtext("a.txt") == "two\n"
            return str(made.kaos.getcwd())

    workdir = asyncio.run(main())
    results = desk.results()
    assert results[2] == (True, "     1\tone\n")
    assert results[3] == (True, "a.txt")
    assert results[4] == (True, "a.txt:one\n")
    assert results[5] == (False, f"{workdir}\nyes\n0\nCommand failed with exit code: 1.")
    assert all(ok for number, (ok, _) in results.items() if number != 5)


def test_cancelling_leaves_no_process(desk: Desk, isolation: Isolation) -> None:
    mark = f"{os.getpid()}7"
    sleep = call("Shell", command=f"touch begun; sleep 60.{mark} & sleep 60.{mark}; wait")

    async def main() -> None:
        async with (
            sandbox(isolation) as made,
            scripted([Reply(calls=(sleep,))]) as upstream,
            open_session(spec(desk, made, provider=upstream.provider)) as session,
        ):
            turn = asyncio.create_task(session.turn("go"))
            async with asyncio.timeout(30):
                while len(_sleeping(mark)) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            turn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await turn
            async with asyncio.timeout(20):
                while _sleeping(mark):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    asyncio.run(main())


def _sleeping(mark: str) -> list[str]:
    """The processes of this machine with that argument."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if line.read_bytes() == f"sleep\x0060.{mark}\x00".encode():
                found.append(line.parent.name)
    return found
