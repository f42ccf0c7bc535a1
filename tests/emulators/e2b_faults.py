"""What an emulator of E2B can be told to do wrong, and the kinds by which requests are counted."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Message, Receive, Scope, Send

KINDS = (
    ("POST", r"/v2/sandboxes", "create"),
    ("GET", r"/v2/sandboxes", "list"),
    ("GET", r"/sandboxes/[^/]+", "get"),
    ("DELETE", r"/sandboxes/[^/]+", "kill"),
    ("POST", r"(?:/v2)?/sandboxes/[^/]+/(\w+)", ""),
    ("GET", r"/sandboxes/[^/]+/(\w+)", ""),
    ("PUT", r"/sandboxes/[^/]+/(\w+)", ""),
    ("GET", r"/files", "files.read"),
    ("POST", r"/files", "files.write"),
    ("GET", r"/health", "health"),
    ("POST", r"/(?:process|filesystem)\.(\w+/\w+)", ""),
)


def kind(method: str, path: str) -> str:
    """What a request is: `create`, `timeout`, `files.read`, `Process/Start`, `Filesystem/Stat`…"""
    for verb, pattern, name in KINDS:
        match = re.fullmatch(pattern, path)
        if verb == method and match:
            return name or match[1]
    return "unknown"


@dataclass(slots=True)
class Fault:
    """A failure of the next `times` requests whose kind matches a shell-style pattern.

    `status` answers with it instead of doing anything. `reset` breaks the connection before
    anything is done, `lose` after it was done and before the answer, `cut` in the middle of it.
    """

    pattern: str
    times: int = 1
    how: Literal["status", "reset", "lose", "cut"] = "status"
    status: int = 500
    message: str = "emulated failure"
    headers: tuple[tuple[str, str], ...] = ()
    after: int = 1
    """`cut`: after so many parts of the body."""

    def takes(self, name: str) -> bool:
        """Whether this request is one of those; then one fewer is left."""
        if self.times < 1 or not fnmatch(name, self.pattern):
            return False
        self.times -= 1
        return True


class Protocol(H11Protocol):
    """HTTP whose connections can be broken off, by the client's address."""

    transports: dict[tuple[str, int], asyncio.Transport] = {}  # noqa: RUF012 - shared on purpose

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport."""
        super().connection_made(transport)
        self.transports[transport.get_extra_info("peername")[:2]] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport."""
        self.transports.pop(self.transport.get_extra_info("peername")[:2], None)
        super().connection_lost(exc)


def reset(scope: Scope) -> None:
    """Break the connection so that the client sees a reset, not an orderly end."""
    transport = Protocol.transports[tuple(scope["client"])]
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def breaking(scope: Scope, send: Send, fault: Fault) -> Send:
    """A `send` that breaks off: at once (`lose`), or after some parts of the body (`cut`)."""
    left = fault.after if fault.how == "cut" else 0

    async def send_some(message: Message) -> None:
        nonlocal left
        body = message["type"] == "http.response.body"
        if (body and left < 1) or fault.how == "lose":
            reset(scope)
            return
        left -= body
        await send(message)

    return send_some


async def drained(receive: Receive) -> None:
    """Read a request's body to its end, so that an answer is not mistaken for a broken pipe."""
    while (await receive()).get("more_body"):
        pass
