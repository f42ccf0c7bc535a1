"""What an operation in a sprite costs over the emulator, beside the SDK's own way of running."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from sprites.async_client import AsyncSpritesClient

from kaos_runner.kaos.sprites import SpritesTransport
from tests.emulators.sprites import SpritesEmulator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 50
CONCURRENT = 200
SIZE = 100_000_000


def main() -> None:
    """Print all of it."""
    with SpritesEmulator() as emulator:
        asyncio.run(_measure(emulator))


async def _measure(emulator: SpritesEmulator) -> None:
    async with AsyncSpritesClient(emulator.token, emulator.url) as client:
        sprite = await client.create_sprite("bench")
        transport = SpritesTransport(
            sprite, env={}, on_retry=lambda *_: None, on_lost=lambda _: None
        )
        await transport.run(["true"], cwd=None)
        ours = await _seconds(lambda: transport.run(["true"], cwd=None), ROUNDS)
        theirs = await _seconds(lambda: sprite.run("true"), ROUNDS)
        print(f"one command: {ours * 1000:.1f} ms; the SDK's run(): {theirs * 1000:.1f} ms")
        await _concurrent(transport)
        await _output(transport)
        await transport.aclose()


async def _seconds(operation: Callable[[], Awaitable[object]], rounds: int) -> float:
    started = time.perf_counter()
    for _ in range(rounds):
        await operation()
    return (time.perf_counter() - started) / rounds


async def _concurrent(transport: SpritesTransport) -> None:
    before, started = threading.active_count(), time.perf_counter()
    processes = await asyncio.gather(
        *(transport.start(["cat"], cwd="/") for _ in range(CONCURRENT))
    )
    open_, threads = time.perf_counter() - started, threading.active_count() - before
    started = time.perf_counter()
    await asyncio.gather(*(process.kill() for process in processes))
    killed = time.perf_counter() - started
    print(f"{CONCURRENT} processes: {open_:.1f} s to start, {threads} threads more, "
          f"{killed:.1f} s to kill")  # fmt: skip


async def _output(transport: SpritesTransport) -> None:
    started = time.perf_counter()
    process = await transport.start(["head", "-c", str(SIZE), "/dev/zero"], cwd="/")
    while await process.stdout.read(2**20):
        pass
    await process.wait()
    print(f"output: {SIZE / 1e6 / (time.perf_counter() - started):.0f} MB/s")
