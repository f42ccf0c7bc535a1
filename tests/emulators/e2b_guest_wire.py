"""Frames between the emulator of E2B and the inside of one of its sandboxes.

A frame is two big-endian lengths, a JSON header and a payload. One connection is one operation.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

CHUNK = 32 * 1024
FRAME = struct.Struct(">II")

NOT_FOUND = "not_found"
INVALID_ARGUMENT = "invalid_argument"
INTERNAL = "internal"
UNIMPLEMENTED = "unimplemented"
FAILED_PRECONDITION = "failed_precondition"
ALREADY_EXISTS = "already_exists"

Header = dict[str, Any]


class Refusal(Exception):
    """An operation that is answered with a code of the Connect protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def pack(header: Header, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    head = json.dumps(header).encode()
    return FRAME.pack(len(head), len(payload)) + head + payload


def receive(link: socket.socket) -> tuple[Header, bytes]:
    """Read one frame.

    Raises:
        EOFError: the peer is gone.
    """
    head, body = FRAME.unpack(_exactly(link, FRAME.size))
    header: Header = json.loads(_exactly(link, head))
    return header, _exactly(link, body)


def _exactly(link: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        piece = link.recv(min(size - len(parts), 1 << 20))
        if not piece:
            raise EOFError
        parts += piece
    return bytes(parts)
