"""One live E2B sandbox, as the runner holds it."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError

if TYPE_CHECKING:
    from datetime import timedelta

    from e2b import AsyncSandbox
    from kaos import Kaos

    from kaos_runner.backends.e2b_service import E2bService
    from kaos_runner.kaos.e2b import E2bTransport
    from kaos_runner.kaos.posix import PosixKaos


class E2bSandbox:
    """A sandbox that was created here, or one that was there before."""

    def __init__(
        self,
        service: E2bService,
        sandbox: AsyncSandbox,
        kaos: PosixKaos,
        transport: E2bTransport,
        *,
        timeout: float,
        created: bool,
    ) -> None:
        self.id = sandbox.sandbox_id
        self.kaos: Kaos = kaos
        self.isolation: str | None = None
        self._kaos = kaos
        self._service, self._sandbox, self._transport = service, sandbox, transport
        self._timeout = timeout
        self._created = created

    async def keepalive(self, ttl: timedelta) -> None:
        """Let it live for the recipe's timeout from now on, or `ttl` if that is longer.

        One that was there before may have more time than that; connecting never shortens it.

        Raises:
            SandboxLostError: it is gone.
        """
        from e2b import SandboxNotFoundException

        seconds = math.ceil(max(self._timeout, ttl.total_seconds()))
        try:
            await self._service.call(lambda: self._renew(seconds), "renew the sandbox's time")
        except SandboxError as error:
            if isinstance(error.__cause__, SandboxNotFoundException):
                raise await self._transport.envd.fate.gone() from error
            raise

    async def _renew(self, seconds: int) -> None:
        if self._created:
            await self._sandbox.set_timeout(seconds)
        else:
            await self._sandbox.connect(timeout=seconds)

    async def detach(self) -> None:
        """Kill what was started here, and let go."""
        with contextlib.suppress(OSError):
            await self._kaos.aclose()
        await self._transport.aclose()

    async def suspend(self) -> bool:
        """Pause it: its state is kept, and its time does not run."""
        await self.detach()
        await self._service.call(self._sandbox.pause, "pause the sandbox")
        return True

    async def destroy(self) -> None:
        """Kill it; gone already is a success."""
        await self.detach()
        await self._service.kill(self.id)
