"""A baseline without git in the sandbox: checksums there, and the host's git for the rest.

The host's git applies ignore rules and makes patches. Contents lie here under numbers, and a
sandbox's names go into an index; only `.gitignore` files have theirs, and only harmless ones.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError
from kaos_runner.workspace import hostgit
from kaos_runner.workspace.fetch import fetch
from kaos_runner.workspace.hostgit import HostGit
from kaos_runner.workspace.manifest import Manifest, read_manifest
from kaos_runner.workspace.names import encoded, shown
from kaos_runner.workspace.script import chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from kaos import Kaos

    from kaos_runner.workspace.incoming import Member
    from kaos_runner.workspace.script import Take

LIMIT = 512 * 2**20
"""Bytes that are brought to the host at once."""
_MODES = {"file": b"100644", "executable": b"100755", "symlink": b"120000"}


@dataclass(slots=True)
class PlainBaseline:
    """The manifest at the beginning, and the tree of what a patch may be asked for."""

    kaos: Kaos
    workdir: str
    manifest: Manifest
    roots: Sequence[str]
    folder: Path | None = None
    tree: str = ""
    _gone: bool = field(default=False)

    @classmethod
    async def take(cls, kaos: Kaos, workdir: str, roots: Sequence[str]) -> PlainBaseline:
        """Take it: one operation, and one more to bring the roots here."""
        if roots and not hostgit.available():
            msg = "a patch needs git, in the sandbox or on this machine"
            raise SandboxError(msg, hint="choose an image that has git, or install git here")
        baseline = cls(kaos, workdir, await read_manifest(kaos, workdir), roots)
        if hostgit.available():
            baseline.folder = Path(
                await asyncio.to_thread(tempfile.mkdtemp, prefix="kaos-runner-baseline-")
            )
            await asyncio.to_thread(baseline._git.create)
        if roots:
            names = [n for n in baseline.manifest.items if _within(n, roots)]
            kept = await baseline._unignored(names, baseline.manifest)
            await baseline._update(kept, baseline.manifest)
            baseline.tree = (await baseline._git.run("write-tree")).decode().strip()
        return baseline

    async def mark(self, number: int) -> Manifest | None:  # noqa: ARG002
        """Remember the workdir: one operation."""
        return await read_manifest(self.kaos, self.workdir)

    async def changed(self, number: int, manifest: Manifest | None) -> list[str]:  # noqa: ARG002
        """The names that differ from a mark: one operation."""
        now = await read_manifest(self.kaos, self.workdir)
        return await self._differing(manifest or self.manifest, now)

    async def patch(self, path: str, take: Take) -> None:
        """The patch of a directory: two operations."""
        if not _within(path, self.roots):
            msg = f"the baseline does not hold {shown(path)}: the sandbox has no git"
            raise SandboxError(msg, hint="choose an image that has git")
        now = await read_manifest(self.kaos, self.workdir)
        names = [n for n in await self._differing(self.manifest, now) if _within(n, [path])]
        git = self._git
        await git.run("read-tree", self.tree)
        await self._update(names, now)
        after = (await git.run("write-tree")).decode().strip()
        args = ["-r", "-p", "--binary", "--full-index", "--no-color", "--no-ext-diff"]
        args += ["--no-textconv", "-M", "-l2000"]
        args += [] if path == "." else [f"--relative={path}/"]
        async with git.reading("diff-tree", *args, self.tree, after) as stream:
            async for chunk in chunks(stream):
                await take(chunk)

    async def remove(self) -> None:
        """Remove what is kept on the host; nothing is kept in the sandbox."""
        if self.folder:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder = None

    @property
    def _git(self) -> HostGit:
        if self.folder is None:
            msg = "the baseline was removed"
            raise SandboxError(msg)
        return HostGit(self.folder / "git", self.folder / "tree")

    async def _differing(self, before: Manifest, now: Manifest) -> list[str]:
        return await self._unignored(now.differing(before), before, now)

    async def _unignored(self, names: list[str], *manifests: Manifest) -> list[str]:
        """The names that no `.gitignore` of the last manifest excludes; all without git here.

        A name that the first one holds and lets in stays, whatever a later rule says.
        """
        if self.folder is None or not names:
            return names
        kept = set(names)
        for manifest in manifests[-1:]:
            if manifest.ignores:
                kept -= await self._ignored(names, manifest)
        if len(manifests) > 1:
            first = manifests[0]
            known = [n for n in names if n in first.items]
            kept |= set(known) - (await self._ignored(known, first) if first.ignores else set())
        return [n for n in names if n in kept]

    async def _ignored(self, names: list[str], manifest: Manifest) -> set[str]:
        assert self.folder is not None
        place = self.folder / "rules"
        git = HostGit(self.folder / "git", place)
        await asyncio.to_thread(_write_rules, place, manifest.ignores)
        asked = b"".join(encoded(n) + b"\0" for n in names if _harmless(n))
        env = hostgit.environment(GIT_DIR=str(git.path), GIT_WORK_TREE=str(place))
        code, out, err = await hostgit.run_git(
            "check-ignore", "--no-index", "-z", "--stdin", env=env, cwd=place, stdin=asked
        )
        if code not in (0, 1):
            msg = f"git check-ignore failed on the host: {err.decode(errors='replace').strip()}"
            raise SandboxError(msg)
        return {n.decode("utf-8", "surrogateescape") for n in out.split(b"\0") if n}

    async def _update(self, names: Sequence[str], manifest: Manifest) -> None:
        """Bring named files here and into the index, or take them out of it: one operation."""
        assert self.folder is not None
        place = self.folder / "contents"
        wanted = [n for n in names if n in manifest.items and _harmless(n)]
        contents = _Contents(place, set(wanted))
        try:
            files = [n for n in wanted if manifest.items[n].kind != "symlink"]
            for name in wanted:
                if manifest.items[name].kind == "symlink":
                    contents.keep(name, manifest.items[name].digest)
            if files:
                await fetch(self.kaos, self.workdir, files, contents)
            await self._index(names, contents, manifest)
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    async def _index(self, names: Iterable[str], contents: _Contents, manifest: Manifest) -> None:
        git = self._git
        order = list(contents.paths)
        stdin = "".join(f"{contents.paths[n]}\n" for n in order).encode()
        hashes = (
            await git.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=stdin)
        ).split()
        by_name = dict(zip(order, hashes, strict=True))
        gone = [n for n in names if n not in by_name and _harmless(n)]
        lines = [b"0 %b\t%b\0" % (b"0" * 40, encoded(n)) for n in gone]
        lines += [
            b"%b %b\t%b\0" % (_MODES[manifest.items[n].kind], by_name[n], encoded(n)) for n in order
        ]
        await git.run("update-index", "-z", "--index-info", stdin=b"".join(lines))


class _Contents:
    """Files that come from a sandbox, under numbers in a folder."""

    def __init__(self, folder: Path, wanted: set[str]) -> None:
        self.paths: dict[str, Path] = {}
        self._folder = folder
        self._wanted = wanted
        self._left = LIMIT
        self._file: BinaryIO | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, content: bytes) -> None:
        path = self._folder / str(len(self.paths))
        path.write_bytes(content)
        self.paths[name] = path

    def begin(self, member: Member) -> None:
        if member.kind == "hard link" and member.target in self.paths:
            self.paths[member.name] = self.paths[member.target]
            return
        if member.kind != "file" or member.name not in self._wanted:
            return
        self.keep(member.name, b"")
        self._file = self.paths[member.name].open("wb")

    def feed(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            msg = f"the workdir holds more than {LIMIT // 2**20} MiB, and the sandbox has no git"
            raise SandboxError(msg, hint="choose an image that has git, or ignore large files")
        if self._file:
            self._file.write(chunk)

    def end(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def _within(name: str, roots: Sequence[str]) -> bool:
    return any(root in (".", name) or name.startswith(f"{root}/") for root in roots)


def _harmless(name: str) -> bool:
    """Whether git takes the name into an index."""
    parts = name.split("/")
    return not any(p in ("", ".", "..") or p.lower() == ".git" for p in parts)


def _write_rules(place: Path, ignores: dict[str, bytes]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, rules in ignores.items():
        if _harmless(name) and name.rpartition("/")[2] == ".gitignore":
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rules)
