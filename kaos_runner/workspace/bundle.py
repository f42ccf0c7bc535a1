"""A work tree of the host as one bundle: its commits, and nothing else of its repository.

Whatever the user's repository configures (hooks, filters, credentials, remotes) plays no part: a
private repository reads its objects and makes the bundle.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.errors import UsageError
from kaos_runner.workspace import hostgit
from kaos_runner.workspace.hostgit import HostGit, environment, run_git
from kaos_runner.workspace.names import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REF = "refs/heads/kaos-runner"
"""The name under which the commit stands in the bundle."""


@dataclass(frozen=True, slots=True)
class Source:
    """A commit of a host's repository, found."""

    top: Path
    """The work tree's top folder."""
    git_dir: Path
    commit: str
    branch: str
    """The branch that is checked out in the sandbox; empty for none (a detached HEAD)."""
    objects: Path
    shallow: bytes
    """The commits at which a shallow history ends, a line each; empty where it is complete."""
    sha256: bool


async def located(tree: Path, ref: str) -> Source:
    """The commit that `ref` names in the work tree that holds `tree`.

    Raises:
        UsageError: there is no work tree, or no such commit.
    """
    top = _top(tree)
    if top is None:
        msg = f"{shown(str(tree))} is not in a git work tree"
        raise UsageError(msg, hint="bring plain files with `from:` instead of `git:`")
    if not hostgit.available():
        msg = "`git:` needs git on this machine"
        raise UsageError(msg, hint="install git here, or bring the files with `from:`")
    asked = _Asked(top)
    commit = await asked(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"
    )
    if not commit:
        msg = f"{shown(ref)} names no commit in {shown(str(top))}"
        hint = "commit something first" if ref == "HEAD" else "fetch it first, or check its name"
        raise UsageError(msg, hint=hint)
    common = top / (await asked("rev-parse", "--git-common-dir"))
    full = await asked("rev-parse", "--symbolic-full-name", "--verify", "--quiet", ref)
    shallow = common / "shallow"
    return Source(
        top=top,
        git_dir=top / ".git",
        commit=commit,
        branch=full.removeprefix("refs/heads/") if full.startswith("refs/heads/") else "",
        objects=(common / "objects").resolve(),
        shallow=shallow.read_bytes() if shallow.is_file() else b"",
        sha256=await asked("rev-parse", "--show-object-format") == "sha256",
    )


def _top(tree: Path) -> Path | None:
    tree = tree.resolve()
    return next((d for d in (tree, *tree.parents) if (d / ".git").exists()), None)


class _Asked:
    """Questions to the user's repository; only `rev-parse`, which runs nothing of it."""

    def __init__(self, top: Path) -> None:
        self._top = top

    async def __call__(self, *args: str) -> str:
        env = environment(GIT_DIR=str(self._top / ".git"), GIT_WORK_TREE=str(self._top))
        code, out, _ = await run_git(*args, env=env, cwd=self._top)
        return "" if code else out.decode("utf-8", "surrogateescape").strip()


@asynccontextmanager
async def opened(source: Source) -> AsyncIterator[HostGit]:
    """A private repository that reads the source's objects; gone at the end."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="kaos-runner-git-"))
    git = HostGit(folder / "git", folder / "tree")
    try:
        git.create(alternate=source.objects, sha256=source.sha256)
        if source.shallow:
            (git.path / "shallow").write_bytes(source.shallow)
        yield git
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def bundled(git: HostGit, source: Source) -> Path:
    """The file of a bundle that holds the commit with its history.

    Raises:
        SandboxError: git cannot make it, as where objects of a partial clone are not here.
    """
    await git.run("update-ref", REF, source.commit)
    target = git.path / "bundle"
    await git.run("bundle", "create", "--quiet", str(target), REF)
    return target


async def checked_out(git: HostGit, source: Source) -> Path:
    """A folder with the commit's files, and no repository."""
    await git.run("read-tree", "--reset", "-u", source.commit)
    return git.work_tree


async def left_behind(git: HostGit, source: Source) -> list[str]:
    """What the commit mentions but does not hold: submodules, and the contents of LFS files."""
    notes = []
    listing = await git.run("ls-tree", "-r", "-z", source.commit)
    modules = [line.split(b"\t", 1)[1] for line in listing.split(b"\0") if line[:6] == b"160000"]
    if modules:
        names = ", ".join(shown(m.decode("utf-8", "surrogateescape")) for m in modules[:5])
        notes.append(f"submodules are not brought along: {names}")
    if await _has_lfs(git, listing):
        notes.append("files kept by Git LFS come as pointers, without their contents")
    return notes


async def _has_lfs(git: HostGit, listing: bytes) -> bool:
    attributes = [
        line.split(b"\t", 1)[0].split()[2]
        for line in listing.split(b"\0")
        if line.endswith((b"\t.gitattributes", b"/.gitattributes")) and line[:6] != b"120000"
    ]
    for blob in attributes[:100]:
        if b"filter=lfs" in await git.run("cat-file", "blob", blob.decode()):
            return True
    return False
