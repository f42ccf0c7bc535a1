"""What the E2B SDK, its transport and its RPC layer raise, as errors of ours with a hint."""

from __future__ import annotations

import asyncio
import errno
import re
from typing import TYPE_CHECKING

from kaos_runner.errors import (
    KaosRunnerError,
    PrerequisiteError,
    SandboxError,
    SandboxLostError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_HINT = "set E2B_API_KEY to a key from https://e2b.dev/dashboard?tab=keys"
LIMIT_HINT = (
    "wait until other sandboxes end, kill those that nobody needs at https://e2b.dev/dashboard, "
    "or ask E2B for a higher limit"
)
LOST_HINT = (
    "raise `timeout` of the backend, which is how long a sandbox outlives its last renewal, "
    "or set `on_timeout: pause` to keep its state"
)
UNREACHABLE_HINT = (
    "check the network and https://status.e2b.dev; if the sandbox still runs, it ends by itself "
    "when its time is up"
)
STATUS_HINT = "see https://status.e2b.dev, and try again"

_URL = re.compile(r" \(https?://[^)]*\)")

# Words of rustls, hyper and the resolver, in the order in which they are looked for.
_NETWORK: Mapping[tuple[str, ...], tuple[str, str]] = {
    ("proxy", "tunnel"): (
        "the proxy on the way to E2B refuses or does not answer",
        "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    ),
    ("certificate", "tls", "ssl"): (
        "E2B's certificate cannot be verified",
        "if a proxy inspects TLS here, add its certificate to the system's store",
    ),
    ("dns", "lookup", "resolve", "name or service"): (
        "E2B's host name cannot be resolved",
        "check the network, and E2B_DOMAIN or E2B_API_URL where they are set",
    ),
}


def api_error(error: Exception, doing: str, *, template: str | None = None) -> KaosRunnerError:
    """What a failed call of the control plane means; `doing` completes "could not"."""
    import e2b
    import httpx

    if isinstance(error, KaosRunnerError):
        return error
    if isinstance(error, e2b.AuthenticationException):
        return PrerequisiteError("E2B refuses the API key", hint=KEY_HINT)
    if isinstance(error, e2b.RateLimitException):
        return SandboxError(f"could not {doing}: E2B's limit is reached: {error}", hint=LIMIT_HINT)
    if isinstance(error, e2b.SandboxNotFoundException):
        hint = "it was killed or reached its timeout; without sandbox_id a new one is made"
        return SandboxError(f"could not {doing}: the sandbox does not exist", hint=hint)
    if isinstance(error, httpx.TransportError):
        return _unreachable(error, doing)
    if template is not None and _about_template(error):
        hint = "`image` names an E2B template: `base`, one of your account's, or a public one"
        return SandboxError(f"there is no E2B template {template!r}", hint=hint)
    if isinstance(error, e2b.TemplateException):
        return SandboxError(f"could not {doing}: {error}", hint="build the template anew")
    if isinstance(error, e2b.InvalidArgumentException) or _status(error) == 400:
        return SandboxError(f"could not {doing}: E2B refuses the request: {error}")
    return SandboxError(f"could not {doing}: {words(error)}", hint=STATUS_HINT)


def transient(error: BaseException) -> bool:
    """Whether the same call may well succeed a moment later.

    Not where nothing could be reached: the SDK itself has tried that three times.
    """
    import e2b
    import httpx

    if isinstance(error, (e2b.RateLimitException, e2b.ServiceBusyException)):
        return True
    if isinstance(error, httpx.TransportError):
        return not isinstance(error, httpx.ConnectError)
    return _status(error) in {502, 504}


def lost(sandbox_id: str, why: str, hint: str = LOST_HINT) -> SandboxLostError:
    """The error of a sandbox that went away in the middle."""
    return SandboxLostError(f"the E2B sandbox {sandbox_id} {why}", hint=hint)


def os_error(error: Exception, path: str | None = None) -> OSError:
    """What a refusal of envd means for the tool that asked."""
    import e2b

    text = str(error)
    if isinstance(error, OSError):
        return error
    if isinstance(error, e2b.InvalidArgumentException):
        return _invalid(text, path)
    if isinstance(error, e2b.NotFoundException):
        return ProcessLookupError(errno.ESRCH, text)
    if isinstance(error, e2b.TimeoutException):
        return TimeoutError(errno.ETIMEDOUT, text)
    if isinstance(error, e2b.NotEnoughSpaceException):
        return OSError(errno.ENOSPC, text, path)
    if isinstance(error, e2b.RateLimitException):
        return BlockingIOError(errno.EAGAIN, text)
    return OSError(errno.EIO, words(error), path)


def cancellation(error: BaseException) -> asyncio.CancelledError | None:
    """The cancellation behind an RPC's error: connectrpc turns it into an error of its own."""
    return error.__cause__ if isinstance(error.__cause__, asyncio.CancelledError) else None


def _invalid(text: str, path: str | None) -> OSError:
    if "cwd" in text or "no such file" in text.lower():
        return FileNotFoundError(errno.ENOENT, "No such file or directory", path)
    if "too long" in text:
        return OSError(errno.E2BIG, "Argument list too long")
    return OSError(errno.EINVAL, text, path)


def _unreachable(error: Exception, doing: str) -> KaosRunnerError:
    import httpx

    text = _URL.sub("", words(error))
    for signs, (message, hint) in _NETWORK.items():
        if any(sign in text.lower() for sign in signs):
            return PrerequisiteError(f"could not {doing}: {message}: {text}", hint=hint)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        hint = "check the network, and E2B_API_URL where it is set"
        return PrerequisiteError(f"could not {doing}: E2B cannot be reached: {text}", hint=hint)
    return SandboxError(f"could not {doing}: the connection broke: {text}", hint=STATUS_HINT)


def _about_template(error: Exception) -> bool:
    return _status(error) in {400, 403, 404} and "template" in str(error).lower()


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def reason(error: BaseException) -> str:
    """The words of what lies at the bottom of an error, without the SDK's advice and addresses."""
    while error.__cause__ is not None and str(error.__cause__):
        error = error.__cause__
    return _URL.sub("", str(error)).removeprefix("Request failed: ") or type(error).__name__


def words(error: BaseException) -> str:
    """The words of an error and of what caused it."""
    words = [str(error) or type(error).__name__]
    if error.__cause__ is not None and str(error.__cause__) not in words[0]:
        words.append(str(error.__cause__))
    return ": ".join(words)
