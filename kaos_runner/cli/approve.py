"""Asking the person at the terminal whether a tool call may go on."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from kaos_runner.agent import ApprovalQuestion

YES = {"y", "yes"}


def approver(
    environ: Mapping[str, str],
    paused: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Callable[[ApprovalQuestion], Awaitable[bool]] | None:
    """A way to ask, or None where nobody sits: no terminal, or CI.

    What else is shown on the terminal is `paused` while the question stands.
    """
    if environ.get("CI") or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    one_at_a_time = asyncio.Lock()

    async def ask(question: ApprovalQuestion) -> bool:
        from kaos_runner.sinks.safe import one_line

        async with one_at_a_time:
            what = one_line(f"{question.tool}: {question.subject}")
            with paused():
                print(f"\nallow {what}? [y/N] ", end="", file=sys.stderr, flush=True)
                return (await _line()).strip().lower() in YES

    return ask


async def _line() -> str:
    """A line from the terminal, without a thread: a cancelled wait leaves nothing behind."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def readable() -> None:
        if not line.done():
            line.set_result(os.read(sys.stdin.fileno(), 4096).decode(errors="replace"))

    loop.add_reader(sys.stdin.fileno(), readable)
    try:
        return await line
    finally:
        loop.remove_reader(sys.stdin.fileno())
