"""Sandboxes in BoxLite: micro-VMs on this machine, or on a BoxLite server.

A box has no labels of its own, so its name carries them: `kaos-runner.RUN.DIGEST.RECIPE`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from kaos_runner.backends import boxlite_config, boxlite_doctor
from kaos_runner.backends.base import Defaults, Feature
from kaos_runner.backends.boxlite_config import BoxliteConfig, config_of, home_of, server_url
from kaos_runner.backends.boxlite_errors import mapped
from kaos_runner.errors import KaosRunnerError, SandboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

    from kaos_runner.backends.base import Diagnosis, Labels, OwnedSandbox, SandboxRequest
    from kaos_runner.backends.boxlite_runtime import Place
    from kaos_runner.backends.boxlite_sandbox import BoxliteSandbox
    from kaos_runner.errors import Problem
    from kaos_runner.kaos.boxlite_sdk import Box
    from kaos_runner.recipe.model import BackendConfig, Recipe


class BoxliteBackend:
    """Makes, finds and ends boxes."""

    name: ClassVar[str] = "boxlite"
    config: ClassVar[type[BackendConfig]] = BoxliteConfig
    defaults: ClassVar[Defaults] = Defaults(
        workdir="/root/kimi-workdir",
        image=boxlite_config.IMAGE,
        image_env=boxlite_config.IMAGE_ENV,
        has_image=True,
    )
    features: ClassVar[Mapping[str, Feature]] = {
        "network.allow": Feature("honours", "names, with wildcards, addresses and networks"),
        "network.deny": Feature("refuses", "BoxLite knows only what is allowed"),
        "cleanup": Feature("honours", "a box that is kept is stopped: its disk stays"),
        "backend.volumes": Feature("honours", "on this machine only"),
        "backend.registries": Feature("honours", "on this machine only"),
    }
    environ: ClassVar[Sequence[str]] = (
        boxlite_config.IMAGE_ENV,
        boxlite_config.URL_ENV,
        boxlite_config.KEY_ENV,
        boxlite_config.PREFIX_ENV,
        boxlite_config.HOME_ENV,
    )

    def __init__(self) -> None:
        self._command = "boxlite"

    def sandbox_id(self, recipe: Recipe, environ: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """The box to connect to, by id or name."""
        return config_of(recipe).box

    def problems(self, recipe: Recipe, environ: Mapping[str, str]) -> list[Problem]:
        """What is missing or cannot be, found without the network."""
        return list(boxlite_config.problems(recipe, environ))

    async def create(self, request: SandboxRequest, labels: Labels) -> BoxliteSandbox:
        """Create and start a box; if this fails or is cancelled, it is removed again.

        Raises:
            PrerequisiteError: no box can run here; the server refuses the key or is not there.
            SandboxError: the image cannot be pulled, the VM does not boot, anything else.
        """
        place = await self._open(request)
        making = asyncio.ensure_future(_make(place, request, labels))
        return await _seen_through(making)

    async def connect(self, request: SandboxRequest, sandbox_id: str) -> BoxliteSandbox:
        """Take up a box, starting it when it is stopped.

        Raises:
            SandboxError: it does not exist any more, or does not start.
        """
        place = await self._open(request)
        taking = asyncio.ensure_future(_take(place, request, sandbox_id))
        return await _seen_through(taking)

    async def _open(self, request: SandboxRequest) -> Place:
        from kaos_runner.backends.boxlite_runtime import open_place

        place = await open_place(config_of(request.recipe), request.environ)
        self._command = place.command
        return place

    async def owned(self, environ: Mapping[str, str]) -> AsyncIterator[OwnedSandbox]:
        """Every box with a name of ours: on the server that is set, or else on this machine."""
        from kaos_runner.backends.boxlite_listing import boxes
        from kaos_runner.backends.boxlite_request import owned
        from kaos_runner.backends.boxlite_runtime import open_place

        local = not server_url(BoxliteConfig(), environ)
        if local and not (home_of(None, environ) / "db").exists():
            return  # nothing was ever made here, and looking would make a home
        place = await open_place(None, environ)
        self._command = place.command
        try:
            async for box in boxes(place):
                if (found := owned(box)) is not None:
                    yield found
        finally:
            await place.release()

    def connect_command(self, sandbox_id: str) -> str:
        """A shell in the box, by BoxLite's own command line."""
        return f"{self._command} exec -it {sandbox_id} sh"

    def remove_command(self, sandbox_id: str) -> str:
        """Its removal, by BoxLite's own command line."""
        return f"{self._command} rm -f {sandbox_id}"

    async def diagnose(self, environ: Mapping[str, str], *, online: bool) -> list[Diagnosis]:
        """The SDK, KVM or the server; with `online`, whether it answers and whether a VM boots."""
        return await boxlite_doctor.diagnose(environ, online=online)


async def _seen_through(work: asyncio.Future[BoxliteSandbox]) -> BoxliteSandbox:
    """The result; a cancellation is passed on, and its clean-up awaited, however often it comes."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            work.cancel()
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        if not work.cancelled() and work.exception() is None:
            await work.result().destroy()
        raise


async def _make(place: Place, request: SandboxRequest, labels: Labels) -> BoxliteSandbox:
    """Create, start and prepare; a box that does not come so far is removed."""
    from kaos_runner.backends.boxlite_request import box_name
    from kaos_runner.backends.boxlite_sandbox import open_box

    name = box_name(labels)
    try:
        box = await _created(place, request, name)
        await _started(box, request)
        return await open_box(place, box, request, _workdir(request.recipe))
    except BaseException as error:
        await _finished(_undo(place, request, name))
        if isinstance(error, KaosRunnerError | asyncio.CancelledError):
            raise
        raise mapped(error, "create the box") from error


async def _created(place: Place, request: SandboxRequest, name: str) -> Box:
    """Ask for the box; an answer under way is awaited, or it could come to be after all."""
    from kaos_runner.backends.boxlite_request import options
    from kaos_runner.kaos.boxlite_sdk import call

    wanted = options(request, remote=place.home is None)
    asking = asyncio.ensure_future(
        call(
            "create box",
            lambda: place.runtime.create(wanted, name=name),
            on_retry=request.on_retry,
        )
    )
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await _finished(asyncio.wait([asking]))
        if not asking.cancelled():
            asking.exception()  # the removal by name comes next, whatever it is
        raise


async def _started(box: Box, request: SandboxRequest) -> None:
    from kaos_runner.kaos.boxlite_sdk import call

    seconds = config_of(request.recipe).start_timeout
    try:
        await call("start box", box.start, seconds=seconds, on_retry=request.on_retry)
    except (RuntimeError, TimeoutError) as error:
        raise mapped(error, f"start the box within {seconds:.0f} s") from error


async def _undo(place: Place, request: SandboxRequest, name: str) -> None:
    from kaos_runner.backends.boxlite_sandbox import remove

    try:
        await remove(place.runtime, name)
    except KaosRunnerError as error:
        if place.home is not None or not _unreachable(error):
            hint = f"look for it with `kaos-runner reap`: {error.message}"
            request.notify("warning", f"a box may be left behind; {hint}")
    finally:
        await place.release(failed=True)


def _unreachable(error: KaosRunnerError) -> bool:
    from kaos_runner.errors import PrerequisiteError

    return isinstance(error, PrerequisiteError)


async def _take(place: Place, request: SandboxRequest, sandbox_id: str) -> BoxliteSandbox:
    """Find, start and prepare a box that was there before."""
    from kaos_runner.backends.boxlite_request import outbound
    from kaos_runner.backends.boxlite_sandbox import open_box
    from kaos_runner.kaos.boxlite_sdk import call

    try:
        box = await call("get box", lambda: place.runtime.get(sandbox_id))
        if box is None:
            msg = f"there is no box {sandbox_id!r} (any more)"
            hint = "`backend.box` names it; without that, one is created"
            raise SandboxError(msg, hint=hint)
        await _started(box, request)
        if request.recipe.network.default == "deny":
            wanted = outbound(request.recipe.network)
            await call("restrict", lambda: box.network.update_outbound(wanted))
        return await open_box(place, box, request, _workdir(request.recipe))
    except BaseException as error:
        await place.release()
        if isinstance(error, KaosRunnerError | asyncio.CancelledError):
            raise
        raise mapped(error, f"connect to the box {sandbox_id}") from error


async def _finished(work: Awaitable[object]) -> None:
    """Let clean-up come to its end, whatever is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    task.result()


def _workdir(recipe: Recipe) -> str:
    return recipe.workdir or BoxliteBackend.defaults.workdir or "/"
