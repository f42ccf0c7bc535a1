"""What lies in the workdir where artifacts are asked for: listed in the sandbox, judged here."""

from __future__ import annotations

import asyncio
import posixpath
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError
from kaos_runner.workspace.names import below, decoded, joined, shown
from kaos_runner.workspace.script import agreed, fields, following, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kaos import Kaos

# For each place: what it is; then all below it. Nothing outside the workdir is listed.
_LIST = r"""
cd -- "$1" || exit 92
shift
top=$(pwd -P)
printf '%s\0' "$top"
links='for l; do
  printf "l\0%s\0%s\0" "$l" "$(readlink -f "$l")"
  if [ -f "$l" ]; then printf "f\0"; elif [ -d "$l" ]; then printf "d\0"
  elif [ -e "$l" ]; then printf "o\0"; else printf "m\0"; fi
done'
while [ $# -gt 1 ]; do
  place=$1; depth=$2; shift 2
  if [ ! -e "$place" ] && [ ! -L "$place" ]; then printf 'm\0'; continue; fi
  printf 'p\0%s\0' "$(readlink -f "$place")"
  case $(readlink -f "$place")/ in "${top%/}"/*) ;; *) continue ;; esac
  if [ ! -d "$place" ]; then
    if [ -L "$place" ]; then /bin/sh -c "$links" sh "$place"
    elif [ -f "$place" ]; then printf 'f\0%s\0' "$place"
    else printf 'o\0%s\0' "$place"; fi
    printf 'e\0%s\0' 0; continue
  fi
  printf 'd\0'
  if [ "$depth" = all ]; then set -- "" "$@"; else set -- "-maxdepth $depth" "$@"; fi
  find "$place/." $1 -type d -o -type f -exec printf 'f\0%s\0' {} + \
    -o -type l -exec /bin/sh -c "$links" sh {} + -o -exec printf 'o\0%s\0' {} +
  printf 'e\0%s\0' $?
  shift
done
printf 'end\0'
"""
_WILD = frozenset("*?[")

Reason = str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One `path` of an artifact: a literal place, or a glob below a literal place."""

    path: str
    place: str
    glob: str | None
    depth: str

    @classmethod
    def of(cls, path: str) -> Wanted:
        """The wanted files of a recipe's path.

        Raises:
            UsageError: it leaves the workdir.
        """
        name = below(path, "`path`")
        parts = name.split("/")
        literal = next((i for i, part in enumerate(parts) if _WILD & set(part)), None)
        if literal is None:
            return cls(name, name, None, "all")
        place = "/".join(parts[:literal]) or "."
        depth = "all" if "**" in parts else str(len(parts) - literal)
        return cls(name, place, name, depth)

    def takes(self, name: str) -> bool:
        """Whether a listed name is wanted."""
        return self.glob is None or PurePosixPath(name).full_match(self.glob)


@dataclass(slots=True)
class Found:
    """What was found for one `Wanted`."""

    exists: bool = False
    directory: bool = False
    outside: str | None = None
    """Where the place really is, when that is not below the workdir."""
    files: list[str] = field(default_factory=list)
    """Names relative to the workdir."""
    refused: dict[str, Reason] = field(default_factory=dict)
    incomplete: bool = False
    """A directory could not be read, or there are too many files."""


async def list_files(
    kaos: Kaos, workdir: str, wanted: Sequence[Wanted], *, max_files: int
) -> list[Found]:
    """List every wanted place: one operation.

    Raises:
        SandboxError: the listing could not be made.
        SandboxLostError: the sandbox went away.
    """
    args = [arg for w in wanted for arg in (f"./{w.place}", w.depth)]
    ended = await run_script(kaos, _LIST, workdir, *args)
    if not ended.stdout.endswith(b"\0end\0"):
        msg = f"the workdir could not be listed: {ended.complaint}"
        raise SandboxError(msg)
    with agreed():
        return await asyncio.to_thread(_parsed, ended.stdout, wanted, max_files)


def _parsed(answer: bytes, wanted: Sequence[Wanted], max_files: int) -> list[Found]:
    pieces = fields(answer)
    top = decoded(following(pieces))
    return [_Listing(w, top, max_files).read(pieces) for w in wanted]


class _Listing:
    """Reads what the sandbox says about one place."""

    def __init__(self, wanted: Wanted, top: str, max_files: int) -> None:
        self._wanted = wanted
        self._top = top
        self._max_files = max_files
        self._found = Found()

    def read(self, pieces: Iterator[bytes]) -> Found:
        found = self._found
        if following(pieces) == b"m":
            return found
        found.exists = True
        real = decoded(following(pieces))
        if not real:
            found.refused[self._wanted.place] = "it is a symlink that points nowhere"
            return found
        if not self._inside(real):
            found.outside = real
            return found
        for kind in pieces:
            match kind:
                case b"d":
                    found.directory = True
                case b"f":
                    self._file(_name(following(pieces)))
                case b"l":
                    self._link(*(following(pieces) for _ in range(3)))
                case b"o":
                    self._refuse(_name(following(pieces)), "it is neither a file nor a directory")
                case _:
                    found.incomplete |= following(pieces) != b"0"
                    break
        found.files.sort()
        return found

    def _file(self, name: str) -> None:
        if not self._wanted.takes(name):
            return
        if len(self._found.files) >= self._max_files:
            self._found.incomplete = True
        else:
            self._found.files.append(name)

    def _link(self, link: bytes, real: bytes, kind: bytes) -> None:
        name, target = _name(link), decoded(real)
        if kind == b"m" or not target:
            self._refuse(name, "it is a symlink that points nowhere")
        elif not self._inside(target):
            self._refuse(name, f"it is a symlink out of the workdir, to {shown(target)}")
        elif kind == b"f":
            self._file(name)
        elif kind == b"d" and self._covered(target):
            pass  # its contents come home under their own names
        else:
            self._refuse(name, f"it is a symlink to {shown(target)}, which is no file")

    def _refuse(self, name: str, reason: Reason) -> None:
        if self._wanted.takes(name) and len(self._found.refused) < self._max_files:
            self._found.refused[name] = reason

    def _inside(self, real: str) -> bool:
        top = self._top.rstrip("/")
        return real == self._top or real.startswith(f"{top}/")

    def _covered(self, real: str) -> bool:
        place = posixpath.normpath(posixpath.join(self._top, self._wanted.place))
        return real == place or real.startswith(f"{place.rstrip('/')}/")


def _name(field_: bytes) -> str:
    return joined(decoded(field_))
