"""The part of the BoxLite SDK that we use: it brings no types.

Almost every method returns an `asyncio.Future`; one that nobody awaits loses its effect.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from kaos_runner.errors import PrerequisiteError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

CALL_SECONDS = 30.0
"""How long one call may take; the SDK itself waits for minutes."""


class ExecStdin(Protocol):
    """The input of a command; it buffers without bound."""

    def send_input(self, data: bytes) -> Awaitable[None]: ...
    def close(self) -> Awaitable[None]: ...


class ExecResult(Protocol):
    """How a command ended."""

    exit_code: int


class Execution(Protocol):
    """A command in a box; each stream can be taken once."""

    def stdin(self) -> ExecStdin: ...
    def stdout(self) -> AsyncIterator[str]: ...
    def stderr(self) -> AsyncIterator[str]: ...
    def wait(self) -> Awaitable[ExecResult]: ...
    def kill(self) -> Awaitable[None]: ...


class BoxState(Protocol):
    """`configured`, `running`, `stopping`, `stopped`, `paused`, `failed`, `unknown`."""

    status: str


class BoxInfo(Protocol):
    """What a runtime tells of a box."""

    id: str
    name: str | None
    created_at: str | datetime | None
    state: BoxState


class Network(Protocol):
    """What a running box may reach."""

    def update_outbound(self, spec: object) -> Awaitable[None]: ...


class Box(Protocol):
    """A handle; it ends with `stop`."""

    id: str
    name: str | None
    network: Network

    def start(self) -> Awaitable[None]: ...
    def stop(self) -> Awaitable[None]: ...
    def exec(
        self,
        command: str,
        args: list[str] | None = None,
        env: list[tuple[str, str]] | None = None,
        tty: bool = False,
        user: str | None = None,
        timeout_secs: float | None = None,
        cwd: str | None = None,
    ) -> Awaitable[Execution]: ...


class Runtime(Protocol):
    """Where boxes live: this machine's runtime, or a server."""

    def create(self, options: object, name: str | None = None) -> Awaitable[Box]: ...
    def get(self, id_or_name: str) -> Awaitable[Box | None]: ...
    def get_info(self, id_or_name: str) -> Awaitable[BoxInfo | None]: ...
    def list_info(self) -> Awaitable[list[BoxInfo]]: ...
    def remove(self, id_or_name: str, force: bool = False) -> Awaitable[None]: ...


def sdk() -> Any:
    """The SDK's module, loaded when it is first needed.

    Raises:
        PrerequisiteError: it has no build for this machine.
    """
    try:
        import boxlite  # type: ignore[import-untyped]

        boxlite.Boxlite  # noqa: B018 - without its native part the module loads, and is empty
    except (ImportError, AttributeError) as error:
        msg = "the BoxLite SDK does not load on this machine"
        hint = "it is built for Linux and for macOS on Apple silicon; try --backend local"
        raise PrerequisiteError(msg, hint=hint) from error
    return boxlite


def _never_sent(error: BaseException) -> bool:
    """Whether a request failed before it was sent: trying again cannot do anything twice."""
    return getattr(error, "code", "") == "network_unavailable" and "connect failed" in str(error)


async def call[T](
    operation: str,
    start: Callable[[], Awaitable[T]],
    *,
    seconds: float = CALL_SECONDS,
    on_retry: Callable[[str, int, str, float], None] = lambda *_: None,
) -> T:
    """Await one call within a deadline; a connection that cannot be made is tried three times.

    Raises:
        TimeoutError: no answer within `seconds`.
        boxlite.BoxliteError: the SDK's own errors, as they are.
    """
    tries = AsyncRetrying(
        retry=retry_if_exception(_never_sent),
        stop=stop_after_attempt(3),
        wait=wait_exponential(multiplier=0.25, max=2),
        before_sleep=lambda state: on_retry(
            operation,
            state.attempt_number,
            str(state.outcome.exception()) if state.outcome else "",
            state.upcoming_sleep,
        ),
        reraise=True,
    )
    async for attempt in tries:
        with attempt:
            async with asyncio.timeout(seconds):
                return await start()
    raise AssertionError  # pragma: no cover  # the last attempt has raised
