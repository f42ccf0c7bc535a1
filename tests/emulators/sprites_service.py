"""The HTTP and WebSocket calls of the emulated service, over its sprites.

It follows the Go and JavaScript SDKs and the published API pages where the Python SDK is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

from tests.emulators import sprites_files as files
from tests.emulators.sprites_faults import Behaviour, Fault, Log, Seen
from tests.emulators.sprites_machine import DEFAULT_ENV, HOME, Machine
from tests.emulators.sprites_sessions import Command, Cut, Session, cut_connection, signal_number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ORGANISATION = "emulated"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def _now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(slots=True)
class Sprite:
    """One sprite as the service knows it."""

    name: str
    machine: Machine
    asked: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid4()))
    created_at: str = field(default_factory=_now)
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


class Service:
    """All sprites, and the calls on them; lives on one event loop."""

    def __init__(self, directory: Path, token: str, behaviour: Behaviour, log: Log) -> None:
        self.directory = directory
        self.token = token
        self.behaviour = behaviour
        self.log = log
        self.sprites: dict[str, Sprite] = {}
        self._numbers = count(100)
        self._tasks: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """The service as an aiohttp application."""
        app = web.Application(middlewares=[self._gate], client_max_size=2**31)
        one = "/v1/sprites/{name}"
        routes: list[tuple[str, str, str, Handler]] = [
            ("POST", "/v1/sprites", "create", self._create),
            ("GET", "/v1/sprites", "list", self._list),
            ("GET", one, "get", self._get),
            ("PUT", one, "update", self._update),
            ("DELETE", one, "destroy", self._destroy),
            ("GET", f"{one}/exec", "exec", self._exec),
            ("GET", f"{one}/exec/{{session}}", "attach", self._exec),
            ("POST", f"{one}/exec/{{session}}/kill", "kill", self._kill),
            ("POST", f"{one}/checkpoint", "checkpoint", self._checkpoint),
            ("GET", f"{one}/checkpoints", "checkpoints", self._checkpoints),
            ("GET", f"{one}/checkpoints/{{id}}", "checkpoint.get", self._checkpoints),
            ("POST", f"{one}/checkpoints/{{id}}/restore", "restore", self._restore),
            ("GET", f"{one}/policy/network", "policy.get", self._policy),
            ("POST", f"{one}/policy/network", "policy.set", self._policy),
        ]
        for verb, call in (("GET", "list"), ("GET", "read"), ("PUT", "write"), ("DELETE", "delete"),
                           ("POST", "rename"), ("POST", "copy"), ("POST", "chmod")):  # fmt: skip
            routes.append((verb, f"{one}/fs/{call}", f"fs.{call}", self._files))
        for method, path, operation, handler in routes:
            app.router.add_route(method, path, handler, name=operation)
        app.on_startup.append(self._start_idle_clock)
        app.on_cleanup.append(self._close)
        return app

    # -- every request

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        operation = request.match_info.route.name or "unknown"
        if operation == "exec" and request.headers.get("Upgrade", "").lower() != "websocket":
            operation = "sessions"
        request["operation"] = operation
        self.log.seen.append(Seen(operation, request.method, request.raw_path))
        await asyncio.sleep(self.behaviour.latency)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "unauthorized"}, status=401)
        if len(request.raw_path) > self.behaviour.url_limit:
            return web.json_response({"error": "uri too long"}, status=414)
        fault = request["fault"] = self.log.due(operation)
        if fault is not None and fault.kind == "status":
            headers = {"Content-Type": "application/json", **fault.headers}
            return web.Response(status=fault.status, text=fault.body, headers=headers)
        if fault is not None and fault.kind == "reset":
            return self._reset(request)
        try:
            response = await handler(request)
        except ConnectionError:  # the client has gone
            return web.Response()
        if fault is not None and fault.kind == "lost":
            return self._reset(request)
        if fault is not None and fault.kind == "truncate":
            return await self._truncate(request, response)
        return response

    def _reset(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _truncate(
        self, request: web.Request, response: web.StreamResponse
    ) -> web.StreamResponse:
        body = response.body if isinstance(response, web.Response) else b""
        assert isinstance(body, bytes)
        half = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await half.prepare(request)
        await half.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return half

    def _sprite(self, request: web.Request) -> Sprite:
        sprite = self.sprites.get(request.match_info["name"])
        if sprite is None:
            raise web.HTTPNotFound(text='{"error": "sprite not found"}')
        return sprite

    async def _awake(self, request: web.Request) -> Sprite:
        """The sprite behind a request that reaches into it: it wakes first."""
        sprite = self._sprite(request)
        sprite.used_at = time.monotonic()
        # It goes on waking although the client that woke it does not wait any longer.
        await asyncio.shield(self._background(self._wake(sprite)))
        return sprite

    async def _wake(self, sprite: Sprite) -> None:
        async with sprite.waking:
            if not sprite.machine.awake:
                await asyncio.sleep(self.behaviour.cold_wake)
                await sprite.machine.start()

    # -- sprites

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = asked.get("name", "")
        if not NAME.fullmatch(name) or len(f"{name}-{ORGANISATION}") > 63:
            return web.json_response({"error": "invalid name"}, status=400)
        if name in self.sprites:
            return web.json_response({"error": "sprite already exists"}, status=409)
        sprite = Sprite(name, Machine(self.directory / f"{name}-{uuid4().hex[:8]}"), asked)
        sprite.labels = list(asked.get("labels") or [])
        sprite.url_settings |= asked.get("url_settings") or {}
        self.sprites[name] = sprite
        return web.json_response(sprite.info(), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        wanted = int(request.query.get("max_results") or self.behaviour.page_size)
        size = min(wanted, self.behaviour.page_size)
        after, prefix = (request.query.get(k, "") for k in ("continuation_token", "prefix"))
        names = [n for n in sorted(self.sprites) if n.startswith(prefix) and n > after]
        page = [self.sprites[n] for n in names[:size]]
        body: dict[str, Any] = {
            "sprites": [s.info(labels=self.behaviour.labels_listed) for s in page],
            "has_more": len(names) > size,
            "running": sum(s.machine.awake for s in self.sprites.values()),
            "warm": 0,
            "cold": sum(not s.machine.awake for s in self.sprites.values()),
        }
        if body["has_more"]:
            body["next_continuation_token"] = page[-1].name
        return web.json_response(body)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._sprite(request).info())

    async def _update(self, request: web.Request) -> web.Response:
        sprite, asked = self._sprite(request), await request.json()
        sprite.labels = asked.get("labels", sprite.labels)
        sprite.url_settings |= asked.get("url_settings") or {}
        return web.json_response(sprite.info())

    async def _destroy(self, request: web.Request) -> web.Response:
        await self.remove(self._sprite(request))
        return web.Response(status=204)

    async def remove(self, sprite: Sprite) -> None:
        """End and forget a sprite."""
        sprite.gone = True
        self.sprites.pop(sprite.name, None)
        await self._cut_all(sprite)
        await self.sleep(sprite)
        shutil.rmtree(sprite.machine.root.parent, ignore_errors=True)

    async def sleep(self, sprite: Sprite) -> None:
        """End everything in a sprite, as when it goes cold."""
        await sprite.machine.stop()
        for session in sprite.live():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(session.ended.wait(), 5)

    # -- exec

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        sprite = await self._awake(request)
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
        query = request.query
        client = web.WebSocketResponse(max_msg_size=0, compress=False)
        await client.prepare(request)
        env = [e.partition("=")[::2] for e in query.getall("env", [])]
        command = Command(
            argv=tuple(query.getall("cmd", ["bash"])),
            env=dict(env) if env else DEFAULT_ENV,
            cwd=query.get("dir") or HOME,
            tty=query.get("tty") == "true",
            leader=self.behaviour.own_group,
            stdin=query.get("stdin", query.get("tty", "false")) == "true",
            rows=int(query.get("rows", 24)),
            cols=int(query.get("cols", 80)),
        )
        session = Session(next(self._numbers), command, linger=self.behaviour.linger)
        fault: Fault | None = request["fault"]
        if fault is not None and fault.kind in ("close", "abort"):
            session.cut = Cut(after=fault.after, clean=fault.kind == "close")
        beginning = self._background(self._begin(sprite, session))
        try:
            await asyncio.shield(beginning)
            await session.serve(client, owner=True)
        finally:
            if not command.tty:
                self._background(self._end_later(session, beginning))
        return client

    async def _begin(self, sprite: Sprite, session: Session) -> None:
        sprite.sessions[session.id] = session
        await session.start(sprite.machine)
        self._background(session.run())

    async def _end_later(self, session: Session, beginning: asyncio.Task[None]) -> None:
        await beginning
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.ended.wait(), self.behaviour.run_on)
            return
        if not session.clients:
            session.signal(9, group=True)

    async def _kill(self, request: web.Request) -> web.StreamResponse:
        sprite = self._sprite(request)
        number = request.match_info["session"]
        session = sprite.sessions.get(int(number)) if number.isdigit() else None
        if session is None:
            return web.json_response({"error": "session not found"}, status=404)
        if session.exit_code is not None:
            return web.json_response({"error": "session has ended"}, status=410)
        body = json.loads(await request.read() or b"{}")
        signal = signal_number(request.query.get("signal") or body.get("signal", "SIGTERM"))
        patience = str(request.query.get("timeout") or body.get("timeout", 10)).removesuffix("s")
        group = self.behaviour.kill == "group"
        session.signal(signal, group=group)
        if float(patience) > 0:
            try:
                await asyncio.wait_for(session.ended.wait(), float(patience))
            except TimeoutError:
                session.signal(9, group=group)
        return await self._stream(
            {"type": "signal", "message": f"sent {signal} to session {number}"},
            {"type": "complete"},
        )

    # -- files

    async def _files(self, request: web.Request) -> web.Response:
        machine = (await self._awake(request)).machine
        query = request.query
        path, base = query.get("path", "."), query.get("workingDir", "/")
        operation = request["operation"].removeprefix("fs.")
        if operation in ("rename", "copy", "chmod"):
            body = await request.json()
            path = body.get("path", body.get("source"))
        try:
            match operation:
                case "list":
                    return files.listing(machine, path, base, self.behaviour.listing)
                case "read":
                    return files.read(machine, path, base, request.headers.get("Range"))
                case "write":
                    return files.write(machine, query, await request.read())
                case "delete":
                    return files.delete(machine, query)
                case _:
                    return getattr(files, operation)(machine, body)  # type: ignore[no-any-return]
        except OSError as error:
            return files.answer_error(error, path)

    # -- checkpoints, policy

    async def _stream(self, *events: dict[str, Any]) -> web.StreamResponse:
        lines = "".join(json.dumps({**event, "time": _now()}) + "\n" for event in events)
        return web.Response(text=lines, content_type="application/x-ndjson")

    async def _checkpoint(self, request: web.Request) -> web.StreamResponse:
        sprite = await self._awake(request)
        comment = json.loads(await request.read() or b"{}").get("comment", "")
        begin = {"type": "info", "data": "Creating checkpoint..."}
        if request["fault"] is not None and request["fault"].kind == "error_event":
            return await self._stream(
                begin, {"type": "error", "error": "Checkpoint failed: disk full"}
            )
        name = f"v{len(sprite.checkpoints)}"
        await sprite.machine.save(name)
        sprite.checkpoints.append({"id": name, "create_time": _now(), "comment": comment})
        return await self._stream(begin, {"type": "complete", "data": f"Checkpoint {name} created"})

    async def _checkpoints(self, request: web.Request) -> web.Response:
        sprite = self._sprite(request)
        if request["operation"] == "checkpoints":
            return web.json_response(sprite.checkpoints[::-1])
        for one in sprite.checkpoints:
            if one["id"] == request.match_info["id"]:
                return web.json_response(one)
        return web.json_response({"error": "checkpoint not found"}, status=404)

    async def _restore(self, request: web.Request) -> web.StreamResponse:
        sprite, name = self._sprite(request), request.match_info["id"]
        if name not in {one["id"] for one in sprite.checkpoints}:
            return web.json_response({"error": "checkpoint not found"}, status=404)
        begin = {"type": "info", "data": f"Restoring from checkpoint {name}..."}
        if request["fault"] is not None and request["fault"].kind == "error_event":
            return await self._stream(begin, {"type": "error", "error": "Restore failed"})
        self._background(self._restore_later(sprite, name))
        return await self._stream(begin, {"type": "complete", "data": "Restore started"})

    async def _restore_later(self, sprite: Sprite, name: str) -> None:
        await asyncio.sleep(self.behaviour.restore_after)
        async with sprite.waking:
            await self._cut_all(sprite)
            await sprite.machine.restore(name)

    async def _cut_all(self, sprite: Sprite) -> None:
        for session in sprite.live():
            for client in list(session.clients):
                session.clients.remove(client)
                await cut_connection(client, clean=True)

    async def _policy(self, request: web.Request) -> web.Response:
        sprite = await self._awake(request)
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
                await self.sleep(sprite)
        return web.Response(status=204)

    # -- clocks and ends

    def _background(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start_idle_clock(self, _app: web.Application) -> None:
        self._background(self._idle_clock())

    async def _idle_clock(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            idle = self.behaviour.idle
            for sprite in list(self.sprites.values()):
                busy = idle is None or sprite.live() or sprite.waking.locked()
                if not busy and time.monotonic() - sprite.used_at > (idle or 0):
                    await self.sleep(sprite)

    async def _close(self, _app: web.Application) -> None:
        for sprite in list(self.sprites.values()):
            await self.remove(sprite)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
