"""What ends a run from outside."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from kaos_runner.errors import InterruptedRunError, SandboxLostError, WallLimitError
from kaos_runner.stopping import Stop


async def forever(log: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        log.append("ended")


def test_work_that_ends_gives_its_result() -> None:
    async def work() -> int:
        return 7

    async def main() -> int:
        return await Stop(again=lambda: None).guard(work())

    assert asyncio.run(main()) == 7


def test_the_wall_limit_cancels_and_awaits_the_work() -> None:
    log: list[str] = []

    async def main() -> None:
        stop = Stop(again=lambda: None)
        stop.start_clock(0.05)
        await stop.guard(forever(log))

    with pytest.raises(WallLimitError, match=r"0\.05s"):
        asyncio.run(main())
    assert log == ["ended"]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_first_signal_stops_and_the_second_is_answered(name: str, code: int) -> None:
    log: list[str] = []

    async def main() -> int:
        stop = Stop(again=lambda: log.append("patience"))
        with stop.on_signals():
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, os.kill, os.getpid(), signal.Signals[name])
            try:
                await stop.guard(forever(log))
            except InterruptedRunError as error:
                os.kill(os.getpid(), signal.Signals[name])
                await asyncio.sleep(0.05)
                return error.code
        return 0

    assert asyncio.run(main()) == code
    assert log == ["ended", "patience"]


def test_a_lost_sandbox_wins_over_the_error_it_causes() -> None:
    async def main() -> None:
        stop = Stop(again=lambda: None)

        async def work() -> None:
            stop.ask(SandboxLostError("it expired"))
            raise ConnectionResetError

        await stop.guard(work())

    with pytest.raises(SandboxLostError, match="it expired"):
        asyncio.run(main())


def test_work_after_a_reason_is_not_begun_until_reset() -> None:
    async def work() -> str:
        return "done"

    async def main() -> str:
        stop = Stop(again=lambda: None)
        stop.ask(InterruptedRunError("SIGINT"))
        with pytest.raises(InterruptedRunError):
            await stop.guard(work())
        stop.reset()
        return await stop.guard(work())

    assert asyncio.run(main()) == "done"


def test_cancelling_the_guard_ends_the_work() -> None:
    log: list[str] = []

    async def main() -> None:
        task = asyncio.ensure_future(Stop(again=lambda: None).guard(forever(log)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["ended"]
