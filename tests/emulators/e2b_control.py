"""E2B's control plane, emulated: the REST calls that make, list, keep, pause and kill sandboxes."""

from __future__ import annotations

import urllib.parse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.emulators.e2b_box import GoneError
from tests.emulators.e2b_fleet import ENVD_VERSION, ApiError, Fleet, Sandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

MACHINE = {"cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1024, "envdVersion": ENVD_VERSION}


def application(fleet: Fleet, api_key: str) -> Starlette:
    """The control plane over a fleet; every call needs the key."""
    control = Control(fleet)

    def route(path: str, method: str, call: Callable[[Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            if request.headers.get("x-api-key") != api_key:
                return _error(401, "Invalid API key")
            try:
                return await call(request)
            except ApiError as error:
                return _error(error.status, error.message)
            except GoneError:
                return _error(500, "the sandbox ended meanwhile")

        return Route(path, endpoint, methods=[method])

    one = "/sandboxes/{id}"
    return Starlette(
        routes=[
            route("/v2/sandboxes", "POST", control.create),
            route("/v2/sandboxes", "GET", control.list),
            route(one, "GET", control.get),
            route(one, "DELETE", control.kill),
            route(f"/v2{one}/connect", "POST", control.connect),
            route(f"{one}/connect", "POST", control.connect),
            route(f"{one}/timeout", "POST", control.timeout),
            route(f"{one}/pause", "POST", control.pause),
            route(f"{one}/metrics", "GET", control.metrics),
            route(f"{one}/network", "PUT", control.network),
        ]
    )


class Control:
    """One method per call; the bodies have the published names."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def create(self, request: Request) -> Response:
        """Make a sandbox."""
        body = await _body(request)
        if not body.get("templateID"):
            raise ApiError(400, "templateID is required")
        key = request.headers.get("idempotency-key")
        return JSONResponse(_made(await self._fleet.create(body, key)), 201)

    async def connect(self, request: Request) -> Response:
        """Connect, which resumes: 201 when it was paused."""
        sandbox = self._fleet.get(request.path_params["id"])
        body = await _body(request)
        resumed = await self._fleet.connect(sandbox, body.get("timeout"))
        return JSONResponse(_made(sandbox), 201 if resumed else 200)

    async def list(self, request: Request) -> Response:
        """One page, newest first; the next page's token is in a header."""
        wanted = _query(request.query_params.get("metadata", ""))
        states = request.query_params.get("state", "running,paused").split(",")
        found = [
            s
            for s in reversed(self._fleet.sandboxes.values())
            if s.state in states and wanted.items() <= s.metadata.items()
        ]
        start = int(request.query_params.get("nextToken") or 0)
        most = self._fleet.page
        end = start + min(int(request.query_params.get("limit") or most), most)
        headers = {"x-next-token": str(end)} if end < len(found) else {}
        return JSONResponse([_listed(s) for s in found[start:end]], headers=headers)

    async def get(self, request: Request) -> Response:
        """Everything about one sandbox."""
        return JSONResponse(_detail(self._fleet.get(request.path_params["id"])))

    async def kill(self, request: Request) -> Response:
        """Kill it."""
        await self._fleet.kill(request.path_params["id"])
        return Response(status_code=204)

    async def timeout(self, request: Request) -> Response:
        """Set its time from now on, shorter too."""
        sandbox = self._fleet.get(request.path_params["id"])
        if sandbox.state != "running":
            raise ApiError(404, f"sandbox '{sandbox.id}' is not running")
        self._fleet.keep(sandbox, (await _body(request))["timeout"])
        return Response(status_code=204)

    async def pause(self, request: Request) -> Response:
        """Pause it; 409 when it is."""
        await self._fleet.pause(self._fleet.get(request.path_params["id"]))
        return Response(status_code=204)

    async def metrics(self, request: Request) -> Response:
        """One made-up measurement."""
        self._fleet.get(request.path_params["id"])
        now = datetime.now(UTC)
        zeros = dict.fromkeys(("memUsed", "memCache", "diskUsed"), 0)
        totals = {"cpuCount": 2, "cpuUsedPct": 0.0, "memTotal": 2**29, "diskTotal": 2**30}
        times = {"timestamp": now.isoformat(), "timestampUnix": int(now.timestamp())}
        return JSONResponse([zeros | totals | times])

    async def network(self, request: Request) -> Response:
        """Replace the rules of egress; they are kept and told, not enforced."""
        sandbox = self._fleet.get(request.path_params["id"])
        sandbox.network = await _body(request)
        return Response(status_code=204)


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not an object")
    return body


def _query(text: str) -> dict[str, str]:
    """A filter: the framework has undone the outermost of three encodings."""
    pairs = urllib.parse.parse_qsl(text)
    return {urllib.parse.unquote(k): urllib.parse.unquote(v) for k, v in pairs}


def _made(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "templateID": sandbox.request["templateID"],
        "sandboxID": sandbox.id,
        "clientID": "emulator",
        "envdVersion": ENVD_VERSION,
        "envdAccessToken": sandbox.token,
        "domain": None,
    }


def _listed(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "templateID": sandbox.request["templateID"],
        "sandboxID": sandbox.id,
        "clientID": "emulator",
        "startedAt": sandbox.started_at.isoformat(),
        "endAt": sandbox.end_at.isoformat(),
        "metadata": sandbox.metadata,
        "state": sandbox.state,
        **MACHINE,
    }


def _detail(sandbox: Sandbox) -> dict[str, Any]:
    action = "pause" if sandbox.request.get("autoPause") else "kill"
    return {
        **_listed(sandbox),
        "envdAccessToken": sandbox.token,
        "allowInternetAccess": sandbox.request.get("allow_internet_access"),
        "lifecycle": {"autoResume": False, "onTimeout": action},
        **({"network": sandbox.network} if sandbox.network else {}),
    }


def _error(status: int, message: str) -> Response:
    return JSONResponse({"code": status, "message": message}, status)
