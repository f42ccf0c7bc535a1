"""The conformance suites over BoxLite: emulated with both userlands, and in a real local box."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest

from kaos_runner.backends.base import Labels, SandboxRequest
from kaos_runner.backends.boxlite import BoxliteBackend
from kaos_runner.backends.boxlite_config import BoxliteConfig
from kaos_runner.recipe.model import Prompt, Recipe
from kaos_runner.testing.backend_suite import BackendConformance, World
from kaos_runner.testing.kaos_suite import KaosConformance
from tests.debian import need
from tests.emulators.boxlite import Emulator
from tests.emulators.boxlite_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kaos import Kaos

    from tests.emulators.boxlite_box import Userland

LABELS = Labels(run_id="20261123-090000-abcdef", recipe="suite", digest="0" * 64, version="0")
_numbers = itertools.count()


def request_for(config: BoxliteConfig, **environ: str) -> SandboxRequest:
    """A request with an empty workdir of its own."""
    recipe = Recipe(
        version=1,
        name="suite",
        backend=config,
        image="python:3.12-slim",
        workdir=f"/root/case-{next(_numbers)}",
        prompts=(Prompt(text="unused"),),
    )
    return SandboxRequest(recipe=recipe, environ=environ)


async def make_box(config: BoxliteConfig, **environ: str) -> str:
    """A box to connect to; its id."""
    sandbox = await BoxliteBackend().create(request_for(config, **environ), LABELS)
    await sandbox.detach()
    return sandbox.id


class _Emulated(KaosConformance):
    userland: ClassVar[Userland]
    emulator: ClassVar[Emulator]
    config: ClassVar[BoxliteConfig]
    box: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls) -> Iterator[None]:
        need(missing_packages(cls.userland))
        with Emulator(key="k", userland=cls.userland) as emulator:
            cls.emulator = emulator
            cls.config = BoxliteConfig(url=emulator.url)
            cls.box = asyncio.run(make_box(cls.config, BOXLITE_API_KEY="k"))
            yield

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        request = request_for(self.config, BOXLITE_API_KEY="k")
        sandbox = await BoxliteBackend().connect(request, self.box)
        try:
            yield sandbox.kaos
        finally:
            await sandbox.detach()


class TestGnu(_Emulated):
    userland = "gnu"


class TestBusybox(_Emulated):
    userland = "busybox"


class TestBackend(BackendConformance):
    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        need(missing_packages("gnu"))
        with Emulator(key="k", page_size=2) as emulator:
            request = request_for(
                BoxliteConfig(url=emulator.url),
                BOXLITE_API_KEY="k",
                BOXLITE_REST_URL=emulator.url,
            )
            yield World(BoxliteBackend(), request)
