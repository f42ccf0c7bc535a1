"""Checkpoints and policy of an emulated sprite."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.emulators.sprites_fleet import now

if TYPE_CHECKING:
    from tests.emulators.sprites_fleet import Fleet, Sprite


def events(*lines: dict[str, Any]) -> web.Response:
    """A stream of events, one JSON object a line."""
    text = "".join(json.dumps({**line, "time": now()}) + "\n" for line in lines)
    return web.Response(text=text, content_type="application/x-ndjson")


class State:
    """The calls below `/checkpoint`, `/checkpoints` and `/policy`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def checkpoint(self, request: web.Request) -> web.StreamResponse:
        """Make one; its id is told by the list alone."""
        sprite: Sprite = request["sprite"]
        await self._fleet.wake(sprite)
        comment = json.loads(await request.read() or b"{}").get("comment", "")
        begin = {"type": "info", "data": "Creating checkpoint..."}
        if request["fault"] is not None and request["fault"].kind == "error_event":
            return events(begin, {"type": "error", "error": "Checkpoint failed: disk full"})
        name = f"v{len(sprite.checkpoints)}"
        await sprite.machine.save(name)
        sprite.checkpoints.append({"id": name, "create_time": now(), "comment": comment})
        return events(begin, {"type": "complete", "data": f"Checkpoint {name} created"})

    async def checkpoints(self, request: web.Request) -> web.Response:
        """All of them, the latest first, or a single one."""
        sprite: Sprite = request["sprite"]
        if request["operation"] == "checkpoints":
            return web.json_response(sprite.checkpoints[::-1])
        for one in sprite.checkpoints:
            if one["id"] == request.match_info["id"]:
                return web.json_response(one)
        return web.json_response({"error": "checkpoint not found"}, status=404)

    async def restore(self, request: web.Request) -> web.StreamResponse:
        """Agree to a restore, which takes place later."""
        sprite, name = request["sprite"], request.match_info["id"]
        if name not in {one["id"] for one in sprite.checkpoints}:
            return web.json_response({"error": "checkpoint not found"}, status=404)
        begin = {"type": "info", "data": f"Restoring from checkpoint {name}..."}
        if request["fault"] is not None and request["fault"].kind == "error_event":
            return events(begin, {"type": "error", "error": "Restore failed"})
        self._fleet.background(self._restore_later(sprite, name))
        return events(begin, {"type": "complete", "data": "Restore started"})

    async def _restore_later(self, sprite: Sprite, name: str) -> None:
        await asyncio.sleep(self._fleet.behaviour.restore_after)
        async with sprite.waking:
            await self._fleet.cut_all(sprite)
            await sprite.machine.restore(name)

    async def policy(self, request: web.Request) -> web.Response:
        """Show or replace the network policy; any rule at all takes the network away."""
        sprite: Sprite = request["sprite"]
        await self._fleet.wake(sprite)
        if request.method == "GET":
            return web.json_response({"rules": sprite.rules})
        rules = (await request.json()).get("rules", [])
        if not all(r.get("include") or (r.get("domain") and r.get("action") in ("allow", "deny"))
                   for r in rules):  # fmt: skip
            return web.json_response({"error": "invalid rule"}, status=400)
        sprite.rules = rules
        online = not rules
        if online != sprite.machine.online:
            sprite.machine.online = online
            async with sprite.waking:
                await self._fleet.sleep(sprite)
        return web.Response(status=204)
