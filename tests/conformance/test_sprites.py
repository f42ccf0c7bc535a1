"""The conformance suites over Sprites: emulated in both ways of listing a directory, and live."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
from sprites.async_client import AsyncSpritesClient

from kaos_runner.kaos.posix import PosixKaos
from kaos_runner.kaos.sprites import HOME, NAME, SpritesTransport
from kaos_runner.testing.kaos_suite import KaosConformance
from tests.debian import need
from tests.emulators.sprites import SpritesEmulator
from tests.emulators.sprites_machine import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SPRITE = "kimi-agent-conformance"
_numbers = itertools.count()


@asynccontextmanager
async def kaos_in(token: str, url: str, sprite: str) -> AsyncIterator[PosixKaos]:
    """A Kaos in a sprite that exists, with an empty working directory of its own."""
    workdir = f"{HOME}/case-{next(_numbers)}"
    async with AsyncSpritesClient(token, url) as client:
        transport = SpritesTransport(
            client.sprite(sprite),
            env={},
            on_retry=lambda *_: None,
            on_lost=lambda _: None,
        )
        await transport.run(["mkdir", workdir], cwd=None)
        kaos = PosixKaos(transport, name=NAME, home=HOME, cwd=workdir)
        try:
            yield kaos
        finally:
            await kaos.aclose()
            await transport.aclose()


async def _create(emulator: SpritesEmulator) -> None:
    async with AsyncSpritesClient(emulator.token, emulator.url) as client:
        await client.create_sprite(SPRITE)


class _Emulated(KaosConformance):
    listing: ClassVar[str]
    emulator: ClassVar[SpritesEmulator]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        need(missing_packages())
        with SpritesEmulator(listing=cls.listing, run_on=1.0) as emulator:
            cls.emulator = emulator
            asyncio.run(_create(emulator))
            yield
            assert emulator.settled() == []

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[PosixKaos]:
        async with kaos_in(self.emulator.token, self.emulator.url, SPRITE) as kaos:
            yield kaos


class TestListingChildren(_Emulated):
    listing = "children"


class TestListingSelf(_Emulated):
    listing = "self"
