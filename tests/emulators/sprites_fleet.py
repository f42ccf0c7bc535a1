"""The sprites of the emulated service: how they wake, sleep and end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.emulators.sprites_machine import Machine
from tests.emulators.sprites_sessions import cut_connection

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from tests.emulators.sprites_faults import Behaviour
    from tests.emulators.sprites_sessions import Session

ORGANISATION = "emulated"


def now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(slots=True)
class Sprite:
    """One sprite as the service knows it."""

    name: str
    machine: Machine
    asked: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid4()))
    created_at: str = field(default_factory=now)
    labels: list[str] = field(default_factory=list)
    url_settings: dict[str, Any] = field(default_factory=lambda: {"auth": "sprite"})
    rules: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    sessions: dict[int, Session] = field(default_factory=dict)
    used_at: float = field(default_factory=time.monotonic)
    waking: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: bool = False

    def info(self, *, labels: bool = True) -> dict[str, Any]:
        """What `GET` on it says."""
        return {
            "id": self.id,
            "name": self.name,
            "organization": ORGANISATION,
            "status": "running" if self.machine.awake else "cold",
            "config": self.asked.get("config", {}),
            "labels": self.labels if labels else [],
            "url": f"https://{self.name}-{ORGANISATION}.sprites.invalid",
            "url_settings": self.url_settings,
            "primary_region": self.asked.get("config", {}).get("region", "emu"),
            "created_at": self.created_at,
            "updated_at": self.created_at,
        }

    def live(self) -> list[Session]:
        """Sessions whose process runs."""
        return [s for s in self.sessions.values() if s.exit_code is None]


class Fleet:
    """All sprites; lives on one event loop."""

    def __init__(self, directory: Path, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.sprites: dict[str, Sprite] = {}
        self._directory = directory
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, name: str, asked: dict[str, Any]) -> Sprite:
        """Make a sprite as it was asked for."""
        machine = Machine(self._directory / f"{name}-{uuid4().hex[:8]}")
        sprite = self.sprites[name] = Sprite(name, machine, asked)
        if self.behaviour.labels_kept:
            sprite.labels = list(asked.get("labels") or [])
        sprite.url_settings |= asked.get("url_settings") or {}
        return sprite

    async def wake(self, sprite: Sprite) -> None:
        """Wait until it is awake, which it becomes although nobody may wait any longer."""
        sprite.used_at = time.monotonic()
        await asyncio.shield(self.background(self._wake(sprite)))

    async def _wake(self, sprite: Sprite) -> None:
        async with sprite.waking:
            if not sprite.machine.awake:
                await asyncio.sleep(self.behaviour.cold_wake)
                await sprite.machine.start()

    async def remove(self, sprite: Sprite) -> None:
        """End and forget a sprite."""
        sprite.gone = True
        self.sprites.pop(sprite.name, None)
        await self.cut_all(sprite)
        await self.sleep(sprite)
        shutil.rmtree(sprite.machine.root.parent, ignore_errors=True)

    async def sleep(self, sprite: Sprite) -> None:
        """End everything in a sprite, as when it goes cold."""
        await sprite.machine.stop()
        for session in sprite.live():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(session.ended.wait(), 5)

    async def cut_all(self, sprite: Sprite) -> None:
        """End every connection to it."""
        for session in sprite.live():
            for client in list(session.clients):
                session.clients.remove(client)
                await cut_connection(client, clean=True)

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that outlives the request that asked for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def watch_idle(self) -> None:
        """Send to sleep what is not used."""
        while True:
            await asyncio.sleep(0.05)
            idle = self.behaviour.idle
            for sprite in list(self.sprites.values()):
                busy = idle is None or sprite.live() or sprite.waking.locked()
                if not busy and time.monotonic() - sprite.used_at > (idle or 0):
                    await self.sleep(sprite)

    async def close(self) -> None:
        """End everything."""
        for sprite in list(self.sprites.values()):
            await self.remove(sprite)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
