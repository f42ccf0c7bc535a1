"""What a tree holds by name, kind and checksum: the baseline where the sandbox has no git."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kaos_runner.errors import SandboxError
from kaos_runner.workspace.names import decoded
from kaos_runner.workspace.script import agreed, fields, run_script
from kaos_runner.workspace.script import following as _next

if TYPE_CHECKING:
    from kaos import Kaos

# One pass; each batch of files says their number, their names, and then a checksum a line.
_LIST = r"""
cd -- "$1" || exit 92
command -v find >/dev/null 2>&1 || { echo 'find is missing' >&2; exit 1; }
sum=$(command -v sha256sum) || sum=$(command -v cksum) || exit 1
pwd -P | tr '\n' '\0'
printf '%s\0' "${sum##*/}"
files='printf "%s\0%s\0" "$0" "$#"; printf "%s\0" "$@"
  '"${sum##*/}"' "$@" 2>/dev/null; printf "\0"'
links='for l; do printf "l\0%s\0" "$l"; readlink "$l"; printf "\0"; done'
ignores='for i; do printf "i\0%s\0" "$i"; base64 <"$i"; printf "\0"; done'
find . -name .git -prune \
  -o -name .gitignore -type f -size -2048 -exec /bin/sh -c "$ignores" sh {} + 2>/dev/null
find . -name .git -prune \
  -o -type f -perm -0100 -exec /bin/sh -c "$files" x {} + \
  -o -type f -exec /bin/sh -c "$files" f {} + \
  -o -type l -exec /bin/sh -c "$links" sh {} +
printf 'end\0'
"""
_SHA256 = re.compile(rb"\\?([0-9a-f]{64}) [ *]")
_CKSUM = re.compile(rb"([0-9]+ [0-9]+) ")

Kind = Literal["file", "executable", "symlink"]


@dataclass(frozen=True, slots=True)
class Item:
    """One file or symlink; `digest` is a checksum, or where the symlink points to."""

    kind: Kind
    digest: bytes


@dataclass(slots=True)
class Manifest:
    """Everything below a workdir but `.git`, by name relative to it."""

    top: str = ""
    items: dict[str, Item] = field(default_factory=dict)
    ignores: dict[str, bytes] = field(default_factory=dict)
    """The contents of each `.gitignore`, by its name."""

    def differing(self, other: Manifest) -> list[str]:
        """The names at which the two differ, sorted."""
        names = self.items.keys() | other.items.keys()
        return sorted(n for n in names if self.items.get(n) != other.items.get(n))


async def read_manifest(kaos: Kaos, workdir: str) -> Manifest:
    """List and sum up the whole workdir: one operation.

    A file that cannot be read is left out.

    Raises:
        SandboxError: the listing could not be made.
        SandboxLostError: the sandbox went away.
    """
    ended = await run_script(kaos, _LIST, workdir)
    if not ended.stdout.endswith(b"\0end\0"):
        msg = f"the workdir could not be listed: {ended.complaint}"
        raise SandboxError(msg, hint="the sandbox needs find and sha256sum, or git")
    with agreed():
        return await asyncio.to_thread(_parsed, ended.stdout)


def _parsed(answer: bytes) -> Manifest:
    pieces = fields(answer)
    manifest = Manifest(top=decoded(_next(pieces)))
    pattern = _SHA256 if _next(pieces) == b"sha256sum" else _CKSUM
    for kind in pieces:
        match kind:
            case b"end":
                break
            case b"f" | b"x":
                names = [_next(pieces) for _ in range(int(_next(pieces)))]
                _sums(
                    manifest,
                    "executable" if kind == b"x" else "file",
                    names,
                    _next(pieces),
                    pattern,
                )
            case b"l":
                name, target = _next(pieces), _next(pieces)
                manifest.items[_name(name)] = Item("symlink", target.removesuffix(b"\n"))
            case b"i":
                name, text = _next(pieces), _next(pieces)
                manifest.ignores[_name(name)] = _plain(text)
            case _:
                msg = f"unknown kind {kind!r}"
                raise ValueError(msg)
    return manifest


def _sums(
    manifest: Manifest, kind: Kind, names: list[bytes], sums: bytes, pattern: re.Pattern[bytes]
) -> None:
    """Each file's line in turn; the names are known, so a line end in one is no riddle."""
    at = 0
    for name in names:
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        match = pattern.match(sums, at)
        if not match:
            break
        form = escaped if sums[at : at + 1] == b"\\" else name
        if sums.startswith(form + b"\n", match.end()):
            manifest.items[_name(name)] = Item(kind, match.group(1))
            at = match.end() + len(form) + 1


def _name(name: bytes) -> str:
    return decoded(name.removeprefix(b"./"))


def _plain(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""
