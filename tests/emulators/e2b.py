"""E2B's servers on loopback: the control plane and envd in one, for the real SDK to talk to.

In a test:

    with running() as emulator:
        environ = emulator.environ()  # E2B_API_KEY, E2B_API_URL, E2B_SANDBOX_URL

By hand, until Ctrl-C; it prints the variables to set:

    python -m tests.emulators.e2b --port 4999
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.responses import JSONResponse, Response

from tests.emulators.e2b_control import application
from tests.emulators.e2b_envd import applications
from tests.emulators.e2b_faults import Fault, Protocol, breaking, drained, kind, reset
from tests.emulators.e2b_files import Transfers
from tests.emulators.e2b_fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

API_KEY = "e2b_" + "0123456789abcdef" * 2 + "01234567"


class Emulator:
    """The server: routes, checks keys, counts, and does wrong what it is told to."""

    def __init__(
        self, *, limit: int = 20, templates: tuple[str, ...] = ("base",), page: int = 100
    ) -> None:
        self.fleet = Fleet(limit=limit, templates=templates, page=page)
        self.counts: Counter[str] = Counter()
        """Requests by kind, failed ones included."""
        self.latency = 0.0
        """Seconds before every answer."""
        self.faults: list[Fault] = []
        self.url = ""
        self._control = application(self.fleet, API_KEY)
        self._processes, self._files = applications(self.fleet)
        self._transfers = Transfers(self.fleet)
        self._loop: asyncio.AbstractEventLoop | None = None

    def environ(self) -> dict[str, str]:
        """The variables with which the SDK finds this server."""
        return {"E2B_API_KEY": API_KEY, "E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url}

    def fail(self, pattern: str, times: int = 1, **how: Any) -> None:
        """Fail the next requests of a kind; see `Fault`."""
        self.faults.append(Fault(pattern, times, **how))

    def rate_limit(self, pattern: str, times: int = 1, *, retry_after: int = 0) -> None:
        """Answer the next requests of a kind with 429."""
        headers = (("Retry-After", str(retry_after)),)
        self.fail(pattern, times, status=429, message="too many requests", headers=headers)

    def expire(self, sandbox_id: str) -> None:
        """Let a sandbox's time be up now; returns when it has ended."""
        assert self._loop is not None
        ending = self.fleet.kill(sandbox_id, "expired")
        asyncio.run_coroutine_threadsafe(ending, self._loop).result()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self._loop = asyncio.get_running_loop()
        name = kind(scope["method"], scope["path"])
        self.counts[name] += 1
        await asyncio.sleep(self.latency)
        fault = next((f for f in self.faults if f.takes(name)), None)
        if fault is None:
            await self._route(scope)(scope, receive, send)
        elif fault.how == "status":
            await drained(receive)
            body = {"code": fault.status, "message": fault.message}
            await JSONResponse(body, fault.status, dict(fault.headers))(scope, receive, send)
        elif fault.how == "reset":
            reset(scope)
        else:
            await self._route(scope)(scope, receive, breaking(scope, send, fault))

    def _route(self, scope: Scope) -> ASGIApp:
        path = scope["path"]
        if path.startswith(("/v2/sandboxes", "/sandboxes")):
            return self._control
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        return self._refused(headers) or self._envd(path)

    def _envd(self, path: str) -> ASGIApp:
        if path.startswith("/process.Process/"):
            return self._processes
        if path.startswith("/filesystem.Filesystem/"):
            return self._files
        if path == "/health":
            return Response(status_code=204)
        return self._transfers

    def _refused(self, headers: dict[str, str]) -> ASGIApp | None:
        """What the proxy in front of envd, or its check of the token, answers."""
        sandbox_id = headers.get("e2b-sandbox-id", "")
        sandbox = self.fleet.sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.state != "running":
            body = {"sandboxId": sandbox_id, "message": "The sandbox was not found", "code": 502}
            return JSONResponse(body, 502)
        if headers.get("e2b-sandbox-port") != "49983":
            message = "The sandbox is running but port is not open"
            return JSONResponse({"sandboxId": sandbox_id, "message": message, "code": 502}, 502)
        if headers.get("x-access-token") != sandbox.token:
            message = "unauthorized access, please provide a valid access token"
            return JSONResponse({"code": 401, "message": message}, 401)
        return None


def _server(emulator: Emulator) -> uvicorn.Server:
    config = uvicorn.Config(
        emulator,
        http=Protocol,
        lifespan="off",
        log_level="critical",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def _listen(emulator: Emulator, port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    emulator.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return listener


async def _serve(emulator: Emulator, server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    finally:
        await emulator.fleet.close()


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Emulator]:
    """An emulator in a thread of its own, with every sandbox killed at the end."""
    emulator = Emulator(**options)
    server = _server(emulator)
    with _listen(emulator, 0) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(_serve(emulator, server, listener)))
        thread.start()
        try:
            yield emulator
        finally:
            server.should_exit = True
            thread.join()


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(description="An emulator of E2B's servers, on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--limit", type=int, default=20, help="how many sandboxes may run at once")
    parser.add_argument("--rate-limit", metavar="KIND:TIMES", action="append", default=[])
    parser.add_argument("--reset", metavar="KIND:TIMES", action="append", default=[])
    options = parser.parse_args()
    emulator = Emulator(limit=options.limit)
    emulator.latency = options.latency
    for word in options.rate_limit:
        emulator.rate_limit(word.partition(":")[0], int(word.partition(":")[2] or 1))
    for word in options.reset:
        emulator.fail(word.partition(":")[0], int(word.partition(":")[2] or 1), how="reset")
    with _listen(emulator, options.port) as listener, contextlib.suppress(KeyboardInterrupt):
        for name, value in emulator.environ().items():
            print(f"export {name}={value}", flush=True)
        asyncio.run(_serve(emulator, _server(emulator), listener))


if __name__ == "__main__":
    main()
