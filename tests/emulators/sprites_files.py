"""The file calls of an emulated sprite: list, read, write, delete, rename, copy, chmod."""

from __future__ import annotations

import errno
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from pathlib import Path

    from tests.emulators.sprites_machine import Machine

_STATUS = {"ENOENT": 404, "EACCES": 403, "EPERM": 403}


def answer_error(error: OSError, path: str) -> web.Response:
    """An OSError as the service words it."""
    code = errno.errorcode.get(error.errno or 0, "EIO")
    body = {"error": (error.strerror or "failed").lower(), "code": code, "path": path}
    return web.json_response(body, status=_STATUS.get(code, 400))


def entry(host: Path, path: str, name: str) -> dict[str, Any]:
    """One entry of a listing."""
    stat = host.lstat()
    folder = host.is_dir()
    return {
        "name": name,
        "path": path,
        "type": "directory" if folder else "file",
        "size": stat.st_size,
        "mode": f"{stat.st_mode & 0o7777:04o}",
        "modTime": datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(),
        "isDir": folder,
    }


def listing(machine: Machine, path: str, working_dir: str, mode: str) -> web.Response:
    """A directory's entries; in mode `self` the directory itself stands first."""
    host = machine.host_path(path, working_dir)
    own = entry(host, path, path.rstrip("/").rpartition("/")[2] or "/")
    if not own["isDir"]:
        entries = [own]
    else:
        entries = [own] if mode == "self" else []
        for child in sorted(host.iterdir()):
            entries.append(entry(child, f"{path.rstrip('/')}/{child.name}", child.name))
    return web.json_response({"path": path, "entries": entries, "count": len(entries)})


def read(machine: Machine, path: str, working_dir: str, wanted: str | None) -> web.Response:
    """A file's bytes; a `Range` is honoured with 206."""
    content = machine.host_path(path, working_dir).read_bytes()
    headers = {"Content-Type": "application/octet-stream"}
    if wanted and wanted.startswith("bytes="):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        stop = int(last) + 1 if last else len(content)
        return web.Response(status=206, body=content[int(first) : stop], headers=headers)
    return web.Response(body=content, headers=headers)


def write(machine: Machine, query: Any, content: bytes) -> web.Response:
    """Write a whole file; `mode` counts for a new one only."""
    path, mode = query["path"], query.get("mode", "0644")
    host = machine.host_path(path, query.get("workingDir", "/"))
    if query.get("mkdirParents", "false") == "true":
        host.parent.mkdir(parents=True, exist_ok=True)
    new = not host.exists()
    host.write_bytes(content)
    if new:
        host.chmod(int(mode, 8))
    return web.json_response({"path": path, "size": len(content), "mode": mode})


def delete(machine: Machine, query: Any) -> web.Response:
    """Remove a file, an empty directory, or with `recursive` a whole one."""
    path = query["path"]
    host = machine.host_path(path, query.get("workingDir", "/"))
    if host.is_dir() and query.get("recursive") == "true":
        shutil.rmtree(host)
    elif host.is_dir():
        host.rmdir()
    else:
        host.unlink()
    return web.json_response({"deleted": [path], "count": 1})


def rename(machine: Machine, body: dict[str, Any]) -> web.Response:
    """Move a file or directory."""
    base = body.get("workingDir", "/")
    machine.host_path(body["source"], base).rename(machine.host_path(body["dest"], base))
    return web.json_response({"source": body["source"], "dest": body["dest"]})


def copy(machine: Machine, body: dict[str, Any]) -> web.Response:
    """Copy a file or directory."""
    base = body.get("workingDir", "/")
    source, dest = (machine.host_path(body[key], base) for key in ("source", "dest"))
    if source.is_dir():
        shutil.copytree(source, dest, symlinks=True)
    else:
        shutil.copy2(source, dest)
    return web.json_response({"source": body["source"], "dest": body["dest"], "count": 1})


def chmod(machine: Machine, body: dict[str, Any]) -> web.Response:
    """Change permissions."""
    host = machine.host_path(body["path"], body.get("workingDir", "/"))
    targets = [host, *(host.rglob("*") if body.get("recursive") else [])]
    for target in targets:
        target.chmod(int(body["mode"], 8))
    return web.json_response({"path": body["path"], "mode": body["mode"], "count": len(targets)})
