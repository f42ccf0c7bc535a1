"""An emulator of the BoxLite REST server: the real SDK talks to it, and commands really run.

    python -m tests.emulators.boxlite --port 8100 --key secret --userland busybox

Facts of the wire: the published description of BoxLite REST 0.9.7, and requests of SDK 0.10.8.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import signal
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from aiohttp import web

from tests.emulators.boxlite_answers import Refused, answer_error
from tests.emulators.boxlite_routes import Routes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from tests.emulators.boxlite_box import Box, Userland
    from tests.emulators.boxlite_execution import Execution

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Fault:
    """A failure for requests whose `METHOD path` matches `where`; `times` says for how many."""

    where: str
    kind: Literal["status", "reset", "truncate", "hang"] = "status"
    status: int = 500
    code: str = "internal"
    message: str = "the emulator was told to fail"
    times: int = 1


@dataclass(slots=True)
class Emulator:
    """One server. Attributes may be changed from any thread while it serves."""

    key: str | None = None
    prefix: str = ""
    userland: Userland = "gnu"
    latency: float = 0.0
    """Seconds that every request waits before it is served."""
    page_size: int = 100
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    """How often each `METHOD route` was called, such as `POST /boxes`."""
    answers: list[tuple[str, int, object]] = field(default_factory=list)
    """Every answer: route, status, JSON body or None; for checks against a description."""
    bodies: list[tuple[str, object]] = field(default_factory=list)
    """Every JSON request body with its route."""
    boxes: dict[str, Box] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    snapshots: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="boxlite-emu-")))
    port: int = 0
    _runner: web.AppRunner | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base address, without version and prefix."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self) -> None:
        """Listen on loopback; port 0 takes a free one."""
        app = web.Application(middlewares=[self._gate], client_max_size=2**31)
        Routes(self).install(app.router)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def routes(self) -> list[web.AbstractRoute]:
        """Everything that is served."""
        assert self._runner is not None
        return list(self._runner.app.router.routes())

    async def close(self) -> None:
        """End every box and the server, and delete all files."""
        for box in list(self.boxes.values()):
            await box.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def die(self) -> None:
        """Go away in the middle: every connection is cut, and the port is closed."""
        if self._runner is not None and self._runner.server is not None:
            for connection in list(self._runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            for site in list(self._runner.sites):
                await site.stop()

    async def lose(self, box_id: str) -> None:
        """Make a box vanish, as if someone else had removed it."""
        box = self.boxes.pop(box_id)
        await box.remove()

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function of this emulator in its own thread's loop."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(_await(work), self._loop).result(30)

    def __enter__(self) -> Self:
        """Serve in a thread of its own."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve_in_thread, args=[ready], daemon=True)
        self._thread.start()
        if not ready.wait(20):
            msg = "the emulator does not come up"
            raise RuntimeError(msg)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self.run(self.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _serve_in_thread(self, ready: threading.Event) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.serve())
        ready.set()
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What stands before every route: counting, latency, faults, the key."""
        resource = request.match_info.route.resource
        canonical = resource.canonical if resource else request.path
        route = canonical.removeprefix("/v1")
        if self.prefix:
            route = route.removeprefix(f"/{self.prefix}")
        self.requests[f"{request.method} {route}"] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        if (failure := await self._fail(request)) is not None:
            return failure
        if self.key and route != "/config":
            given = request.headers.get("Authorization", "")
            if given != f"Bearer {self.key}":
                return answer_error(401, "unauthenticated", "invalid or missing API key")
        if request.content_type == "application/json" and request.can_read_body:
            self.bodies.append((f"{request.method} {route}", await request.json()))
        try:
            response = await handler(request)
        except Refused as refused:
            response = refused.response
        body = None
        if isinstance(response, web.Response) and response.content_type == "application/json":
            body = json.loads(response.text or "null")
        self.answers.append((f"{request.method} {route}", response.status, body))
        return response

    async def _fail(self, request: web.Request) -> web.StreamResponse | None:
        line = f"{request.method} {request.path}"
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.where, line):
                fault.times -= 1
                return await _act_out(fault, request)
        return None


async def _act_out(fault: Fault, request: web.Request) -> web.StreamResponse:
    if fault.kind == "hang":
        await asyncio.sleep(3600)
    if fault.kind == "truncate":
        response = web.StreamResponse(headers={"Content-Length": "4096"})
        await response.prepare(request)
        await response.write(b'{"box_id": "')
    if fault.kind in {"reset", "truncate"}:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
    return answer_error(fault.status, fault.code, fault.message)


async def _await(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _serve_forever(emulator: Emulator) -> None:
    await emulator.serve()
    print(f"BoxLite emulator: {emulator.url}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        await emulator.close()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulators.boxlite")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--key", help="demand this API key")
    parser.add_argument("--prefix", default="", help="the routing prefix behind /v1")
    parser.add_argument("--userland", choices=["gnu", "busybox"], default="gnu")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per request")
    given = parser.parse_args()
    emulator = Emulator(
        key=given.key,
        prefix=given.prefix,
        userland=given.userland,
        latency=given.latency,
        port=given.port,
    )
    asyncio.run(_serve_forever(emulator))


if __name__ == "__main__":
    main()
