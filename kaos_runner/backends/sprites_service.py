"""The calls on the Sprites service, tried again where that is safe, with errors of ours."""

from __future__ import annotations

import contextlib
import secrets as random
from functools import partial
from typing import TYPE_CHECKING, Any

from kaos_runner.errors import KaosRunnerError, PrerequisiteError, SandboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sprites.async_client import AsyncSpritesClient
    from sprites.async_sprite import AsyncSprite
    from sprites.types import Checkpoint, NetworkPolicy, SpriteInfo, StreamMessage

    from kaos_runner.kaos.sprites_retry import OnRetry

DEFAULT_URL = "https://api.sprites.dev"
PAGE = 100


def open_client(environ: Mapping[str, str]) -> AsyncSpritesClient:
    """The SDK's client; the SDK itself reads no variables."""
    from sprites.async_client import AsyncSpritesClient

    url = environ.get("SPRITES_BASE_URL") or DEFAULT_URL
    return AsyncSpritesClient(environ.get("SPRITE_TOKEN", ""), url)


class SpriteService:
    """What the backend asks of the service; every failure is an error of ours."""

    def __init__(self, environ: Mapping[str, str], on_retry: OnRetry) -> None:
        self._environ = environ
        self._on_retry = on_retry
        self._client: AsyncSpritesClient | None = None

    @property
    def client(self) -> AsyncSpritesClient:
        """The SDK's client, opened when it is used."""
        if self._client is None:
            self._client = open_client(self._environ)
        return self._client

    async def aclose(self) -> None:
        """Close the client; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _ask[T](
        self,
        operation: str,
        call: Callable[[], Awaitable[T]],
        *,
        attempts: int | None = None,
        first: bool = False,
    ) -> T:
        from kaos_runner.kaos.sprites_retry import ATTEMPTS, retrying

        try:
            return await retrying(operation, call, self._on_retry, attempts=attempts or ATTEMPTS)
        except KaosRunnerError:
            raise
        except Exception as error:
            raise as_ours(operation, error, first=first) from error

    async def create(
        self, name: str, labels: list[str], *, proof: frozenset[str], **details: Any
    ) -> AsyncSprite:
        """Create a sprite; one whose answer was lost is taken up if its labels hold the proof.

        Raises:
            PrerequisiteError: the token is refused, or the service cannot be reached.
            SandboxError: anything else.
        """

        async def once() -> AsyncSprite:
            try:
                return await self.client.create_sprite(name, labels=labels, **details)
            except Exception as error:
                with contextlib.suppress(KaosRunnerError):
                    found = await self.find(name, attempts=1)
                    if found is not None and proof <= set(found.labels):
                        return found
                raise error

        return await self._ask(f"create sprite {name}", once, first=True)

    async def find(self, name: str, *, attempts: int | None = None) -> AsyncSprite | None:
        """The sprite of that name; None where there is none."""
        from sprites.exceptions import NotFoundError

        async def once() -> AsyncSprite | None:
            try:
                return await self.client.get_sprite(name)
            except NotFoundError:
                return None

        return await self._ask(f"find sprite {name}", once, attempts=attempts)

    async def get(self, name: str) -> AsyncSprite:
        """The sprite of that name, whether it sleeps or not.

        Raises:
            SandboxError: there is none.
        """
        return await self._ask(
            f"get sprite {name}", lambda: self.client.get_sprite(name), first=True
        )

    async def wake(self, sprite: AsyncSprite) -> None:
        """Reach into a sprite over HTTP, which waits longer for a cold start than a WebSocket."""
        await self._ask(f"wake sprite {sprite.name}", sprite.list_sessions)

    async def destroy(self, name: str) -> None:
        """Delete a sprite; already gone is success."""
        from sprites.exceptions import NotFoundError

        async def once() -> None:
            try:
                await self.client.destroy_sprite(name)
            except NotFoundError:
                return

        await self._ask(f"delete sprite {name}", once)

    async def set_policy(self, sprite: AsyncSprite, policy: NetworkPolicy) -> None:
        """Replace the network policy."""
        await self._ask("set network policy", lambda: sprite.update_network_policy(policy))

    async def set_url(self, sprite: AsyncSprite, auth: str) -> None:
        """Say who may open the sprite's URL."""
        from sprites.types import URLSettings

        settings = URLSettings(auth=auth)
        await self._ask("set url", lambda: sprite.update_url_settings(settings))

    async def checkpoint(self, sprite: AsyncSprite) -> str:
        """Make a checkpoint and learn its id, which only the list tells."""
        comment = f"kaos-runner before run {random.token_hex(4)}"

        async def once() -> str:
            if (made := await self._checkpoint_of(sprite, comment)) is None:
                _raise_error_event("create checkpoint", await sprite.create_checkpoint(comment))
                made = await self._checkpoint_of(sprite, comment)
            if made is None:
                msg = "the service made no checkpoint"
                raise SandboxError(msg)
            return made

        return await self._ask("create checkpoint", once)

    async def _checkpoint_of(self, sprite: AsyncSprite, comment: str) -> str | None:
        found: list[Checkpoint] = await sprite.list_checkpoints()
        return next((one.id for one in found if one.comment == comment), None)

    async def restore(self, sprite: AsyncSprite, checkpoint: str) -> None:
        """Ask for a checkpoint's state; the service brings it back some time after its answer."""

        async def once() -> None:
            _raise_error_event("restore checkpoint", await sprite.restore_checkpoint(checkpoint))

        await self._ask("restore checkpoint", once)

    async def all(self, *, attempts: int | None = None) -> AsyncIterator[SpriteInfo]:
        """Every sprite of the organisation, over all pages."""
        from sprites.types import ListOptions

        token: str | None = None
        while True:
            options = ListOptions(max_results=PAGE, continuation_token=token)
            call = partial(self.client.list_sprites, options)
            page = await self._ask("list sprites", call, attempts=attempts, first=True)
            for info in page.sprites:
                yield info
            token = page.next_continuation_token
            if not page.has_more or not token:
                return


def _raise_error_event(operation: str, messages: Any) -> None:
    """Raise what the SDK passes over: an `error` event under HTTP 200."""
    message: StreamMessage
    for message in messages:
        if message.type == "error" or message.error:
            msg = f"{operation} failed: {message.error or message.data or 'no reason given'}"
            raise SandboxError(msg)


def as_ours(operation: str, error: Exception, *, first: bool = False) -> KaosRunnerError:
    """An error of the SDK as one of ours.

    A token that is refused and a service that cannot be reached are prerequisites, but only at the
    `first` request of a run: later, they are failures of the sandbox.
    """
    from kaos_runner.kaos.sprites_retry import is_transient, reason_of, status_of

    status = status_of(error)
    if first and status in (401, 403):
        return PrerequisiteError(
            "the Sprites service refuses the token",
            hint="check SPRITE_TOKEN; `sprite org auth` makes a new one",
        )
    if first and status is None and is_transient(error):
        return PrerequisiteError(
            f"the Sprites service cannot be reached: {reason_of(error)}",
            hint="check the network and SPRITES_BASE_URL",
        )
    if status == 404:
        return SandboxError(f"{operation} failed: it does not exist", hint="list them: sprite list")
    if status == 409:
        hint = "connect to it with SPRITE_NAME, or choose another name"
        return SandboxError(f"{operation} failed: there is one of that name", hint=hint)
    return SandboxError(f"{operation} failed: {' '.join(str(error).split())[:500]}")
