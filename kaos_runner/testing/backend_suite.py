"""The conformance suite for a backend: create, connect, keep, destroy, and what is left behind."""

from __future__ import annotations

import asyncio
import functools
import inspect
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pytest

from kaos_runner.backends.base import Labels
from kaos_runner.errors import SandboxError
from kaos_runner.testing.case import Suite, sh, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from kaos_runner.backends.base import Backend, OwnedSandbox, Sandbox, SandboxRequest

SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class World:
    """A backend with a provider of its own, in which there is no sandbox of ours yet."""

    backend: Backend
    request: SandboxRequest
    """What every create and connect of the suite is asked with."""

    async def create(self, run_id: str = "suite-1", **changes: Any) -> Sandbox:
        """Create a sandbox for a run."""
        request = replace(self.request, **changes)
        return await within(self.backend.create(request, labels(run_id)), SECONDS)

    async def connect(self, sandbox_id: str) -> Sandbox:
        """Connect to a sandbox."""
        return await within(self.backend.connect(self.request, sandbox_id), SECONDS)

    async def owned(self) -> list[OwnedSandbox]:
        """What carries our labels."""
        return [found async for found in self.backend.owned(self.request.environ)]


class _HasWorld(Protocol):
    def world(self) -> AbstractAsyncContextManager[World]: ...


def labels(run_id: str) -> Labels:
    """The labels of a run of the suite."""
    return Labels(run_id=run_id, recipe="conformance", digest="d" * 64, version="0.1.0")


def backend_case[S: _HasWorld](test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a pytest method of `async def test_x(self, w)`: `w` is a fresh world."""
    signature = inspect.signature(test)
    parameters = [p for name, p in signature.parameters.items() if name != "w"]

    async def bound(suite: S, values: dict[str, Any]) -> None:
        async with suite.world() as w:
            await test(suite, w, **values)

    @functools.wraps(test)
    def run(self: S, **values: Any) -> None:
        asyncio.run(bound(self, values))

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


class BackendConformance(Suite):
    """Subclass it with a `world` method; pytest finds the cases."""

    unknown_id: ClassVar[str] = "nothing-has-this-id"
    turns: ClassVar[int] = 40
    """After how many turns of the loop a create is cancelled at most, one by one."""
    pauses: ClassVar[tuple[float, ...]] = (0.01, 0.03, 0.1)
    """Seconds after which it is cancelled besides; a test over a slow wire adds its own."""

    def world(self) -> AbstractAsyncContextManager[World]:
        """Give a backend, and a request for it, with a provider where nothing is ours yet."""
        raise NotImplementedError

    @backend_case
    async def test_create(self, w: World) -> None:
        sandbox = await w.create()
        assert sandbox.id
        wanted = w.request.recipe.workdir
        assert wanted is None or str(sandbox.kaos.getcwd()) == wanted
        await sandbox.kaos.writebytes("f", b"x")
        assert await sh(sandbox.kaos, "cat f") == b"x"
        await sandbox.destroy()

    @backend_case
    async def test_the_environment(self, w: World) -> None:
        recipe = w.request.recipe.model_copy(update={"env": {"SUITE_ENV": "a b'\"$\n"}})
        sandbox = await w.create(recipe=recipe, secrets={"SUITE_SECRET": "canary-1234"})
        output = await sh(sandbox.kaos, 'printf "%s|%s" "$SUITE_ENV" "$SUITE_SECRET"')
        assert output == b"a b'\"$\n|canary-1234"
        await sandbox.destroy()

    @backend_case
    async def test_a_connected_sandbox_has_the_environment_too(self, w: World) -> None:
        sandbox = await w.create(secrets={"SUITE_SECRET": "canary-1234"})
        await sandbox.detach()
        request = replace(w.request, secrets={"SUITE_SECRET": "canary-5678"})
        again = await within(w.backend.connect(request, sandbox.id), SECONDS)
        assert await sh(again.kaos, 'printf "$SUITE_SECRET"') == b"canary-5678"
        await again.destroy()

    @backend_case
    async def test_sandboxes_are_apart(self, w: World) -> None:
        one, two = await asyncio.gather(w.create("suite-1"), w.create("suite-2"))
        assert one.id != two.id
        await one.kaos.writebytes("f", b"x")
        with pytest.raises(FileNotFoundError):
            await two.kaos.readbytes("f")
        await one.destroy()
        assert await sh(two.kaos, "echo lives") == b"lives\n"
        await two.destroy()

    @backend_case
    async def test_destroy_leaves_nothing(self, w: World) -> None:
        sandbox = await w.create()
        await within(sandbox.destroy(), SECONDS)
        assert await w.owned() == []
        with pytest.raises(SandboxError):
            await w.connect(sandbox.id)

    @backend_case
    async def test_destroy_twice(self, w: World) -> None:
        sandbox = await w.create()
        await within(sandbox.destroy(), SECONDS)
        await within(sandbox.destroy(), SECONDS)

    @backend_case
    async def test_destroy_of_what_another_destroyed(self, w: World) -> None:
        one = await w.create()
        two = await w.connect(one.id)
        await within(two.destroy(), SECONDS)
        await within(one.destroy(), SECONDS)
        assert await w.owned() == []

    @backend_case
    async def test_destroy_ends_what_runs(self, w: World) -> None:
        sandbox = await w.create()
        process = await sandbox.kaos.exec("sleep", "1000")
        await within(sandbox.destroy(), SECONDS)
        assert await within(process.wait()) != 0
        with pytest.raises(OSError, match=r"."):
            await sandbox.kaos.stat("/")

    @backend_case
    async def test_detach_leaves_it_alone(self, w: World) -> None:
        sandbox = await w.create()
        await sandbox.kaos.writebytes("f", b"kept")
        await within(sandbox.detach(), SECONDS)
        await within(sandbox.detach(), SECONDS)
        assert [found.id for found in await w.owned()] == [sandbox.id]
        again = await w.connect(sandbox.id)
        assert (again.id, await again.kaos.readbytes("f")) == (sandbox.id, b"kept")
        assert again.kaos.getcwd() == sandbox.kaos.getcwd()
        await again.destroy()

    @backend_case
    async def test_destroy_after_detach(self, w: World) -> None:
        sandbox = await w.create()
        await within(sandbox.detach(), SECONDS)
        await within(sandbox.destroy(), SECONDS)
        assert await w.owned() == []

    @backend_case
    async def test_suspend_keeps_the_files(self, w: World) -> None:
        sandbox = await w.create()
        await sandbox.kaos.writebytes("f", b"kept")
        assert await within(sandbox.suspend(), SECONDS) in (True, False)
        again = await w.connect(sandbox.id)
        assert await again.kaos.readbytes("f") == b"kept"
        await again.destroy()

    @backend_case
    async def test_keepalive(self, w: World) -> None:
        sandbox = await w.create()
        for seconds in (60, 600):
            await within(sandbox.keepalive(timedelta(seconds=seconds)), SECONDS)
        assert await sh(sandbox.kaos, "echo lives") == b"lives\n"
        await sandbox.destroy()

    @backend_case
    async def test_connect_to_nothing(self, w: World) -> None:
        with pytest.raises(SandboxError):
            await w.connect(self.unknown_id)

    @backend_case
    async def test_owned_tells_the_labels(self, w: World) -> None:
        assert await w.owned() == []
        made = [await w.create(f"suite-{number}") for number in range(3)]
        found = {owned.run_id: owned for owned in await w.owned()}
        assert sorted(found) == ["suite-0", "suite-1", "suite-2"]
        for number, sandbox in enumerate(made):
            owned = found[f"suite-{number}"]
            assert (owned.id, owned.recipe) == (sandbox.id, "conformance")
            assert owned.backend == w.backend.name
            assert owned.created_at is None or owned.created_at.tzinfo is not None
            await sandbox.destroy()
        assert await w.owned() == []

    @backend_case
    async def test_create_cancelled_at_every_await(self, w: World) -> None:
        for turns in range(self.turns):
            creating = asyncio.ensure_future(w.create(f"suite-{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await _cancelled(creating)
        for pause in self.pauses:
            creating = asyncio.ensure_future(w.create())
            await asyncio.sleep(pause)
            await _cancelled(creating)
        assert await w.owned() == []

    @backend_case
    async def test_connect_cancelled_leaves_the_sandbox_alone(self, w: World) -> None:
        sandbox = await w.create()
        for turns in range(0, self.turns, 4):
            connecting = asyncio.ensure_future(w.connect(sandbox.id))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            await within(asyncio.wait([connecting]), SECONDS)
            if not connecting.cancelled():
                await connecting.result().detach()
        assert [found.id for found in await w.owned()] == [sandbox.id]
        assert await sh(sandbox.kaos, "echo lives") == b"lives\n"
        await sandbox.destroy()

    @backend_case
    async def test_destroy_cancelled_can_be_repeated(self, w: World) -> None:
        for turns in (0, 1, 2, 5, 10, 20):
            sandbox = await w.create()
            destroying = asyncio.ensure_future(sandbox.destroy())
            for _ in range(turns):
                await asyncio.sleep(0)
            destroying.cancel()
            await within(asyncio.wait([destroying]), SECONDS)
            await within(sandbox.destroy(), SECONDS)
        assert await w.owned() == []

    @backend_case
    async def test_what_a_person_is_told(self, w: World) -> None:
        sandbox = await w.create()
        for told in (
            w.backend.connect_command(sandbox.id),
            w.backend.remove_command(sandbox.id),
        ):
            assert told
        assert isinstance(w.backend.problems(w.request.recipe, w.request.environ), list)
        await sandbox.destroy()


async def _cancelled(creating: asyncio.Future[Sandbox]) -> None:
    """Cancel a create; what it made before it noticed is destroyed, as the runner would."""
    creating.cancel()
    await within(asyncio.wait([creating]), SECONDS)
    if creating.cancelled():
        return
    await creating.result().destroy()
