"""The HTTP and WebSocket calls of the emulated service, over its sprites.

It follows the Go and JavaScript SDKs and the published API pages where the Python SDK is silent.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.emulators import sprites_files as files
from tests.emulators.sprites_exec import Exec
from tests.emulators.sprites_faults import Behaviour, Log, Seen
from tests.emulators.sprites_fleet import ORGANISATION, Fleet, Sprite
from tests.emulators.sprites_state import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Service:
    """All sprites, and the calls on them; lives on one event loop."""

    def __init__(self, directory: Path, token: str, behaviour: Behaviour, log: Log) -> None:
        self.fleet = Fleet(directory, behaviour)
        self.behaviour = behaviour
        self._token = token
        self._log = log
        self._exec = Exec(self.fleet)
        self._state = State(self.fleet)

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
            ("GET", f"{one}/exec", "exec", self._exec.exec),
            ("GET", f"{one}/exec/{{session}}", "attach", self._exec.exec),
            ("POST", f"{one}/exec/{{session}}/kill", "kill", self._exec.kill),
            ("POST", f"{one}/checkpoint", "checkpoint", self._state.checkpoint),
            ("GET", f"{one}/checkpoints", "checkpoints", self._state.checkpoints),
            ("GET", f"{one}/checkpoints/{{id}}", "checkpoint.get", self._state.checkpoints),
            ("POST", f"{one}/checkpoints/{{id}}/restore", "restore", self._state.restore),
            ("GET", f"{one}/policy/network", "policy.get", self._state.policy),
            ("POST", f"{one}/policy/network", "policy.set", self._state.policy),
        ]
        for verb, call in (("GET", "list"), ("GET", "read"), ("PUT", "write"), ("DELETE", "delete"),
                           ("POST", "rename"), ("POST", "copy"), ("POST", "chmod")):  # fmt: skip
            routes.append((verb, f"{one}/fs/{call}", f"fs.{call}", self._files))
        for method, path, operation, handler in routes:
            app.router.add_route(method, path, handler, name=operation)
        app.on_startup.append(self._begin)
        app.on_cleanup.append(self._end)
        return app

    # -- every request

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        operation = request.match_info.route.name or "unknown"
        if operation == "exec" and request.headers.get("Upgrade", "").lower() != "websocket":
            operation = "sessions"
        request["operation"] = operation
        self._log.seen.append(Seen(operation, request.method, request.raw_path))
        await asyncio.sleep(self.behaviour.latency)
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.json_response({"error": "unauthorized"}, status=401)
        if len(request.raw_path) > self.behaviour.url_limit:
            return web.json_response({"error": "uri too long"}, status=414)
        fault = request["fault"] = self._log.due(operation)
        if fault is not None and fault.kind == "status":
            headers = {"Content-Type": "application/json", **fault.headers}
            return web.Response(status=fault.status, text=fault.body, headers=headers)
        if fault is not None and fault.kind == "reset":
            return self._reset(request)
        if "name" in request.match_info:
            request["sprite"] = self.fleet.sprites.get(request.match_info["name"])
            if request["sprite"] is None:
                return web.json_response({"error": "sprite not found"}, status=404)
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

    # -- sprites

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = asked.get("name", "")
        if not NAME.fullmatch(name) or len(f"{name}-{ORGANISATION}") > 63:
            return web.json_response({"error": "invalid name"}, status=400)
        if name in self.fleet.sprites:
            return web.json_response({"error": "sprite already exists"}, status=409)
        return web.json_response(self.fleet.add(name, asked).info(), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        wanted = int(request.query.get("max_results") or self.behaviour.page_size)
        size = min(wanted, self.behaviour.page_size)
        after, prefix = (request.query.get(k, "") for k in ("continuation_token", "prefix"))
        names = [n for n in sorted(self.fleet.sprites) if n.startswith(prefix) and n > after]
        page = [self.fleet.sprites[n] for n in names[:size]]
        body: dict[str, Any] = {
            "sprites": [s.info(labels=self.behaviour.labels_listed) for s in page],
            "has_more": len(names) > size,
            "running": sum(s.machine.awake for s in self.fleet.sprites.values()),
            "warm": 0,
            "cold": sum(not s.machine.awake for s in self.fleet.sprites.values()),
        }
        if body["has_more"]:
            body["next_continuation_token"] = page[-1].name
        return web.json_response(body)

    async def _get(self, request: web.Request) -> web.Response:
        sprite: Sprite = request["sprite"]
        return web.json_response(sprite.info())

    async def _update(self, request: web.Request) -> web.Response:
        sprite: Sprite = request["sprite"]
        asked = await request.json()
        sprite.labels = asked.get("labels", sprite.labels)
        sprite.url_settings |= asked.get("url_settings") or {}
        return web.json_response(sprite.info())

    async def _destroy(self, request: web.Request) -> web.Response:
        await self.fleet.remove(request["sprite"])
        return web.Response(status=204)

    # -- files

    async def _files(self, request: web.Request) -> web.Response:
        sprite: Sprite = request["sprite"]
        await self.fleet.wake(sprite)
        machine = sprite.machine
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

    async def _begin(self, _app: web.Application) -> None:
        self.fleet.background(self.fleet.watch_idle())

    async def _end(self, _app: web.Application) -> None:
        await self.fleet.close()
