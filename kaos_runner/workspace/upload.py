"""`files`: trees of the host on their way into a sandbox."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from kaos_runner.errors import Problem, SandboxError, UsageError
from kaos_runner.recipe.model import GitFile, PathFile
from kaos_runner.workspace import bundle
from kaos_runner.workspace.archive import script_pieces, tar_pieces
from kaos_runner.workspace.names import below, joined, shown
from kaos_runner.workspace.script import run_script, threaded
from kaos_runner.workspace.tree import Entry, Refused, listed, single

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from kaos import Kaos

    from kaos_runner.workspace.bundle import Source
    from kaos_runner.workspace.hostgit import HostGit

    type Resolve = Callable[[str], Path]
    type Notify = Callable[[str, str], None]

MAX_BYTES = 2**30
"""What all `files` together may weigh, unless the caller says otherwise."""

NO_GIT, NO_TAR, OCCUPIED = 96, 97, 95
_UNPACK = f"""
command -v tar >/dev/null 2>&1 || exit {NO_TAR}
mkdir -p -- "$1" && cd -- "$1" && exec tar -xopf -
"""
_UNPACK_WITHOUT_TAR = """
mkdir -p -- "$1" && cd -- "$1" && exec /bin/sh -s
"""
# Explicit GIT_DIR and GIT_WORK_TREE: git then does not ask who owns the folder.
_CLONE = f"""
command -v git >/dev/null 2>&1 || exit {NO_GIT}
unset GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG_PARAMETERS
mkdir -p -- "$1" && cd -- "$1" || exit 1
if [ -e .git ]; then exit {OCCUPIED}; fi
export GIT_DIR="$PWD/.git" GIT_WORK_TREE="$PWD" GIT_TERMINAL_PROMPT=0 LC_ALL=C
export GIT_LFS_SKIP_SMUDGE=1
git init -q --template= $4 . || exit 1
trap 'rm -f .git/incoming .git/FETCH_HEAD' EXIT
cat >.git/incoming || exit 1
[ -z "$5" ] || printf '%s' "$5" >.git/shallow
git fetch -q --no-tags .git/incoming {bundle.REF} || exit 1
if [ -n "$3" ]; then set -- -b "$3" "$2"; else set -- --detach "$2"; fi
git -c core.hooksPath=/dev/null -c advice.detachedHead=false checkout -q "$@"
"""


@dataclass(slots=True)
class Upload:
    """One run's way of `files` into a sandbox."""

    kaos: Kaos
    workdir: str
    find: Resolve
    notify: Notify
    progress: Callable[[int], None]
    left: int
    """Bytes that may still be sent."""
    limit: int
    _sent: int = field(default=0)

    async def paths(self, files: Sequence[PathFile]) -> None:
        """Send files and directories as one archive: one operation, two where tar is missing."""
        entries = collected(files, self.find, lambda text: self.notify("warning", text))
        await self.entries(entries)

    async def entries(self, entries: Sequence[Entry]) -> None:
        """Send a list of entries; a later one replaces an earlier one of its name."""
        self._charge(sum(entry.size for entry in entries))
        unique = list({entry.name: entry for entry in entries}.values())
        if not unique:
            return
        ended = await run_script(
            self.kaos, _UNPACK, self.workdir, stdin=self._sending(tar_pieces(unique))
        )
        if ended.exit_code == NO_TAR:
            ended = await run_script(
                self.kaos,
                _UNPACK_WITHOUT_TAR,
                self.workdir,
                stdin=self._sending(script_pieces(unique)),
            )
        if ended.exit_code:
            msg = f"the files could not be unpacked in the sandbox: {ended.complaint}"
            raise SandboxError(msg, hint="end a `to` that names a directory with a slash")

    async def repository(self, file: GitFile) -> None:
        """Send a work tree as a bundle: one operation, two where the sandbox has no git."""
        to = below(file.to, "`to`")
        source = await bundle.located(self.find(file.git), file.ref)
        async with bundle.opened(source) as git:
            for note in await bundle.left_behind(git, source):
                self.notify("warning", f"{shown(file.git)}: {note}")
            if await self._cloned(git, source, to):
                return
            self.notify(
                "warning",
                f"the sandbox has no git: {shown(file.git)} comes as plain files, without history",
            )
            tree = await bundle.checked_out(git, source)
            await self.entries(listed(tree, to, lambda _name: None))

    async def _cloned(self, git: HostGit, source: Source, to: str) -> bool:
        """Clone in the sandbox; False where it has no git."""
        archive = await bundle.bundled(git, source)
        size = archive.stat().st_size
        self._charge(size)
        shape = "--object-format=sha256" if source.sha256 else ""
        place = posixpath.join(self.workdir, to)
        # The file is on its way already when the sandbox says that it has no git.
        entry = Entry("bundle", "file", archive, 0o600, size)
        ended = await run_script(
            self.kaos, _CLONE, place, source.commit, source.branch, shape, source.shallow.decode(),
            stdin=self._sending(_file_pieces(entry)),
        )  # fmt: skip
        if ended.exit_code == OCCUPIED:
            msg = f"`to: {shown(to)}` is a git repository already in the sandbox"
            raise SandboxError(
                msg, hint="choose another `to`, or remove it in an image of your own"
            )
        if ended.exit_code not in (0, NO_GIT):
            msg = f"the repository could not be cloned in the sandbox: {ended.complaint}"
            raise SandboxError(msg)
        if ended.exit_code == NO_GIT:
            self.left += size
        return ended.exit_code == 0

    def _charge(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            msg = f"`files` weigh more than {self.limit // 2**20} MiB"
            hint = "leave large trees out, or fetch them in `setup`"
            raise SandboxError(msg, hint=hint)

    async def _sending(self, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in threaded(pieces):
            yield piece
            self._sent += len(piece)
            self.progress(self._sent)


async def upload(
    kaos: Kaos,
    files: Sequence[PathFile | GitFile],
    *,
    recipe_dir: Path,
    workdir: str,
    resolve: Resolve | None = None,
    notify: Notify = lambda _level, _message: None,
    progress: Callable[[int], None] = lambda _sent: None,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Bring a recipe's `files` into the workdir, in their order.

    One operation for each run of neighbouring paths, one for each repository; one more each where
    the sandbox lacks tar or git. `notify` takes a level and a message; `progress` the number of
    bytes sent so far.

    Raises:
        UsageError: a source is missing or may not be taken; `to` leaves the workdir.
        SandboxError: the sandbox cannot take it, or it exceeds `max_bytes`.
        SandboxLostError: the sandbox went away.
    """
    way = Upload(
        kaos, workdir, resolve or (lambda name: recipe_dir / name), notify, progress,
        left=max_bytes, limit=max_bytes,
    )  # fmt: skip
    for is_git, neighbours in groupby(files, key=lambda file: isinstance(file, GitFile)):
        if is_git:
            for file in neighbours:
                assert isinstance(file, GitFile)
                await way.repository(file)
        else:
            await way.paths([file for file in neighbours if isinstance(file, PathFile)])


async def upload_problems(
    files: Sequence[PathFile | GitFile], *, recipe_dir: Path, resolve: Resolve | None = None
) -> list[Problem]:
    """What would make `upload` fail for the host's sake, found before there is a sandbox."""
    find = resolve or (lambda name: recipe_dir / name)
    problems = []
    for index, file in enumerate(files):
        try:
            if isinstance(file, GitFile):
                below(file.to, "`to`")
                await bundle.located(find(file.git), file.ref)
            else:
                collected([file], find, lambda _text: None)
        except UsageError as error:
            path = f"files[{index}]"
            problems.append(Problem(message=error.message, hint=error.hint, path=path))
    return problems


def collected(files: Iterable[PathFile], find: Resolve, warn: Callable[[str], None]) -> list[Entry]:
    """The entries of all `files`, in their order.

    Raises:
        UsageError: a source is missing, unreadable, or holds what may not be taken.
    """
    entries: list[Entry] = []
    for file in files:
        try:
            entries += _of(file, find(file.from_), entries, warn)
        except Refused as error:
            msg = f"`from: {shown(file.from_)}` cannot be taken: {error}"
            raise UsageError(msg, hint="only what lies in the tree itself goes along") from error
        except FileNotFoundError as error:
            msg = f"`from: {shown(file.from_)}` does not exist"
            raise UsageError(msg, hint="it is relative to the recipe") from error
        except OSError as error:
            msg = f"`from: {shown(file.from_)}` cannot be read: {error.strerror}"
            raise UsageError(msg) from error
    return entries


def _of(
    file: PathFile, source: Path, earlier: list[Entry], warn: Callable[[str], None]
) -> list[Entry]:
    to = below(file.to, "`to`")
    if source.is_dir():
        return listed(
            source,
            to,
            lambda name: warn(
                f"{shown(file.from_)}: {shown(name)} was left out; "
                "`git:` brings a repository, without its credentials"
            ),
        )
    directory = to == "." or file.to.endswith(("/", "/."))
    directory = directory or any(e.name == to and e.kind == "directory" for e in earlier)
    return [single(source, joined(to, source.name) if directory else to)]


def _file_pieces(entry: Entry) -> Iterator[bytes]:
    with entry.source.open("rb") as file:
        while piece := file.read(256 * 1024):
            yield piece
