"""What must hold: commands, files and changes, tried in the sandbox."""

from __future__ import annotations

import asyncio
import stat
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError, SandboxLostError, UsageError
from kaos_runner.recipe.model import ChangedCheck, FileCheck, RunCheck
from kaos_runner.workspace.names import below, joined, shown
from kaos_runner.workspace.script import SHELL, chunks, kill, sandbox_errors, settle, started

if TYPE_CHECKING:
    from kaos import Kaos, KaosProcess

    from kaos_runner.recipe.model import Check
    from kaos_runner.workspace.baseline import Baseline, Mark

OUTPUT_TAIL = 16 * 1024
"""Bytes of a command's output that are kept, however much it prints."""
SETUP_TIMEOUT = 1800.0
_DRAIN, _DRAINS = 1.0, 10
"""Seconds of silence that end the output once the command has ended; how often they may begin."""
_POLL = 0.25

# stdout and stderr are one pipe, so that they keep their order.
_COMMAND = """
exec 2>&1 </dev/null
cd -- "$1" || exit 126
if command -v bash >/dev/null 2>&1; then exec bash -e -c "$2"; fi
exec /bin/sh -e -c "$2"
"""


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Whether a check holds, and what a person or an agent should know about it."""

    ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """How a command ended; `exit_code` is None when it was stopped for its time."""

    exit_code: int | None
    output: str
    """The end of stdout and stderr together."""
    seconds: float


async def run_command(kaos: Kaos, command: str, *, workdir: str, timeout: float) -> CommandOutcome:
    """Run shell text in the workdir with `bash -e`, or `sh -e` where there is no bash.

    One operation. Its process group is killed after `timeout` seconds. A process left behind that
    keeps the output open does not hold up the outcome, where the Kaos can tell that the command
    itself has ended.

    Raises:
        SandboxError: the command could not be started.
        SandboxLostError: the sandbox went away.
    """
    begun = time.monotonic()
    tail = _Tail()
    async with started(kaos, SHELL, "-c", _COMMAND, "sh", workdir, command) as process:
        process.stdin.close()
        code = await _ended(process, tail, timeout)
    return CommandOutcome(code, tail.text(), time.monotonic() - begun)


async def run_setup(
    kaos: Kaos, command: str, *, workdir: str, timeout: float = SETUP_TIMEOUT
) -> CommandOutcome:
    """Run one line of `setup`: one operation. Whether it went well is for the caller to judge.

    Raises:
        SandboxError: the command could not be started.
        SandboxLostError: the sandbox went away.
    """
    return await run_command(kaos, command, workdir=workdir, timeout=timeout)


async def run_check(
    kaos: Kaos,
    check: Check,
    *,
    workdir: str,
    baseline: Baseline | None,
    since: Mark | None = None,
) -> CheckOutcome:
    """Try one check: one operation. `changed` counts from `since`, or from the baseline.

    Raises:
        UsageError: the check names a path outside the workdir.
        SandboxError: it could not be tried.
        SandboxLostError: the sandbox went away.
    """
    begun = time.monotonic()
    match check:
        case RunCheck():
            ended = await run_command(kaos, check.run, workdir=workdir, timeout=check.timeout)
            ok, detail = ended.exit_code == 0, _told(ended, check.timeout)
        case FileCheck():
            ok, detail = await _file(kaos, check.file, workdir)
        case ChangedCheck():
            ok, detail = await _changed(check.changed, baseline, since)
    return CheckOutcome(ok, detail, time.monotonic() - begun)


async def _ended(process: KaosProcess, tail: _Tail, timeout: float) -> int | None:
    """The exit code, or None after a kill for its time; `tail` holds the output."""
    reading = asyncio.ensure_future(_read(process, tail))
    draining = asyncio.ensure_future(_drain(process))
    try:
        with sandbox_errors():
            try:
                async with asyncio.timeout(timeout) as limit:
                    code = await _exit_code(process)
            except TimeoutError:
                if not limit.expired():
                    raise
                await kill(process)
                code = None
            await _rest(reading, tail)
            return code
    finally:
        await settle(reading, draining)


async def _rest(reading: asyncio.Future[None], tail: _Tail) -> None:
    """Wait for what is still on its way; silence says that something else keeps it open."""
    for _ in range(_DRAINS):
        seen = tail.size
        await asyncio.wait({reading}, timeout=_DRAIN)
        if reading.done():
            return reading.result()
        if tail.size == seen:
            return None
    return None


async def _exit_code(process: KaosProcess) -> int:
    """The exit code, also where `wait` goes on for as long as something holds the output open."""
    waiting = asyncio.ensure_future(process.wait())
    try:
        while True:
            await asyncio.wait({waiting}, timeout=_POLL)
            if waiting.done():
                return waiting.result()
            if process.returncode is not None:
                return process.returncode
    finally:
        await settle(waiting)


async def _read(process: KaosProcess, tail: _Tail) -> None:
    async for chunk in chunks(process.stdout):
        tail.add(chunk)


async def _drain(process: KaosProcess) -> None:
    """Nothing is expected there: the script joins both streams."""
    async for _ in chunks(process.stderr):
        pass


class _Tail:
    """The end of an output, in bounded memory."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._dropped = 0
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self._kept += chunk
        self.size += len(chunk)
        if (over := len(self._kept) - OUTPUT_TAIL) > 0:
            del self._kept[:over]
            self._dropped += over

    def text(self) -> str:
        text = self._kept.decode("utf-8", "replace")
        return (
            f"[{self._dropped} bytes before this were dropped]\n{text}" if self._dropped else text
        )


def _told(ended: CommandOutcome, timeout: float) -> str:
    if ended.exit_code is None:
        reason = f"stopped after {timeout:g} s, its limit"
    else:
        reason = f"exit code {ended.exit_code}"
    return f"{reason}\n{ended.output.rstrip()}".rstrip()


async def _file(kaos: Kaos, file: str, workdir: str) -> tuple[bool, str]:
    name = below(file, "`file`")
    try:
        status = await kaos.stat(joined(workdir, name))
    except (FileNotFoundError, NotADirectoryError):
        return False, f"{shown(name)} does not exist"
    except ConnectionError as error:
        msg = f"the sandbox went away: {error}"
        raise SandboxLostError(msg) from error
    except OSError as error:
        return False, f"{shown(name)} cannot be reached: {error.strerror or error}"
    if stat.S_ISDIR(status.st_mode):
        return False, f"{shown(name)} is a directory"
    return True, f"{shown(name)} is there, {status.st_size} bytes"


async def _changed(pattern: str, baseline: Baseline | None, since: Mark | None) -> tuple[bool, str]:
    if baseline is None:
        msg = "a `changed` check needs a baseline"
        raise SandboxError(msg)
    changed = await baseline.changed(since)
    wanted = pattern.removeprefix("./")
    matching = _matching(changed, wanted)
    if matching:
        return True, f"changed: {_some(matching)}"
    if not changed:
        return False, f"nothing changed, so nothing that matches {shown(pattern)}"
    return False, f"nothing that matches {shown(pattern)} changed; changed: {_some(changed)}"


def _matching(names: list[str], pattern: str) -> list[str]:
    if not pattern:
        msg = "`changed` needs a pattern, such as **/*.py"
        raise UsageError(msg)
    return [name for name in names if PurePosixPath(name).full_match(pattern)]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(shown(name) for name in names[:10]) + more
