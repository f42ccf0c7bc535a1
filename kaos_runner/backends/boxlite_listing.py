"""Every box of a runtime: the SDK lists only a server's first page, so we read the pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kaos_runner.backends.boxlite_errors import mapped, refused, unreachable
from kaos_runner.kaos.boxlite_sdk import CALL_SECONDS, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kaos_runner.backends.boxlite_runtime import Place, Server

PAGE = 500


@dataclass(frozen=True, slots=True)
class Listed:
    """A box as a list tells it."""

    id: str
    name: str
    created_at: datetime | None
    state: str


async def boxes(place: Place) -> AsyncIterator[Listed]:
    """Every box that the place has, over all pages.

    Raises:
        PrerequisiteError: the server refuses the key or is not there.
        SandboxError: anything else.
    """
    if place.server is not None:
        async for box in _of_server(place.server):
            yield box
        return
    try:
        infos = await call("list boxes", place.runtime.list_info)
    except (RuntimeError, TimeoutError) as error:
        raise mapped(error, "list the boxes") from error
    for info in infos:
        yield Listed(info.id, info.name or "", _moment(info.created_at), info.state.status)


async def _of_server(server: Server) -> AsyncIterator[Listed]:
    """The pages of `GET /boxes`, from the server's published description."""
    import aiohttp

    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    query = {"pageSize": str(PAGE)}
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            while True:
                async with session.get(server.endpoint("boxes"), params=query) as answer:
                    body: Any = await answer.json(content_type=None)
                    if answer.status != 200:
                        raise refused(answer.status, body)
                for box in body["boxes"]:
                    created = _moment(box.get("created_at"))
                    yield Listed(box["box_id"], box.get("name") or "", created, box["status"])
                if not (token := body.get("next_page_token")):
                    return
                query["pageToken"] = token
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
        told = f"{type(error).__name__}: {error}"
        raise unreachable(told) from error


def _moment(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
