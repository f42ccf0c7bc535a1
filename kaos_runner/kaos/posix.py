"""KAOS through POSIX `sh`: the whole of pykaos' `Kaos`, over a transport that can run a command.

A file operation is one operation of the transport: a shell script with its arguments in argv. It
behaves as pykaos' `LocalKaos` does, errors included, with three differences: the working directory
belongs to the instance, `exec` ignores `env` (the transport fixes the environment), and a line of
a process's output may have any length.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import posixpath
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

from kaos_runner.kaos import glob as globs
from kaos_runner.kaos import probe, scripts
from kaos_runner.kaos.probe import Entries, Facts, Item
from kaos_runner.kaos.snapshot import CONTENT_LIMIT, Snapshot, first_listing
from kaos_runner.kaos.streams import Lines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence

    from kaos import KaosProcess, StatResult, StrOrKaosPath
    from kaos.path import KaosPath

type Errors = Literal["strict", "ignore", "replace"]

FIRST_READ = 1024 * 1024
"""Bytes that `readlines` fetches at first; only a longer file is streamed."""

_PATH_MAX = 4096

_scope: ContextVar[Snapshot | None] = ContextVar("kaos_runner_snapshot", default=None)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command that has ended left behind; exact bytes."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Transport(Protocol):
    """Runs commands in one sandbox, with an environment that is fixed when it is made.

    Both methods raise ConnectionError when the sandbox is gone, after they have told
    `SandboxRequest.on_lost` once.
    """

    async def run(
        self, argv: Sequence[str], *, cwd: str | None, stdin: bytes | None = None
    ) -> Completed:
        """Run one command to its end; without `stdin` it reads EOF at once.

        Cancelled, it kills the command with everything that it started.
        """
        ...

    async def start(self, argv: Sequence[str], *, cwd: str) -> KaosProcess:
        """Start a command: binary streams with back-pressure, real EOF, `kill` of the whole group.

        `returncode` is -N for a command that signal N ended, or 128 + N where nobody can tell.
        """
        ...


class PosixKaos:
    """A `kaos.Kaos` over a transport."""

    def __init__(self, transport: Transport, *, name: str, home: str, cwd: str) -> None:
        self.name = name
        self.transport = transport
        self._home = home
        self._cwd = cwd
        self._processes: set[KaosProcess] = set()
        self._generation = 0

    # -- paths

    def pathclass(self) -> type[PurePosixPath]:
        """Paths in a sandbox are POSIX paths."""
        return PurePosixPath

    def normpath(self, path: StrOrKaosPath) -> KaosPath:
        """The path without `.`, `..` and double slashes; symlinks are not looked at."""
        return _kaos_path(posixpath.normpath(str(path)))

    def gethome(self) -> KaosPath:
        """The sandbox's HOME."""
        return _kaos_path(self._home)

    def getcwd(self) -> KaosPath:
        """This instance's working directory."""
        return _kaos_path(self._cwd)

    async def chdir(self, path: StrOrKaosPath) -> None:
        """Change this instance's working directory, symlinks resolved."""
        done = await self._script(scripts.CHDIR, path)
        self._cwd = os.fsdecode(done.stdout[:-2])

    def _absolute(self, path: StrOrKaosPath) -> str:
        text = _named(path)
        if "\0" in text:
            msg = "embedded null byte"
            raise ValueError(msg)
        absolute = self._cwd if text == "." else posixpath.join(self._cwd, text)
        if len(os.fsencode(absolute)) >= _PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), text)
        return absolute

    # -- the scope of a tool call

    @contextmanager
    def snapshot(
        self,
        paths: Iterable[StrOrKaosPath] = (),
        *,
        directories: Iterable[StrOrKaosPath] = (),
        globs: Iterable[tuple[StrOrKaosPath, str]] = (),
    ) -> Iterator[Snapshot]:
        """Keep what is learnt about paths until the end of the scope.

        The first request fetches everything that is named here.

        Args:
            paths: whose stat will be asked for, and the content where they are small files.
            directories: that will be listed; each entry's stat comes along.
            globs: pairs of directory and pattern; each match's stat comes along.
        """
        scope = Snapshot(owner=self, generation=self._generation)
        for path in paths:
            with suppress(ValueError, OSError):  # whoever asks for it gets the error
                scope.paths.append(self._absolute(path))
        for path in directories:
            with suppress(ValueError, OSError):
                scope.directories.append(self._absolute(path))
        for path, pattern in globs:
            with suppress(ValueError, OSError, NotImplementedError):
                scope.globs.append((self._absolute(path), _parse(pattern)))
        token = _scope.set(scope)
        try:
            yield scope
        finally:
            scope.closed = True
            scope.drop()
            _scope.reset(token)

    def _snapshot(self) -> Snapshot | None:
        scope = _scope.get()
        if scope is None or scope.owner is not self or scope.closed:
            return None
        if scope.generation != self._generation:
            scope.drop()
            scope.generation = self._generation
        return scope

    def _changed(self) -> None:
        """Something may have changed: what any scope knows is stale."""
        self._generation += 1

    # -- looking

    async def stat(self, path: StrOrKaosPath, *, follow_symlinks: bool = True) -> StatResult:
        """The stat of a path."""
        absolute = self._absolute(path)
        facts = self._known(absolute)
        if facts is None or (facts.link is None and not follow_symlinks):
            limit = CONTENT_LIMIT if self._snapshot() else 0
            facts = await self._facts(Item(absolute, limit=limit))
        outcome = facts.target if follow_symlinks else facts.link
        assert outcome is not None  # only a write leaves it out
        if isinstance(outcome, OSError):
            raise OSError(outcome.errno, outcome.strerror, _named(path))
        return replace(outcome)

    async def iterdir(self, path: StrOrKaosPath) -> AsyncGenerator[KaosPath]:
        """The entries of a directory, in no particular order."""
        absolute = self._absolute(path)
        scope = self._snapshot()
        entries = scope.listings.get(absolute) if scope else None
        if entries is None:
            entries = await self._entries(Item(absolute, listing=True, limit=1))
        if entries.failure is not None:
            raise OSError(entries.failure.errno, entries.failure.strerror, _named(path))
        for name in entries.modes:
            yield _kaos_path(str(path), name)

    async def glob(
        self, path: StrOrKaosPath, pattern: str, *, case_sensitive: bool = True
    ) -> AsyncGenerator[KaosPath]:
        """Everything below a directory that matches, as `pathlib.Path.glob` has it, unordered."""
        parsed = _parse(pattern, case_sensitive=case_sensitive)
        for match in await self._matches(self._absolute(path), parsed):
            yield _kaos_path(str(path), match)

    async def _matches(self, root: str, pattern: globs.Pattern) -> list[str]:
        scope = self._snapshot()
        tree = scope.trees.get((root, pattern)) if scope else None
        if tree is None:
            first = await self._entries(first_listing(root, pattern))
            scope = self._snapshot()
            tree = scope.trees.get((root, pattern)) if scope else None
            tree = tree or _grown(globs.Tree(), pattern.prefix, pattern.depth, first)
        matches = globs.select(tree, pattern)
        while tree.wanted:
            await self._grow(tree, root)
            matches = globs.select(tree, pattern)
        return matches

    async def _grow(self, tree: globs.Tree, root: str) -> None:
        """List what a selection missed: what symlinks and `..` lead to."""
        wanted = list(tree.wanted.items())
        items = [
            Item(posixpath.join(root, path), listing=True, limit=depth) for path, depth in wanted
        ]
        for (path, depth), entries in zip(wanted, await self._ask(items), strict=True):
            assert isinstance(entries, Entries)  # listings were asked for
            _grown(tree, path, depth, entries)

    def _known(self, path: str) -> Facts | None:
        scope = self._snapshot()
        return scope.facts.get(path) if scope else None

    async def _settled(self, path: str) -> Facts | None:
        """What is known, once a request that fetches it has been answered."""
        scope = self._snapshot()
        if scope is None:
            return None
        if path in scope.paths:
            await self._facts(Item(path, limit=CONTENT_LIMIT))
        elif scope.lock.locked():
            async with scope.lock:
                pass
        return self._known(path)

    async def _facts(self, item: Item) -> Facts:
        result = (await self._ask([item]))[0]
        assert isinstance(result, Facts)  # a stat was asked for
        return result

    async def _entries(self, item: Item) -> Entries:
        result = (await self._ask([item]))[0]
        assert isinstance(result, Entries)  # a listing was asked for
        return result

    async def _ask(self, items: Sequence[Item]) -> list[Facts | Entries]:
        """One request for all the items; in a scope, also for what was planned, and kept."""
        scope = self._snapshot()
        if scope is None:
            return await self._probe(items, full=False)
        async with scope.lock:  # parallel questions of one call share the first request
            answers = scope.answers(items) if self._snapshot() else None
            if answers is not None:
                return answers
            asked = scope.plan(items)
            generation = self._generation
            results = await self._probe(asked, full=True)
            if generation == self._generation and not scope.closed:
                scope.learn(asked, results)
        return results[: len(items)]

    async def _probe(self, items: Sequence[Item], *, full: bool) -> list[Facts | Entries]:
        token, argv = probe.request(items, full=full)
        done = await self.transport.run(argv, cwd=None)
        if done.exit_code:
            raise scripts.error(scripts.UNKNOWN, items[0].path, done.stderr)
        return probe.read(token, items, done.stdout, full=full)

    # -- reading

    async def readbytes(self, path: StrOrKaosPath, n: int | None = None) -> bytes:
        """The content of a file, or its first `n` bytes; only these are fetched."""
        limit = None if n is None or n < 0 else n
        facts = await self._settled(self._absolute(path))
        content = facts.content if facts is not None else None
        if facts is not None and content is not None:
            enough = limit is not None and limit <= len(content)
            if facts.complete or enough:
                return content[:limit]
        return await self._read(path, limit)

    async def readtext(
        self, path: StrOrKaosPath, *, encoding: str = "utf-8", errors: Errors = "strict"
    ) -> str:
        """The content of a file as text, line ends as Python reads them."""
        content = await self.readbytes(path)
        return io.TextIOWrapper(io.BytesIO(content), encoding=encoding, errors=errors).read()

    async def readlines(
        self, path: StrOrKaosPath, *, encoding: str = "utf-8", errors: Errors = "strict"
    ) -> AsyncGenerator[str]:
        """The lines of a file with their ends; a long file is streamed as far as it is used."""
        content = await self._beginning(path)
        lines = Lines(encoding, errors)
        for line in lines.feed(content, final=len(content) != FIRST_READ):
            yield line
        if len(content) != FIRST_READ:
            return
        argv = scripts.command(scripts.READ_REST, [self._absolute(path), str(FIRST_READ)])
        process = await self.transport.start(argv, cwd="/")
        try:
            process.stdin.close()
            while chunk := await process.stdout.read(FIRST_READ):
                for line in lines.feed(chunk):
                    yield line
            for line in lines.feed(b"", final=True):
                yield line
        finally:
            with suppress(ProcessLookupError):
                await process.kill()

    async def _beginning(self, path: StrOrKaosPath) -> bytes:
        facts = await self._settled(self._absolute(path))
        if facts is not None and facts.content is not None and facts.complete:
            return facts.content
        return await self._read(path, FIRST_READ)

    async def _read(self, path: StrOrKaosPath, limit: int | None) -> bytes:
        arguments = [] if limit is None else [str(limit)]
        return (await self._script(scripts.READ, path, *arguments)).stdout

    # -- writing

    async def writebytes(self, path: StrOrKaosPath, data: bytes) -> int:
        """Make `data` the content of a file; links are followed, a file keeps its mode."""
        await self._write(scripts.WRITE, path, bytes(data))
        return len(data)

    async def writetext(
        self,
        path: StrOrKaosPath,
        data: str,
        *,
        mode: Literal["w", "a"] = "w",
        encoding: str = "utf-8",
        errors: Errors = "strict",
    ) -> int:
        """Write or append text; an append is one write, so that concurrent ones all survive."""
        encoded = data.encode(encoding, errors)
        if mode == "w":
            await self._write(scripts.WRITE, path, encoded)
        elif mode == "a":
            mark = len("".encode(encoding))  # a byte order mark belongs to the beginning only
            sizes = (str(len(encoded)), str(mark))
            await self._write(scripts.APPEND, path, encoded, *sizes)
        else:
            msg = f"invalid mode: {mode!r}"
            raise ValueError(msg)
        return len(data)

    async def mkdir(
        self, path: StrOrKaosPath, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a directory."""
        absolute = self._absolute(path)
        flags = (str(int(parents)), str(int(exist_ok)))
        self._changed()
        try:
            await self._script(scripts.MKDIR, path, posixpath.dirname(absolute), *flags)
        finally:
            self._changed()

    async def _write(
        self, script: str, path: StrOrKaosPath, content: bytes, *arguments: str
    ) -> None:
        self._changed()
        try:
            done = await self._script(script, path, scripts.STAT_FORMAT, *arguments, stdin=content)
        finally:
            self._changed()
        scope = self._snapshot()
        if scope is not None and done.stdout:
            target = probe.stat_result(done.stdout.rstrip(b"\n"))
            scope.facts[self._absolute(path)] = Facts(target=target, link=None)

    async def _script(
        self, script: str, path: StrOrKaosPath, *arguments: str, stdin: bytes | None = None
    ) -> Completed:
        argv = scripts.command(script, [self._absolute(path), *arguments])
        done = await self.transport.run(argv, cwd=None, stdin=stdin)
        if done.exit_code:
            raise scripts.error(done.exit_code, _named(path), done.stderr)
        return done

    # -- processes

    async def exec(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,  # noqa: ARG002 - part of the protocol
    ) -> KaosProcess:
        """Start a program in the working directory; `env` is ignored: it is the host's."""
        if not args:
            msg = "At least one argument (the program to execute) is required."
            raise ValueError(msg)
        if any("\0" in argument for argument in args):
            msg = "embedded null byte"
            raise ValueError(msg)
        self._changed()
        if (scope := self._snapshot()) is not None:
            scope.closed = True
        process = await self.transport.start(scripts.program(args), cwd=self._cwd)
        self._processes = {p for p in self._processes if p.returncode is None}
        self._processes.add(process)
        return process

    async def kill_all(self) -> None:
        """Kill every process that was started here and has not ended, with all that it started."""
        running = [p for p in self._processes if p.returncode is None]
        self._processes.clear()
        self._changed()
        await asyncio.gather(*(p.kill() for p in running), return_exceptions=True)

    async def aclose(self) -> None:
        """Kill what still runs; idempotent. The sandbox itself lives on."""
        await self.kill_all()


def _parse(pattern: str, *, case_sensitive: bool = True) -> globs.Pattern:
    return globs.parse(pattern, case_sensitive=case_sensitive)


def _grown(tree: globs.Tree, path: str, depth: int | None, entries: Entries) -> globs.Tree:
    if entries.failure is None or entries.failure.errno == errno.EACCES:
        tree.add(path, depth, entries.kinds())
    else:
        tree.add_missing(path)
    return tree


def _named(path: StrOrKaosPath) -> str:
    """The path as pathlib writes it, and so as it stands in an error."""
    return str(PurePosixPath(str(path)))


def _kaos_path(*parts: str) -> KaosPath:
    from kaos.path import KaosPath

    return KaosPath(str(PurePosixPath(*parts)))
