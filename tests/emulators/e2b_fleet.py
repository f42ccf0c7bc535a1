"""The sandboxes of an emulated E2B account: made, kept for their time, paused, killed."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.emulators.e2b_box import Box

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVD_VERSION = "0.6.13"
DEFAULT_TIMEOUT = 300
LONGEST = 24 * 3600


class ApiError(Exception):
    """An answer of the control plane that is not a success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)
class Sandbox:
    """One sandbox as the account sees it."""

    request: Mapping[str, Any]
    timeout: float
    id: str = field(default_factory=lambda: f"i{secrets.token_hex(10)}")
    token: str = field(default_factory=lambda: secrets.token_hex(24))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    end_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: str = "running"
    box: Box = field(init=False)
    timer: asyncio.TimerHandle | None = None
    network: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.network = self.request.get("network") or {}
        self.box = Box(self.id, self.variables(), network=self._reachable())

    def variables(self) -> dict[str, str]:
        """What every process in it has."""
        own = {"E2B_SANDBOX": "true", "E2B_SANDBOX_ID": self.id}
        given: dict[str, str] = self.request.get("envVars") or {}
        return own | {"E2B_TEMPLATE_ID": self.request["templateID"]} | given

    def _reachable(self) -> bool:
        denied = "0.0.0.0/0" in (self.network.get("denyOut") or ())
        return self.request.get("allow_internet_access") is not False and not denied

    @property
    def metadata(self) -> dict[str, str]:
        """The labels that its creator gave it."""
        found: dict[str, str] = self.request.get("metadata") or {}
        return found


class Fleet:
    """All sandboxes of the account; ids are never used twice."""

    def __init__(self, *, limit: int, templates: tuple[str, ...], page: int) -> None:
        self.limit = limit
        self.page = page
        self.templates = set(templates)
        self.sandboxes: dict[str, Sandbox] = {}
        self.ended: dict[str, str] = {}
        """By id, how it ended: `killed` or `expired`."""
        self.created: list[Mapping[str, Any]] = []
        """The body of every create that was accepted, in order."""
        self._keys: dict[str, asyncio.Future[Sandbox]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def get(self, sandbox_id: str) -> Sandbox:
        """Find a sandbox, running or paused."""
        if sandbox_id not in self.sandboxes:
            raise ApiError(
                404, f"sandbox \"{sandbox_id}\" doesn't exist or you don't have access to it"
            )
        return self.sandboxes[sandbox_id]

    async def create(self, request: Mapping[str, Any], key: str | None) -> Sandbox:
        """Make a sandbox; with a key that was used before, it is the one made then."""
        if key is None:
            return await self._create(request)
        if key not in self._keys:
            self._keys[key] = asyncio.ensure_future(self._create(request))
        try:
            return await asyncio.shield(self._keys[key])
        except ApiError:
            del self._keys[key]
            raise

    async def _create(self, request: Mapping[str, Any]) -> Sandbox:
        if request["templateID"] not in self.templates:
            raise ApiError(404, f"template '{request['templateID']}' not found")
        if sum(s.state == "running" for s in self.sandboxes.values()) >= self.limit:
            raise ApiError(
                429,
                f"you have reached the maximum number of concurrent E2B sandboxes ({self.limit})",
            )
        sandbox = Sandbox(request, _timeout(request.get("timeout", DEFAULT_TIMEOUT)))
        self.sandboxes[sandbox.id] = sandbox
        self.created.append(request)
        await sandbox.box.start()
        self.keep(sandbox, sandbox.timeout)
        return sandbox

    def keep(self, sandbox: Sandbox, seconds: float) -> None:
        """Let it live for so long from now."""
        loop = asyncio.get_running_loop()
        if sandbox.timer is not None:
            sandbox.timer.cancel()
        sandbox.end_at = datetime.now(UTC) + timedelta(seconds=_timeout(seconds))
        sandbox.timer = loop.call_later(seconds, self._time_is_up, sandbox)

    def _time_is_up(self, sandbox: Sandbox) -> None:
        auto_pause = sandbox.request.get("autoPause")
        ending = self.pause(sandbox) if auto_pause else self.kill(sandbox.id, "expired")
        task = asyncio.ensure_future(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def connect(self, sandbox: Sandbox, seconds: float | None) -> bool:
        """Wake it when it is paused, and only ever extend its time; True if it was paused."""
        paused = sandbox.state == "paused"
        if paused:
            sandbox.state = "running"
            await sandbox.box.call({"op": "thaw"})
        until = datetime.now(UTC) + timedelta(seconds=seconds or 0)
        if paused or until > sandbox.end_at:
            self.keep(sandbox, seconds if seconds is not None else DEFAULT_TIMEOUT)
        return paused

    async def pause(self, sandbox: Sandbox) -> None:
        """Stop every process where it stands, and cut what talks to it."""
        if sandbox.state == "paused":
            raise ApiError(409, f"sandbox '{sandbox.id}' is already paused")
        sandbox.state = "paused"
        if sandbox.timer is not None:
            sandbox.timer.cancel()
        await sandbox.box.call({"op": "freeze"})
        sandbox.box.cut()

    async def kill(self, sandbox_id: str, how: str = "killed") -> None:
        """End it for good."""
        sandbox = self.get(sandbox_id)
        if sandbox.timer is not None:
            sandbox.timer.cancel()
        del self.sandboxes[sandbox_id]
        self.ended[sandbox_id] = how
        await sandbox.box.kill()

    async def close(self) -> None:
        """Kill everything."""
        for sandbox_id in list(self.sandboxes):
            await self.kill(sandbox_id)
        await asyncio.gather(*self._ending)


def _timeout(seconds: float) -> float:
    if seconds > LONGEST:
        raise ApiError(400, f"Timeout cannot be greater than {LONGEST // 3600} hours")
    return seconds
