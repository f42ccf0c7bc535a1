"""A baseline that the sandbox's git keeps, apart from the repositories the agent works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError
from kaos_runner.workspace import gitscripts as scripts
from kaos_runner.workspace.names import decoded, joined
from kaos_runner.workspace.script import agreed, fields, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos import Kaos

    from kaos_runner.workspace.manifest import Manifest
    from kaos_runner.workspace.script import Ended, Take


@dataclass(slots=True)
class GitBaseline:
    """Where the baseline is: its store is a folder in the sandbox, outside the workdir."""

    kaos: Kaos
    top: str
    git: str
    """The sandbox's git as it was at the beginning: a later one in PATH is not asked."""
    store: str

    @classmethod
    async def take(cls, kaos: Kaos, workdir: str) -> GitBaseline | None:
        """Take it: one operation. None where the sandbox has no git."""
        ended = await run_script(kaos, scripts.TAKE, workdir, *scripts.CONFIG_ARGS)
        if ended.exit_code == scripts.NO_GIT:
            return None
        _must(ended, "taken")
        with agreed():
            top, git, store = fields(ended.stdout)
        return cls(kaos, decoded(top), decoded(git), decoded(store))

    async def mark(self, number: int) -> Manifest | None:
        """Remember the workdir as mark `number`: one operation."""
        await self._again(scripts.MARK, str(number))
        return None

    async def changed(self, number: int, manifest: Manifest | None) -> list[str]:  # noqa: ARG002
        """The names that differ from mark `number`: one operation."""
        ended = await self._again(scripts.CHANGED, str(number))
        with agreed():
            return sorted(_names(fields(ended.stdout)))

    async def patch(self, path: str, take: Take) -> None:
        """The patch of a directory: one operation."""
        wanted = "." if path == "." else f"./{path}"
        await self._again(scripts.PATCH, "0", wanted, take=take)

    async def remove(self) -> None:
        """Remove the store: one operation, once."""
        if self.store:
            await run_script(self.kaos, scripts.REMOVE, self.store)
            self.store = ""

    async def _again(self, script: str, *args: str, take: Take | None = None) -> Ended:
        ended = await run_script(
            self.kaos, script, self.top, self.git, self.store, *args, take=take
        )
        _must(ended, "compared with")
        return ended


def _must(ended: Ended, verb: str) -> None:
    if ended.exit_code == 0:
        return
    if ended.exit_code == scripts.LOST:
        msg = f"the baseline in the sandbox was destroyed: {ended.complaint}"
        hint = "something in the run removed it from the temporary directory"
        raise SandboxError(msg, hint=hint)
    if ended.exit_code == scripts.NO_ROOM:
        msg = f"the sandbox has no room for the baseline: {ended.complaint}"
        raise SandboxError(
            msg, hint="it needs a writable /tmp, /var/tmp or HOME outside the workdir"
        )
    if ended.exit_code == scripts.GONE:
        msg = "the workdir is not there any more"
        raise SandboxError(msg)
    msg = f"the baseline could not be {verb}: {ended.complaint}"
    raise SandboxError(msg)


def _names(pieces: Iterator[bytes]) -> Iterator[str]:
    """Each root with its names, and an empty name at its end."""
    for root in pieces:
        for name in pieces:
            if not name:
                break
            yield joined(decoded(root), decoded(name))
