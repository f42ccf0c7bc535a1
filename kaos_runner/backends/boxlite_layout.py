"""Writes an OCI image layout: the directory form of an image that BoxLite can start from."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MEDIA = "application/vnd.oci.image"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def write_layout(
    directory: Path,
    files: Mapping[str, bytes],
    *,
    links: Mapping[str, str] | None = None,
    env: tuple[str, ...] = ("PATH=/bin:/usr/bin",),
) -> None:
    """Make an image of one layer in a new directory: files (executable) and symlinks by path."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    tar = _layer(files, links or {})
    layer = _blob(blobs, gzip.compress(tar, mtime=0), f"{_MEDIA}.layer.v1.tar+gzip")
    config = {
        "architecture": _MACHINES.get(platform.machine(), "amd64"),
        "os": "linux",
        "config": {"Env": list(env), "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    described = _blob(blobs, json.dumps(config).encode(), f"{_MEDIA}.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": described,
        "layers": [layer],
    }
    entry = _blob(blobs, json.dumps(manifest).encode(), f"{_MEDIA}.manifest.v1+json")
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _blob(blobs: Path, content: bytes, media: str) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}


def _layer(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return packed.getvalue()
