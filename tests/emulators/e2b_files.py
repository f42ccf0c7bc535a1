"""Envd's file transfer, emulated: download, and upload as multipart or as one stream."""

from __future__ import annotations

import contextlib
import gzip
from typing import TYPE_CHECKING, Any

from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.emulators import e2b_guest_wire as codes
from tests.emulators.e2b_box import GoneError
from tests.emulators.e2b_envd import USERS
from tests.emulators.e2b_guest_wire import Header, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from tests.emulators.e2b_box import Box
    from tests.emulators.e2b_fleet import Fleet

STATUS = {"not_found": 404, "invalid_argument": 400}


class Transfers:
    """`/files` of every sandbox of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await (await self._answer(request))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        box = self._fleet.sandboxes[request.headers["e2b-sandbox-id"]].box
        user = request.query_params.get("username") or USERS[0]
        if request.url.path != "/files":
            return _error(404, "not found")
        if user not in USERS:
            return _error(401, f"error looking up user '{user}': user: unknown user {user}")
        try:
            if request.method == "GET":
                return await _download(box, request.query_params.get("path", ""))
            return JSONResponse([_written(e) for e in await _upload(box, request)])
        except Refusal as refusal:
            return _error(STATUS.get(refusal.code, 500), refusal.message)
        except GoneError:
            return _error(502, "The sandbox was not found")


async def _download(box: Box, path: str) -> Response:
    frames = box.stream({"op": "read", "path": path})
    header, _ = await anext(frames)

    async def chunks() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(frames):
            async for frame, chunk in frames:
                if frame["event"] == "chunk":
                    yield chunk

    headers = {"content-length": str(header["size"])}
    return StreamingResponse(chunks(), media_type="application/octet-stream", headers=headers)


async def _upload(box: Box, request: Request) -> list[Header]:
    path = request.query_params.get("path", "")
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _upload_form(box, request, path)
    if not path:
        raise Refusal(codes.INVALID_ARGUMENT, "path is required")
    return [await _write(box, path, _body(request))]


async def _upload_form(box: Box, request: Request, path: str) -> list[Header]:
    form = await MultiPartParser(request.headers, request.stream()).parse()
    written = []
    try:
        for _, part in form.multi_items():
            if isinstance(part, str):
                continue
            name = path or part.filename or ""
            written.append(await _write(box, name, _part(part)))
    finally:
        await form.close()
    return written


async def _part(part: Any) -> AsyncIterator[bytes]:
    while chunk := await part.read(1 << 16):
        yield chunk


async def _body(request: Request) -> AsyncIterator[bytes]:
    if request.headers.get("content-encoding") == "gzip":
        yield gzip.decompress(await request.body())
        return
    async for chunk in request.stream():
        yield chunk


async def _write(box: Box, path: str, chunks: AsyncIterator[bytes]) -> Header:
    header: Header = {"op": "write", "path": path}
    async for answer, _ in box.stream(header, body=chunks):
        found: Header = answer["entry"]
        return found
    raise GoneError(box.name)


def _written(found: Header) -> dict[str, Any]:
    return {"path": found["path"], "name": found["name"], "type": "file"}


def _error(status: int, message: str) -> Response:
    return JSONResponse({"code": status, "message": message}, status)
