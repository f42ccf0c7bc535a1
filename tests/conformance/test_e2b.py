"""The conformance suites over E2B: its emulator, and with `--live` the service itself."""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest

from kaos_runner.backends.base import Labels, SandboxRequest
from kaos_runner.backends.e2b import E2bBackend, E2bConfig
from kaos_runner.recipe.model import Prompt, Recipe
from kaos_runner.testing import BackendConformance, KaosConformance
from kaos_runner.testing.backend_suite import World
from tests.debian import need
from tests.emulators.e2b import running
from tests.emulators.e2b_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from kaos import Kaos

LABELS = Labels(run_id="conformance", recipe="conformance", digest="0", version="0")
_numbers = itertools.count()


def request_of(environ: Mapping[str, str], workdir: str | None = None) -> SandboxRequest:
    """What a run gives the backend, with these variables."""
    recipe = Recipe(
        version=1,
        name="conformance",
        backend=E2bConfig(),
        workdir=workdir,
        prompts=(Prompt(text="x"),),
    )
    return SandboxRequest(recipe=recipe, environ=environ)


class _InOneSandbox(KaosConformance):
    """One sandbox for all cases; each connects, and gets a directory of its own."""

    environ: ClassVar[Mapping[str, str]]
    sandbox_id: ClassVar[str]

    @classmethod
    def _create(cls, environ: Mapping[str, str]) -> None:
        cls.environ = environ
        creating = E2bBackend().create(request_of(environ), LABELS)
        cls.sandbox_id = asyncio.run(creating).id

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        """An empty directory in the sandbox."""
        request = request_of(self.environ, f"/home/user/case-{next(_numbers)}")
        sandbox = await E2bBackend().connect(request, self.sandbox_id)
        try:
            yield sandbox.kaos
        finally:
            await sandbox.detach()


class TestE2bKaos(_InOneSandbox):
    """KAOS over the emulator."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        need(missing_packages())
        with running() as emulator:
            cls._create(emulator.environ())
            yield


@pytest.mark.live
class TestLiveE2bKaos(_InOneSandbox):
    """KAOS over the service, with the key of the environment."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        if not os.environ.get("E2B_API_KEY"):
            pytest.skip("E2B_API_KEY is not set")
        cls._create(dict(os.environ))
        yield
        asyncio.run(_destroy(cls.environ, cls.sandbox_id))


class TestE2bBackend(BackendConformance):
    """The backend over the emulator; each case has an account of its own."""

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        """An account without sandboxes, where nothing is left afterwards."""
        need(missing_packages())
        with running() as emulator:
            yield World(E2bBackend(), request_of(emulator.environ()))
            assert not emulator.fleet.sandboxes


@pytest.mark.live
class TestLiveE2bBackend(BackendConformance):
    """The backend over the service; the account must hold no sandbox of ours."""

    turns: ClassVar[int] = 0
    pauses: ClassVar[tuple[float, ...]] = (0.1, 0.5, 2.0)

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        """The account of the key in the environment."""
        if not os.environ.get("E2B_API_KEY"):
            pytest.skip("E2B_API_KEY is not set")
        yield World(E2bBackend(), request_of(dict(os.environ)))


async def _destroy(environ: Mapping[str, str], sandbox_id: str) -> None:
    from kaos_runner.backends.e2b_service import E2bService

    await E2bService(environ).kill(sandbox_id)
