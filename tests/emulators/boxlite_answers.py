"""What the BoxLite emulator answers: boxes and errors in the server's shape."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from tests.emulators.boxlite_box import Box

TYPES = {
    "invalid_argument": "InvalidArgumentError",
    "unauthenticated": "AuthError",
    "not_found": "NotFoundError",
    "already_exists": "AlreadyExistsError",
    "invalid_state": "InvalidStateError",
    "image_pull_failed": "ImageError",
    "execution_failed": "ExecutionError",
    "resource_exhausted": "ResourceExhaustedError",
    "upstream_unavailable": "UpstreamUnavailableError",
    "engine_unavailable": "EngineError",
    "storage_error": "StorageError",
    "unsupported": "UnsupportedError",
    "timeout": "TimeoutError",
}
NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}$")
CREATE_FIELDS = {"advanced", "security", "name", "image", "rootfs_path", "cpus", "memory_mib"}
CREATE_FIELDS |= {"disk_size_gb", "working_dir", "env", "entrypoint", "cmd", "user", "volumes"}
CREATE_FIELDS |= {"network", "secrets", "detach", "auto_pause", "auto_stop", "auto_delete"}
CREATE_FIELDS |= {"auto_resume", "auto_remove", "tty"}


def answer_error(status: int, code: str, message: str) -> web.Response:
    """An error in the server's shape."""
    error = {"message": message, "type": TYPES.get(code, "InternalError"), "code": code}
    return web.json_response(
        {"error": {**error, "request_id": f"req_{secrets.token_hex(8)}"}}, status=status
    )


class Refused(Exception):
    """Ends a route with an error in the server's shape."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = answer_error(status, code, message)


def check_create(spec: dict[str, object]) -> None:
    """Refuse what the server refuses at create."""
    unknown = sorted(set(spec) - CREATE_FIELDS)
    if unknown:
        raise Refused(400, "invalid_argument", f"unknown fields: {', '.join(unknown)}")
    name = spec.get("name")
    if name is not None and not NAME.match(str(name)):
        raise Refused(400, "invalid_argument", f"invalid box name: {name}")
    image = str(spec.get("image") or "alpine:latest")
    if "nonexistent" in image:
        raise Refused(422, "image_pull_failed", f"images error: manifest unknown for {image}")


def described(box: Box) -> dict[str, object]:
    """A box as the server tells it."""
    spec = box.spec
    facts: dict[str, object] = {
        "box_id": box.id,
        "name": box.name,
        "status": box.status,
        "labels": {},
    }
    facts |= {"created_at": box.created_at.isoformat(), "updated_at": box.updated_at.isoformat()}
    facts["image"] = spec.get("image") or spec.get("rootfs_path") or "alpine:latest"
    facts |= {"cpus": spec.get("cpus") or 2, "memory_mib": spec.get("memory_mib") or 512}
    return {**facts, "pid": box.inner_pid if box.status == "running" else None}
