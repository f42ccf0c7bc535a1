"""Files in and out of an emulated box, as tar archives, confined to the box's root."""

from __future__ import annotations

import io
import posixpath
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Archive:
    """The bytes of a tar archive, compressed or not."""

    content: bytes


def _inside(root: Path, path: str) -> Path:
    """The host's place of a path in the box; links that lead out of the root are not followed."""
    place = root
    for part in posixpath.normpath("/" + path).strip("/").split("/"):
        if part:
            place = place / part
    if not place.resolve().is_relative_to(root.resolve()):
        raise FileNotFoundError(path)
    return place


def extract(root: Path, path: str, tar: Archive, *, source_is_dir: bool) -> None:
    """Unpack at a path of the box; a single file is put there under the path's own name."""
    target = _inside(root, path)
    single = not source_is_dir and not path.endswith("/") and not target.is_dir()
    with tarfile.open(fileobj=io.BytesIO(tar.content), mode="r:*") as members:
        if single:
            _extract_single(members, target)
        else:
            target.mkdir(parents=True, exist_ok=True)
            members.extractall(target, filter="tar")


def _extract_single(members: tarfile.TarFile, target: Path) -> None:
    for member in members:
        content = members.extractfile(member)
        if content is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
            target.chmod(member.mode & 0o777)


def archive(root: Path, path: str, *, follow: bool) -> bytes:
    """Pack a path of the box under its own name; `dir/.` packs the contents.

    Raises:
        FileNotFoundError: there is no such path in the box.
    """
    place = _inside(root, path)
    if not place.exists() and not place.is_symlink():
        raise FileNotFoundError(path)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=follow) as members:
        name = "." if path.endswith("/.") else place.name or "."
        members.add(place, arcname=name)
    return packed.getvalue()
