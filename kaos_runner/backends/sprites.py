"""Sandboxes in Fly.io Sprites: machines that sleep when idle and keep their files.

Facts of the service: a sprite pauses after about 30 seconds without a request and wakes with the
next one; asleep, its storage is billed and its compute is not (docs.sprites.dev).
"""

from __future__ import annotations

import asyncio
import re
import secrets as random
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar

from kaos_runner.backends.base import Defaults, Diagnosis, Feature, OwnedSandbox
from kaos_runner.backends.sprites_config import (
    NAME_PATTERN,
    SpritesConfig,
    config_of,
    of_fields,
    of_hosts,
    policy_of,
    sizes_of,
    wishes_of,
)
from kaos_runner.errors import KaosRunnerError, Problem, SandboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from sprites.async_sprite import AsyncSprite
    from sprites.types import SpriteInfo

    from kaos_runner.backends.base import Labels, SandboxRequest
    from kaos_runner.backends.sprites_sandbox import SpriteSandbox
    from kaos_runner.backends.sprites_service import SpriteService
    from kaos_runner.kaos.sprites import SpritesTransport
    from kaos_runner.recipe.model import BackendConfig, Recipe

PREFIX = "kimi-agent-"
UNDO_PATIENCE = 30.0
"""Seconds that a cancelled create may take to come to its end, before it is looked for."""

_RUN, _RECIPE = "kaos-runner-run-id=", "kaos-runner-recipe="
_PASSED_ON = "passed on; the service may accept and ignore it"


class SpritesBackend:
    """Makes, finds and ends sprites."""

    name: ClassVar[str] = "sprites"
    config: ClassVar[type[BackendConfig]] = SpritesConfig
    defaults: ClassVar[Defaults] = Defaults(
        workdir="/home/sprite/kimi-workdir",
        cleanup="never",
        cleanup_env=("SPRITE_DELETE_ON_EXIT", "always"),
    )
    features: ClassVar[Mapping[str, Feature]] = {
        "image": Feature("refuses", "a sprite has no image: install what is needed in `setup`"),
        "network": Feature("honours", "by name (DNS); addresses are not filtered"),
        "cleanup": Feature(
            "honours",
            "by default a created sprite stays; idle, it sleeps, and its storage is billed but "
            "not its compute; `sprite destroy -s NAME` deletes it",
        ),
        "backend.region": Feature("honours", _PASSED_ON),
        "backend.cpus": Feature("honours", _PASSED_ON),
        "backend.memory": Feature("honours", _PASSED_ON),
        "backend.storage": Feature("honours", _PASSED_ON),
    }
    environ: ClassVar[Sequence[str]] = (
        "SPRITE_TOKEN",
        "SPRITE_NAME",
        "SPRITES_BASE_URL",
        "SPRITE_DELETE_ON_EXIT",
    )

    def sandbox_id(self, recipe: Recipe, environ: Mapping[str, str]) -> str | None:
        """The sprite to connect to: the recipe's, or `SPRITE_NAME`."""
        return config_of(recipe).name or environ.get("SPRITE_NAME") or None

    # -- problems

    def problems(self, recipe: Recipe, environ: Mapping[str, str]) -> list[Problem]:
        """What is missing or cannot be, found without the network."""
        found = [*of_fields(recipe), *of_hosts(recipe.network)]
        if not environ.get("SPRITE_TOKEN"):
            hint = "export SPRITE_TOKEN; `sprite org auth` makes one"
            found.append(Problem(message="the Sprites token is missing", hint=hint))
        name = environ.get("SPRITE_NAME")
        if name and not re.fullmatch(NAME_PATTERN, name):
            found.append(Problem(message="SPRITE_NAME is not the name of a sprite"))
        return found

    # -- create and connect

    async def create(self, request: SandboxRequest, labels: Labels) -> SpriteSandbox:
        """Create a sprite with its workdir; if this fails or is cancelled, it is deleted again.

        Raises:
            PrerequisiteError: the token is refused, or the service cannot be reached.
            SandboxError: anything else.
        """
        config = config_of(request.recipe)
        name = config.create_as or PREFIX + random.token_hex(4)
        texts = [f"{key}={value}" for key, value in labels.as_dict().items()]
        # A name that was drawn is proof enough that a sprite is ours; a given one needs our labels.
        proof = frozenset(texts if config.create_as else ())
        service = _service(request)
        creating = asyncio.ensure_future(
            service.create(name, texts, proof=proof, **wishes_of(config))
        )
        try:
            sprite = await asyncio.shield(creating)
            if sizes_of(config):
                request.notify("info", "Sprites may ignore region and sizes")
            return await self._open(service, sprite, request)
        except BaseException:
            undo = _undo(service, creating, name, proof)
            if not await _finish(undo):
                left = f"the sprite {name} may be left behind: {self.remove_command(name)}"
                request.notify("warning", left)
            raise

    async def connect(self, request: SandboxRequest, sandbox_id: str) -> SpriteSandbox:
        """Take up a sprite, and wake it.

        Raises:
            SandboxError: there is none of that name, or it does not answer.
        """
        service = _service(request)
        try:
            sprite = await service.get(sandbox_id)
            if (url := config_of(request.recipe).url) is not None:
                await service.set_url(sprite, url)
            return await self._open(service, sprite, request)
        except BaseException:
            await _finish(service.aclose())
            raise

    async def _open(
        self, service: SpriteService, sprite: AsyncSprite, request: SandboxRequest
    ) -> SpriteSandbox:
        from kaos_runner.backends.sprites_sandbox import SpriteSandbox
        from kaos_runner.kaos.posix import PosixKaos
        from kaos_runner.kaos.sprites import NAME, SpritesTransport

        recipe = request.recipe
        await service.wake(sprite)
        policy = policy_of(recipe.network)
        if policy is not None:
            await service.set_policy(sprite, policy)
        env = {**recipe.env, **request.secrets}
        transport = SpritesTransport(
            sprite, env=env, on_retry=request.on_retry, on_lost=request.on_lost
        )
        workdir = recipe.workdir or self.defaults.workdir or "/"
        home = await _make_workdir(transport, workdir)
        kaos = PosixKaos(transport, name=NAME, home=home, cwd=workdir)
        return SpriteSandbox(service, sprite, kaos, config_of(recipe), request.notify)

    # -- what there is

    async def owned(self, environ: Mapping[str, str]) -> AsyncIterator[OwnedSandbox]:
        """Every sprite that carries our labels, over all pages."""
        service = _service_of(environ)
        async with aclosing(service):
            async for info in service.all():
                labels = info.labels
                if not labels and info.name.startswith(PREFIX):  # a list need not show labels
                    found = await service.find(info.name)
                    labels = found.labels if found is not None else []
                if (owned := _owned(info, labels)) is not None:
                    yield owned

    def connect_command(self, sandbox_id: str) -> str:
        """A command line in the sprite."""
        return f"sprite console -s {sandbox_id}"

    def remove_command(self, sandbox_id: str) -> str:
        """Its deletion by hand."""
        return f"sprite destroy -s {sandbox_id}"

    async def diagnose(self, environ: Mapping[str, str], *, online: bool) -> list[Diagnosis]:
        """The token, and with `online` whether the service takes it."""
        token = bool(environ.get("SPRITE_TOKEN"))
        hint = None if token else "export SPRITE_TOKEN; `sprite org auth` makes one"
        detail = "SPRITE_TOKEN is set" if token else "SPRITE_TOKEN is not set"
        found = [Diagnosis(subject="sprites token", ok=token, detail=detail, hint=hint)]
        if online and token:
            found.append(await _ask_service(environ))
        return found


def _service(request: SandboxRequest) -> SpriteService:
    from kaos_runner.backends.sprites_service import SpriteService

    return SpriteService(request.environ, request.on_retry)


def _service_of(environ: Mapping[str, str]) -> SpriteService:
    from kaos_runner.backends.sprites_service import SpriteService

    return SpriteService(environ, lambda *_: None)


async def _make_workdir(transport: SpritesTransport, workdir: str) -> str:
    """Make the workdir, and learn the sprite's HOME on the way.

    Raises:
        SandboxError: it cannot be made, or the sprite does not answer.
    """
    from kaos_runner.kaos.sprites import HOME

    script = 'mkdir -p "$1" && cd "$1" && printf %s "$HOME"'
    try:
        done = await transport.run(["sh", "-c", script, "sh", workdir], cwd=None)
    except OSError as error:
        raise SandboxError(str(error)) from error
    if done.exit_code:
        msg = f"cannot make the workdir {workdir}: {done.stderr.decode(errors='replace').strip()}"
        raise SandboxError(msg)
    return done.stdout.decode(errors="replace") or HOME


async def _undo(
    service: SpriteService,
    creating: asyncio.Future[AsyncSprite],
    name: str,
    proof: frozenset[str],
) -> None:
    """Delete the sprite of a create that failed or was cancelled, if it came to be and is ours."""
    try:
        await asyncio.wait([creating], timeout=UNDO_PATIENCE)  # cut short, it could still succeed
        creating.cancel()
        await asyncio.wait([creating])
        if not creating.cancelled() and _was_refused(creating.exception()):
            return
        found = await service.find(name)
        if found is not None and proof <= set(found.labels):
            await service.destroy(name)
    finally:
        await service.aclose()


def _was_refused(error: BaseException | None) -> bool:
    """Whether the service said clearly that it made nothing."""
    from kaos_runner.kaos.sprites_retry import status_of

    cause = error.__cause__ if error is not None else None
    return cause is not None and status_of(cause) in (400, 401, 403, 409)


async def _finish(work: Coroutine[object, object, None]) -> bool:
    """Let clean-up come to its end, whatever is cancelled meanwhile; False where it failed."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    return not task.cancelled() and task.exception() is None


def _owned(info: SpriteInfo, labels: list[str]) -> OwnedSandbox | None:
    run = next((t.removeprefix(_RUN) for t in labels if t.startswith(_RUN)), None)
    if run is None:
        return None
    recipe = next((t.removeprefix(_RECIPE) for t in labels if t.startswith(_RECIPE)), "")
    return OwnedSandbox(
        backend=SpritesBackend.name,
        id=info.name,
        run_id=run,
        recipe=recipe,
        created_at=info.created_at,
        state=info.status,
    )


async def _ask_service(environ: Mapping[str, str]) -> Diagnosis:
    service = _service_of(environ)
    try:
        async with aclosing(service):
            total = len([info async for info in service.all(attempts=1)])
    except KaosRunnerError as error:
        return Diagnosis(subject="sprites service", ok=False, detail=str(error), hint=error.hint)
    return Diagnosis(subject="sprites service", ok=True, detail=f"answers; {total} sprites")
