"""Which failures of the Sprites service pass, and trying again: the SDK retries nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

TRANSIENT = frozenset({429, 502, 503, 504})
ATTEMPTS = 7
REFUSALS = 4
"""Attempts at most where the connection is refused, or the host has no address."""
LONGEST_WAIT = 30.0
"""Seconds between two attempts at most, whatever `Retry-After` says."""
GIVE_UP_AFTER = 120.0
"""Seconds from the first attempt, after which no further one is begun."""

type OnRetry = Callable[[str, int, str, float], None]

_RETRY_AFTER = re.compile(r'"retry_after_seconds": ?(\d+)')
"""In the body that the SDK's bare errors carry in their text."""
_STATUS = re.compile(r"\(status (\d{3})\)|HTTP (\d{3})")


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of the SDK, which often has it in the text alone."""
    from sprites.exceptions import APIError, AuthenticationError, NotFoundError, SpriteError

    if isinstance(error, AuthenticationError):
        return 401
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, APIError) and error.status_code is not None:
        return error.status_code
    found = _STATUS.search(str(error)) if isinstance(error, SpriteError) else None
    return int(found.group(1) or found.group(2)) if found else None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    from httpx import TransportError
    from sprites.exceptions import APIError, NetworkError
    from websockets.exceptions import InvalidHandshake

    status = status_of(error)
    if status is not None:
        return status in TRANSIENT
    if isinstance(error, APIError):  # checkpoints wrap the transport's error in one
        return isinstance(error.__cause__, TransportError)
    return isinstance(error, (NetworkError, InvalidHandshake, TransportError, OSError, EOFError))


def reason_of(error: BaseException) -> str:
    """The failure in a few words, for an event."""
    status = status_of(error)
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"HTTP {status}" if status is not None else text


async def retrying[T](
    operation: str,
    call: Callable[[], Awaitable[T]],
    on_retry: OnRetry,
    *,
    attempts: int = ATTEMPTS,
    when: Callable[[BaseException], bool] = is_transient,
) -> T:
    """Call until it succeeds, fails for good, or the cap is reached; for idempotent operations.

    The last error is raised as it is. `when` decides what is tried again.
    """
    from tenacity import (
        AsyncRetrying,
        retry_if_exception,
        stop_after_attempt,
        stop_after_delay,
        stop_any,
    )

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        wait = state.next_action.sleep if state.next_action is not None else 0.0
        if error is not None:
            on_retry(operation, state.attempt_number, reason_of(error), wait)

    policy = AsyncRetrying(
        retry=retry_if_exception(when),
        stop=stop_any(
            stop_after_attempt(attempts),
            stop_after_delay(GIVE_UP_AFTER),
            _hopeless,  # type: ignore[arg-type]  # a function does, tenacity's documentation says
        ),
        wait=_wait,
        before_sleep=tell,
        reraise=True,
    )
    return await policy(call)


def _hopeless(state: RetryCallState) -> bool:
    """Whether nobody listens at all: that passes less often than a fault in the middle."""
    from httpx import ConnectError

    error = state.outcome.exception() if state.outcome is not None else None
    refused = isinstance(error, ConnectionRefusedError) or (
        error is not None and isinstance(error.__cause__, ConnectError)
    )
    return refused and state.attempt_number >= REFUSALS


def _wait(state: RetryCallState) -> float:
    """What the service asks for, or longer with each attempt; always under the cap."""
    from tenacity import wait_random_exponential

    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "get_retry_after_seconds", lambda: None)()
    if asked is None and (found := _RETRY_AFTER.search(str(error))):
        asked = found.group(1)
    if asked is not None:
        return min(float(asked), LONGEST_WAIT)
    return wait_random_exponential(multiplier=0.4, max=LONGEST_WAIT / 2, min=0.05)(state)
