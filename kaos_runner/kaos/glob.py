"""Recursive globs with pathlib's results, over a tree that was listed before."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["directory", "link", "other"]
"""`link` is a symlink to a directory; every other symlink is `other`."""

_MAGIC = re.compile(r"[*?\[]")
_SPECIAL = ("", ".", "..")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob: a `prefix` that needs no listing, and the `parts` that are matched below it."""

    prefix: str
    parts: tuple[str, ...]
    case_sensitive: bool

    @property
    def depth(self) -> int | None:
        """How many levels below the prefix can match; None where there is no limit."""
        return None if "**" in self.parts else len(self.parts)

    @property
    def last_name(self) -> str:
        """A shell pattern, for find's `-name`, that every match's name fits, and perhaps others."""
        last = self.parts[-1]
        if last in _SPECIAL or not self.case_sensitive:
            return "*"
        parsed = re.sub(
            r"\[.*", "*", last
        )  # classes differ between shells: everything from the first one on
        parsed = re.sub(r"[*?]+", "*", parsed)  # for find, `?` is a byte
        return parsed.replace("\\", "\\\\")

    def matcher(self, part: str) -> re.Pattern[str]:
        """A regular expression for one segment's names."""
        flags = re.NOFLAG if self.case_sensitive else re.IGNORECASE
        return re.compile(glob.translate(part, include_hidden=True, seps="/"), flags)


@dataclass(slots=True)
class Tree:
    """Directories that were listed, by their path relative to the glob's root."""

    entries: dict[str, dict[str, Kind] | None] = field(default_factory=dict)
    """None: no directory. Unreadable directories are empty, as for pathlib."""
    wanted: dict[str, int | None] = field(default_factory=dict)
    """Directories that a selection missed, with the depth it needs of them; None: no limit."""

    def children(self, path: str, depth: int | None) -> dict[str, Kind]:
        """The entries of a directory, or none and a note that it is wanted."""
        if path not in self.entries:
            self.wanted[path] = depth
        return self.entries.get(path) or {}

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory, or False and a note that it is wanted."""
        if path not in self.entries:
            self.wanted[path] = 1
        return self.entries.get(path) is not None

    def add_missing(self, path: str) -> None:
        """Take in that there is no directory."""
        self.wanted.pop(path, None)
        self.entries[path] = None

    def add(self, path: str, depth: int | None, kinds: Mapping[str, Kind]) -> None:
        """Take in one listing down to a depth: `kinds` holds paths relative to `path`."""
        self.wanted.pop(path, None)
        self.entries[path] = {}
        for name, kind in kinds.items():
            below = join(path, name)
            parent, _, leaf = below.rpartition("/")
            siblings = self.entries.setdefault(parent if "/" in below else "", {})
            if siblings is not None:
                siblings[leaf] = kind
            if kind == "directory" and (depth is None or name.count("/") + 1 < depth):
                self.entries.setdefault(below, {})


def parse(pattern: str, *, case_sensitive: bool) -> Pattern:
    """Take a glob apart.

    Raises:
        NotImplementedError: the pattern is absolute; as pathlib.
        ValueError: it is empty; as pathlib.
    """
    path = PurePosixPath(pattern)
    if path.anchor:
        msg = "Non-relative patterns are unsupported"
        raise NotImplementedError(msg)
    parts = list(path.parts)
    if not parts:
        msg = f"Unacceptable pattern: {pattern!r}"
        raise ValueError(msg)
    if pattern.endswith("/"):
        parts.append("")
    literal = 0
    while case_sensitive and literal < len(parts) - 1 and not _MAGIC.search(parts[literal]):
        literal += 1
    return Pattern("/".join(parts[:literal]), tuple(parts[literal:]), case_sensitive)


def select(tree: Tree, pattern: Pattern) -> list[str]:
    """Every match relative to the glob's root, as often as pathlib yields it.

    It is complete when `tree.wanted` is empty.
    """
    if pattern.prefix and not tree.is_directory(pattern.prefix):
        return []
    return list(_select(tree, pattern, pattern.prefix, pattern.parts, exists=bool(pattern.prefix)))


def join(path: str, name: str) -> str:
    """A path below another; the empty path is the root of the glob."""
    return f"{path}/{name}" if path else name


def _select(
    tree: Tree, pattern: Pattern, path: str, parts: tuple[str, ...], *, exists: bool
) -> Iterator[str]:
    if not parts:
        if exists or tree.is_directory(path):
            yield path
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _recurse(tree, pattern, path, rest, exists=exists)
    elif part in _SPECIAL:
        below = join(path, part) if part else path
        yield from _select(tree, pattern, below, rest, exists=exists)
    else:
        yield from _segment(tree, pattern, path, parts)


def _segment(tree: Tree, pattern: Pattern, path: str, parts: tuple[str, ...]) -> Iterator[str]:
    part, rest = parts[0], parts[1:]
    matches = pattern.matcher(part).match
    for name, kind in tree.children(path, None if "**" in parts else len(parts)).items():
        if not matches(name):
            continue
        if not rest:
            yield join(path, name)
        elif kind != "other":
            yield from _select(tree, pattern, join(path, name), rest, exists=True)


def _recurse(
    tree: Tree, pattern: Pattern, path: str, rest: tuple[str, ...], *, exists: bool
) -> Iterator[str]:
    while rest and rest[0] == "**":
        rest = rest[1:]
    yield from _select(tree, pattern, path, rest, exists=exists)
    stack = [path]
    while stack:
        parent = stack.pop()
        for name, kind in tree.children(parent, None).items():
            below = join(parent, name)
            if kind == "directory":
                stack.append(below)
            if not rest:
                yield below
            elif kind == "directory":
                yield from _select(tree, pattern, below, rest, exists=True)
