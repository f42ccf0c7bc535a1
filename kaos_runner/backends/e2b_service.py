"""E2B's control plane through its SDK: calls are tried again where that may help, errors mapped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from kaos_runner.kaos.e2b_errors import api_error, transient, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from e2b import AsyncSandbox, SandboxInfo, SandboxNetworkUpdate
    from e2b.connection_config import ApiParams
    from tenacity import RetryCallState

    from kaos_runner.recipe.model import Network

ATTEMPTS = 8
PATIENCE = 120.0
"""Seconds for which one call is tried again."""
PAGE = 100

type OnRetry = Callable[[str, int, str, float], None]


def parameters(environ: Mapping[str, str]) -> ApiParams:
    """How the SDK reaches E2B; nothing is left to what it reads of the process' environment itself.

    The SDK's own retries are switched off: they are silent, and know nothing of broken connections.
    """
    return {
        "api_key": environ.get("E2B_API_KEY") or "",
        "domain": environ.get("E2B_DOMAIN") or "e2b.app",
        "api_url": environ.get("E2B_API_URL") or None,
        "sandbox_url": environ.get("E2B_SANDBOX_URL") or None,
        "debug": False,
        "retries": 0,
    }


class E2bService:
    """The account that a key opens."""

    def __init__(self, environ: Mapping[str, str], on_retry: OnRetry = lambda *_: None) -> None:
        self.parameters = parameters(environ)
        self._on_retry = on_retry
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Try nothing again: who waits to do so is cancelled, a request under way may end."""
        self._stopping.set()

    async def create(
        self,
        template: str,
        *,
        timeout: int,
        on_timeout: Literal["kill", "pause"],
        network: Network,
        metadata: dict[str, str],
        key: str,
    ) -> AsyncSandbox:
        """Create a sandbox; the key makes sure that a second try finds the first one's."""
        from e2b import AsyncSandbox

        return await self.call(
            lambda: AsyncSandbox.create(
                template,
                timeout=timeout,
                metadata=metadata,
                lifecycle={"on_timeout": on_timeout},
                idempotency_key=key,
                **_reach(network),
                **self.parameters,
            ),
            "create a sandbox",
            template=template,
        )

    async def connect(self, sandbox_id: str, timeout: int) -> AsyncSandbox:
        """Connect to a sandbox, which wakes it, and never shortens its time."""
        from e2b import AsyncSandbox

        return await self.call(
            lambda: AsyncSandbox.connect(sandbox_id, timeout=timeout, **self.parameters),
            f"connect to the sandbox {sandbox_id}",
        )

    async def restrict(self, sandbox: AsyncSandbox, network: Network) -> None:
        """Give a sandbox that exists the recipe's network; unrestricted, it keeps its own."""
        rules = egress(network)
        if rules:
            doing = "restrict the sandbox's network"
            await self.call(lambda: sandbox.update_network(rules), doing)

    async def all(self, metadata: dict[str, str] | None = None) -> AsyncIterator[SandboxInfo]:
        """Every sandbox, running or paused, over all pages."""
        from e2b import AsyncSandbox, SandboxQuery

        query = SandboxQuery(metadata=metadata) if metadata else None
        pages = AsyncSandbox.list(query=query, limit=PAGE, **self.parameters)
        while pages.has_next:
            for info in await self.call(pages.next_items, "list the sandboxes"):
                yield info

    async def kill(self, sandbox_id: str) -> None:
        """Kill a sandbox; gone already is a success."""
        from e2b import AsyncSandbox

        await self.call(
            lambda: AsyncSandbox.kill(sandbox_id, **self.parameters),
            f"kill the sandbox {sandbox_id}",
        )

    async def call[T](
        self, request: Callable[[], Awaitable[T]], doing: str, *, template: str | None = None
    ) -> T:
        """One call, tried again while its failure is a passing one.

        Raises:
            PrerequisiteError: E2B refuses the key, or cannot be reached.
            SandboxError: anything else.
        """
        from tenacity import (
            AsyncRetrying,
            retry_if_exception,
            stop_after_attempt,
            stop_after_delay,
            wait_exponential_jitter,
        )

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0.0
            reason = words(error) if error else ""
            self._on_retry(doing, state.attempt_number, reason, seconds)

        retrying = AsyncRetrying(
            retry=retry_if_exception(transient),
            wait=wait_exponential_jitter(initial=0.5, max=20),
            stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(PATIENCE),
            before_sleep=tell,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return await retrying(request)
        except Exception as error:
            raise api_error(error, doing, template=template) from error

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise asyncio.CancelledError


def egress(network: Network) -> SandboxNetworkUpdate:
    """The recipe's network in E2B's words; empty where nothing is restricted."""
    if network.default == "deny":
        return {"allow_out": list(network.allow), "deny_out": ["0.0.0.0/0"]}
    return {"deny_out": list(network.deny)} if network.deny else {}


def _reach(network: Network) -> dict[str, Any]:
    if network.default == "deny" and not network.allow:
        return {"allow_internet_access": False}
    rules = egress(network)
    return {"network": rules} if rules else {}
