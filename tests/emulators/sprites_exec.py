"""Running commands: the WebSocket calls of the emulated service, their list and their kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
from itertools import count
from typing import TYPE_CHECKING

from aiohttp import web

from tests.emulators.sprites_machine import DEFAULT_ENV, HOME
from tests.emulators.sprites_sessions import Command, Cut, Session, signal_number
from tests.emulators.sprites_state import events

if TYPE_CHECKING:
    from tests.emulators.sprites_faults import Fault
    from tests.emulators.sprites_fleet import Fleet, Sprite


class Exec:
    """The calls below `/exec`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._behaviour = fleet.behaviour
        self._numbers = count(100)

    async def exec(self, request: web.Request) -> web.StreamResponse:
        """Run a command or attach to one by WebSocket; a plain GET lists the sessions."""
        sprite: Sprite = request["sprite"]
        await self._fleet.wake(sprite)
        wanted = request.match_info.get("session") or request.query.get("id")
        if request["operation"] == "sessions":
            return web.json_response({"sessions": [s.listed() for s in sprite.live()]})
        if wanted is None:
            return await self._run(request, sprite)
        session = sprite.sessions.get(int(wanted)) if wanted.isdigit() else None
        if session is None:
            return web.json_response({"error": "session not found"}, status=404)
        client = web.WebSocketResponse(max_msg_size=0, compress=False)
        await client.prepare(request)
        await session.serve(client, owner=False)
        return client

    async def _run(self, request: web.Request, sprite: Sprite) -> web.StreamResponse:
        client = web.WebSocketResponse(max_msg_size=0, compress=False)
        await client.prepare(request)
        session = self._session(request)
        beginning = self._fleet.background(self._begin(sprite, session))
        try:
            await asyncio.shield(beginning)
            await session.serve(client, owner=True)
        finally:
            if not session.command.tty:
                self._fleet.background(self._end_later(session, beginning))
        return client

    def _session(self, request: web.Request) -> Session:
        query = request.query
        env = [e.partition("=")[::2] for e in query.getall("env", [])]
        command = Command(
            argv=tuple(query.getall("cmd", ["bash"])),
            env=dict(env) if env else DEFAULT_ENV,
            cwd=query.get("dir") or HOME,
            tty=query.get("tty") == "true",
            leader=self._behaviour.own_group,
            stdin=query.get("stdin", query.get("tty", "false")) == "true",
            rows=int(query.get("rows", 24)),
            cols=int(query.get("cols", 80)),
        )
        session = Session(next(self._numbers), command, linger=self._behaviour.linger)
        fault: Fault | None = request["fault"]
        if fault is not None and fault.kind in ("close", "abort"):
            session.cut = Cut(after=fault.after, clean=fault.kind == "close")
        return session

    async def _begin(self, sprite: Sprite, session: Session) -> None:
        sprite.sessions[session.id] = session
        await session.start(sprite.machine)
        self._fleet.background(session.run())

    async def _end_later(self, session: Session, beginning: asyncio.Task[None]) -> None:
        await beginning
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.ended.wait(), self._behaviour.run_on)
            return
        if not session.clients:
            session.signal(9, group=True)

    async def kill(self, request: web.Request) -> web.StreamResponse:
        """Signal a session; the parameters may stand in the query or in the body."""
        sprite: Sprite = request["sprite"]
        number = request.match_info["session"]
        session = sprite.sessions.get(int(number)) if number.isdigit() else None
        if session is None:
            return web.json_response({"error": "session not found"}, status=404)
        if session.exit_code is not None:
            return web.json_response({"error": "session has ended"}, status=410)
        body = json.loads(await request.read() or b"{}")
        signal = signal_number(request.query.get("signal") or body.get("signal", "SIGTERM"))
        patience = str(request.query.get("timeout") or body.get("timeout", 10)).removesuffix("s")
        group = self._behaviour.kill == "group"
        session.signal(signal, group=group)
        if float(patience) > 0:
            try:
                await asyncio.wait_for(session.ended.wait(), float(patience))
            except TimeoutError:
                session.signal(9, group=group)
        return events(
            {"type": "signal", "message": f"sent {signal} to session {number}"},
            {"type": "complete"},
        )
