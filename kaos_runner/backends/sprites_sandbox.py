"""One live sprite."""

from __future__ import annotations

import asyncio
import contextlib
import secrets as random
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from kaos import Kaos
    from sprites.async_sprite import AsyncSprite

    from kaos_runner.backends.sprites_config import SpritesConfig
    from kaos_runner.backends.sprites_service import SpriteService
    from kaos_runner.kaos.posix import PosixKaos
    from kaos_runner.kaos.sprites import SpritesTransport

LET_GO_PATIENCE = 10.0
"""Seconds for ending processes, before the connections are closed anyway."""
RESTORE_PATIENCE = 45.0
"""Seconds that a restore may take, after the service has agreed to it."""


class SpriteSandbox:
    """A sprite that was created or connected to; also `Checkpointing`."""

    isolation: str | None = None

    def __init__(
        self,
        service: SpriteService,
        sprite: AsyncSprite,
        kaos: PosixKaos,
        config: SpritesConfig,
        notify: Callable[[str, str], None],
    ) -> None:
        self.id = sprite.name
        self.kaos: Kaos = kaos
        self._kaos = kaos
        self._service = service
        self._sprite = sprite
        self._config = config
        self._notify = notify
        self._checkpoint: str | None = None

    async def keepalive(self, ttl: timedelta) -> None:
        """A sprite does not expire: asleep, it wakes with the next command."""

    async def detach(self) -> None:
        """End what still runs, and close the connections; idempotent."""
        try:
            await self._let_go()
        finally:
            await self._service.aclose()

    async def _let_go(self) -> None:
        """End what still runs; a sprite that does not answer is not waited for."""
        transport: SpritesTransport = self._kaos.transport  # type: ignore[assignment]
        transport.losses_matter = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LET_GO_PATIENCE):
                await self._kaos.aclose()
        await transport.aclose()

    async def suspend(self) -> bool:
        """Leave it: with nothing running it falls asleep, and then only its storage is billed."""
        await self.detach()
        return True

    async def destroy(self) -> None:
        """Delete it."""
        try:
            await self._let_go()
            await self._service.destroy(self.id)
        finally:
            await self._service.aclose()

    # -- kaos_runner.backends.base.Checkpointing

    async def before_run(self) -> None:
        """Make a checkpoint, if the recipe asks for one."""
        if self._config.checkpoint == "before_run":
            self._checkpoint = await self._service.checkpoint(self._sprite)
            self._notify("info", f"checkpoint {self._checkpoint} of {self.id} was made")

    async def after_failure(self) -> None:
        """Bring the checkpoint back, if the recipe asks for it, and wait until it is there.

        Raises:
            SandboxError: it was not brought back.
        """
        if self._config.restore != "on_failure" or self._checkpoint is None:
            return
        await self._kaos.kill_all()
        mark = f"{self.kaos.gethome()}/.kaos-runner-restoring-{random.token_hex(8)}"
        await self._leave_mark(mark)
        await self._service.restore(self._sprite, self._checkpoint)
        await self._await_absence(mark)
        self._notify("info", f"{self.id} is as checkpoint {self._checkpoint} holds it")

    async def _leave_mark(self, mark: str) -> None:
        try:
            code = await self._probe(["touch", mark])
        except OSError as error:
            msg = f"checkpoint {self._checkpoint} was not restored: {error}"
            raise SandboxError(msg) from error
        if code:
            msg = f"checkpoint {self._checkpoint} was not restored: {mark} cannot be made"
            raise SandboxError(msg, hint=self._restore_command())

    def _restore_command(self) -> str:
        return f"restore it by hand: sprite restore -s {self.id} {self._checkpoint}"

    async def _await_absence(self, mark: str) -> None:
        """Wait until a file is gone that the checkpoint cannot hold: the restore comes later."""
        from tenacity import (
            AsyncRetrying,
            RetryError,
            retry_if_exception_type,
            retry_if_result,
            stop_after_delay,
            wait_exponential,
        )

        policy = AsyncRetrying(
            retry=retry_if_result(lambda there: there) | retry_if_exception_type(OSError),
            stop=stop_after_delay(RESTORE_PATIENCE),
            wait=wait_exponential(multiplier=0.05, max=2),
        )
        try:
            await policy(self._is_there, mark)
        except RetryError as error:
            msg = f"checkpoint {self._checkpoint} was not back after {RESTORE_PATIENCE:g} seconds"
            raise SandboxError(msg, hint=self._restore_command()) from error

    async def _is_there(self, mark: str) -> bool:
        code = await self._probe(["test", "-e", mark])
        if code not in (0, 1):
            msg = "the sprite cannot say what is there"
            raise OSError(msg)
        return code == 0

    async def _probe(self, argv: list[str]) -> int:
        """Run a command on a transport of its own, whose losses mean nothing."""
        from kaos_runner.kaos.sprites import SpritesTransport

        transport = SpritesTransport(
            self._sprite, env={}, on_retry=lambda *_: None, on_lost=lambda _: None
        )
        return (await transport.run(argv, cwd="/")).exit_code
