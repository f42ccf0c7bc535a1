"""How the suites' cases are written: async methods, run as plain pytest methods."""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from kaos import Kaos, KaosProcess


_patience = ContextVar("patience", default=30.0)


class Suite:
    """Base of both suites."""

    known_failures: ClassVar[Mapping[str, str]] = {}
    """Names of cases that fail, each with the reason; a case that passes after all fails."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, reason in cls.__dict__.get("known_failures", {}).items():
            setattr(cls, name, _expected_failure(getattr(cls, name), reason))


class KaosSuite(Suite):
    """Base of the cases that test a Kaos."""

    patience: ClassVar[float] = 30.0
    """Seconds after which a case takes what it waits for as hanging."""

    def kaos(self) -> AbstractAsyncContextManager[Kaos]:
        """Give a fresh Kaos whose working directory is empty and can be written to."""
        raise NotImplementedError


class _HasKaos(Protocol):
    patience: ClassVar[float]

    def kaos(self) -> AbstractAsyncContextManager[Kaos]: ...


def case[S: _HasKaos](test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a pytest method of `async def test_x(self, k)`; `k` is fresh, and the current Kaos."""
    signature = inspect.signature(test)
    names = [p for name, p in signature.parameters.items() if name != "k"]

    @functools.wraps(test)
    def run(self: S, **parameters: Any) -> None:
        asyncio.run(_bound(self, test, parameters))

    run.__signature__ = signature.replace(parameters=names)  # type: ignore[attr-defined]
    return run


async def _bound(suite: _HasKaos, test: Callable[..., Awaitable[None]], parameters: Any) -> None:
    import kaos

    _patience.set(suite.patience)
    async with suite.kaos() as k:
        token = kaos.set_current_kaos(k)
        try:
            await test(suite, k, **parameters)
        finally:
            kaos.reset_current_kaos(token)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left behind."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def ended(process: KaosProcess, stdin: bytes = b"") -> Ended:
    """Feed a process, close its input, and read both streams to their end."""
    if stdin:
        process.stdin.write(stdin)
    process.stdin.close()
    stdout, stderr = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return Ended(await process.wait(), stdout, stderr)


async def sh(k: Kaos, script: str, *arguments: str) -> bytes:
    """Run a shell script in the sandbox, which must succeed; its output."""
    done = await ended(await k.exec("/bin/sh", "-c", script, "sh", *arguments))
    assert done.exit_code == 0, done
    return done.stdout


async def names(k: Kaos, path: str = ".") -> list[str]:
    """The sorted names in a directory."""
    return sorted([entry.name async for entry in k.iterdir(path)])


async def within[T](awaitable: Awaitable[T], seconds: float | None = None) -> T:
    """The result, or a failure instead of a hanging test."""
    return await asyncio.wait_for(awaitable, seconds or _patience.get())


async def without_permissions(k: Kaos) -> None:
    """Leave the case where the sandbox's user is root: no permission is ever denied to it."""
    if (await sh(k, "id -u")).strip() == b"0" and await _overrides(k):
        pytest.skip("the sandbox's user is root, to whom nothing is denied")


async def _overrides(k: Kaos) -> bool:
    await sh(k, "echo >.probe; chmod 0 .probe")
    done = await ended(await k.exec("/bin/sh", "-c", "cat .probe"))
    await sh(k, "rm -f .probe")
    return done.exit_code == 0


async def cancelled_at_every_await(
    operation: Callable[[], Awaitable[object]], pauses: Sequence[float]
) -> None:
    """Start the operation and cancel it: after each number of loop turns, then after each pause."""
    for turns in range(25):
        task = asyncio.ensure_future(operation())
        for _ in range(turns):
            await asyncio.sleep(0)
        await _cancel(task)
    for pause in pauses:
        task = asyncio.ensure_future(operation())
        await asyncio.sleep(pause)
        await _cancel(task)


async def _cancel(task: asyncio.Future[object]) -> None:
    task.cancel()
    await within(asyncio.wait([task]))
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def _expected_failure(test: Callable[..., None], reason: str) -> Callable[..., None]:
    @functools.wraps(test)
    def run(self: object, **parameters: Any) -> None:
        failure = None
        try:
            test(self, **parameters)
        except (Exception, pytest.fail.Exception) as error:
            failure = repr(error)
        if failure is not None:  # without the traceback, which would keep what was left open
            pytest.fail(failure)

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.xfail(strict=True, reason=reason)(run)
    return marked
