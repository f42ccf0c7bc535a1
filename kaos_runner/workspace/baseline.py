"""What the workdir was before the agent began, so that `changed` and `patch` can be told.

Commits count, and so do untracked files that are not ignored. The baseline is kept by the
sandbox's git in a folder of its own (`GitBaseline`); where the sandbox has no git, by checksums,
and patches are made by the host's git (`PlainBaseline`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kaos_runner.workspace.changes import PatchCounter, PatchStat
from kaos_runner.workspace.gitbaseline import GitBaseline
from kaos_runner.workspace.names import below
from kaos_runner.workspace.plainbaseline import PlainBaseline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kaos import Kaos

    from kaos_runner.workspace.manifest import Manifest
    from kaos_runner.workspace.script import Take


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the workdir, later than the baseline."""

    number: int
    manifest: Manifest | None = None


class Keeper(Protocol):
    """One way to keep a baseline."""

    async def mark(self, number: int) -> Manifest | None:
        """Remember the workdir as it is."""
        ...

    async def changed(self, number: int, manifest: Manifest | None) -> list[str]:
        """The names that differ from a mark; 0 is the baseline."""
        ...

    async def patch(self, path: str, take: Take) -> None:
        """Everything below `path` that differs from the baseline, as one patch."""
        ...

    async def remove(self) -> None:
        """Remove what is kept."""
        ...


class Baseline:
    """What the workdir was when `take` was called."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._marks = 0

    @classmethod
    async def take(cls, kaos: Kaos, workdir: str, roots: Sequence[str] = (".",)) -> Baseline:
        """Remember the workdir as it is: one operation with git in the sandbox, else two or three.

        `roots` are the directories for which a patch will be asked. They matter where the sandbox
        has no git: what they hold is then brought to the host now. Empty where none will be asked.

        Raises:
            UsageError: a root is not below the workdir.
            SandboxError: the workdir cannot be read, the sandbox has no room, or a patch is wanted
                and neither the sandbox nor this machine has git.
            SandboxLostError: the sandbox went away.
        """
        wanted = [below(root, "`patch`") for root in roots]
        keeper: Keeper | None = await GitBaseline.take(kaos, workdir)
        if keeper is None:
            keeper = await PlainBaseline.take(kaos, workdir, wanted)
        return cls(keeper)

    @property
    def has_git(self) -> bool:
        """Whether the sandbox's git keeps it."""
        return isinstance(self._keeper, GitBaseline)

    async def mark(self) -> Mark:
        """A moment from which `changed` can count: one operation."""
        self._marks += 1
        return Mark(self._marks, await self._keeper.mark(self._marks))

    async def changed(self, since: Mark | None = None) -> list[str]:
        """The files that were added, altered or deleted since a mark or the baseline.

        One operation. Names are relative to the workdir and sorted; in them, bytes that are not
        UTF-8 are lone surrogates.

        Raises:
            SandboxError: the baseline was destroyed.
            SandboxLostError: the sandbox went away.
        """
        mark = since or Mark(0)
        return await self._keeper.changed(mark.number, mark.manifest)

    async def patch(self, path: str, take: Take) -> PatchStat:
        """Give `take` everything below `path` that changed since the baseline, as one patch.

        One operation with git in the sandbox, else two. `git apply` takes it in a copy of what
        `path` held at the baseline.

        Raises:
            UsageError: `path` is not below the workdir.
            SandboxError: the baseline was destroyed, or there is no git on either side.
            SandboxLostError: the sandbox went away.
        """
        counter = PatchCounter()

        async def counted(chunk: bytes) -> None:
            counter.feed(chunk)
            await take(chunk)

        await self._keeper.patch(below(path, "`patch`"), counted)
        return counter.stat()

    async def remove(self) -> None:
        """Remove what is kept of it in the sandbox and here: one operation at most. Idempotent."""
        await self._keeper.remove()
