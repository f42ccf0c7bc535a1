"""The conformance suites over Sprites: emulated in both ways of listing a directory, and live."""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

import pytest

from kaos_runner.backends.base import SandboxRequest
from kaos_runner.backends.sprites import SpritesBackend
from kaos_runner.backends.sprites_config import SpritesConfig
from kaos_runner.recipe.model import Prompt, Recipe
from kaos_runner.testing import BackendConformance, KaosConformance
from kaos_runner.testing.backend_suite import World, labels
from tests.debian import need
from tests.emulators.sprites import SpritesEmulator
from tests.emulators.sprites_machine import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from kaos import Kaos

_numbers = itertools.count()


def request_of(environ: Mapping[str, str], workdir: str) -> SandboxRequest:
    """What a run gives the backend, with these variables."""
    recipe = Recipe(
        version=1,
        name="conformance",
        backend=SpritesConfig(),
        workdir=workdir,
        prompts=(Prompt(text="x"),),
    )
    return SandboxRequest(recipe=recipe, environ=environ)


class _InOneSprite(KaosConformance):
    """One sprite for all cases; each connects, and gets a directory of its own."""

    environ: ClassVar[Mapping[str, str]]
    sandbox_id: ClassVar[str]

    @classmethod
    def _create(cls) -> None:
        async def create() -> str:
            request = request_of(cls.environ, "/home/sprite/first")
            sandbox = await SpritesBackend().create(request, labels("suite"))
            await sandbox.detach()
            return sandbox.id

        cls.sandbox_id = asyncio.run(create())

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        """An empty directory in the sprite."""
        request = request_of(self.environ, f"/home/sprite/case-{next(_numbers)}")
        sandbox = await SpritesBackend().connect(request, self.sandbox_id)
        try:
            yield sandbox.kaos
        finally:
            await sandbox.detach()


class _Emulated(_InOneSprite):
    listing: ClassVar[Literal["children", "self"]]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        need(missing_packages())
        with SpritesEmulator(listing=cls.listing, run_on=1.0) as emulator:
            cls.environ = emulator.environ
            cls._create()
            yield
            assert emulator.settled() == []


class TestListingChildren(_Emulated):
    """KAOS over a service that lists a directory's entries."""

    listing = "children"


class TestListingSelf(_Emulated):
    """KAOS over a service that lists the directory itself first."""

    listing = "self"


class TestSpritesBackend(BackendConformance):
    """The backend over the emulator, with a service of its own for each case."""

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        """A service without sprites."""
        need(missing_packages())
        with SpritesEmulator(run_on=1.0) as emulator:
            yield World(SpritesBackend(), request_of(emulator.environ, "/home/sprite/work"))
            assert emulator.names == []


@pytest.mark.live
class TestLiveSprites(_InOneSprite):
    """KAOS over the service itself, with the token of the environment."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        cls.environ = dict(os.environ)
        cls._create()
        yield
        asyncio.run(_destroy(cls.environ, cls.sandbox_id))


async def _destroy(environ: Mapping[str, str], name: str) -> None:
    request = request_of(environ, "/home/sprite/first")
    await (await SpritesBackend().connect(request, name)).destroy()
