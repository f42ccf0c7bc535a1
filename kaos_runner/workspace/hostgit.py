"""The host's git, in a private repository: no hooks, no prompts, nobody's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from kaos_runner.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tbare = false
\tautocrlf = false
\thooksPath = /dev/null
\tfsmonitor = false
\tquotePath = false
\tcompression = 0
\tfsync = none
\tbigFileThreshold = 32m
\tsymlinks = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[extensions]
"""
"""Of every private repository, on the host and in the sandbox."""
ATTRIBUTES = "* -text -export-ignore -export-subst\n"
"""Line ends are compared and carried as they are."""


def available() -> bool:
    """Whether the host has git."""
    return shutil.which("git") is not None


def environment(**more: str) -> dict[str, str]:
    """The host's variables without git's own, and with nobody's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "HOME": os.devnull,
        "XDG_CONFIG_HOME": os.devnull,
        "LC_ALL": "C",
        **more,
    }


class HostGit:
    """A private repository in `path`; `work_tree` is where its files are."""

    def __init__(self, path: Path, work_tree: Path) -> None:
        self.path = path
        self.work_tree = work_tree

    def create(self, *, alternate: Path | None = None, sha256: bool = False) -> None:
        """Lay out the repository; with `alternate` it also reads that folder of objects."""
        (self.path / "objects" / "info").mkdir(parents=True)
        (self.path / "refs").mkdir()
        (self.path / "info").mkdir()
        self.work_tree.mkdir(parents=True, exist_ok=True)
        (self.path / "HEAD").write_text("ref: refs/heads/none\n")
        config = CONFIG.format(version=int(sha256))
        if sha256:
            config += "\tobjectFormat = sha256\n"
        (self.path / "config").write_text(config)
        (self.path / "info" / "attributes").write_text(ATTRIBUTES)
        if alternate:
            (self.path / "objects" / "info" / "alternates").write_text(f"{alternate}\n")

    async def run(self, *args: str, stdin: bytes = b"") -> bytes:
        """The stdout of one git command.

        Raises:
            SandboxError: it failed.
        """
        env = environment(GIT_DIR=str(self.path), GIT_WORK_TREE=str(self.work_tree))
        code, out, err = await run_git(*args, env=env, cwd=self.work_tree, stdin=stdin)
        if code:
            complaint = " ".join(err.decode("utf-8", "replace").split())
            msg = f"git {args[0]} failed on the host: {complaint}"
            raise SandboxError(msg)
        return out

    @contextlib.asynccontextmanager
    async def reading(self, *args: str) -> AsyncIterator[asyncio.StreamReader]:
        """The stdout of one git command as a stream.

        Raises:
            SandboxError: it failed.
        """
        env = environment(GIT_DIR=str(self.path), GIT_WORK_TREE=str(self.work_tree))
        process = await asyncio.create_subprocess_exec(
            "git",
            *args,
            env=env,
            cwd=self.work_tree,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            yield process.stdout
            if await process.wait():
                msg = f"git {args[0]} failed on the host"
                raise SandboxError(msg)
        finally:
            await _finish(process)


async def run_git(
    *args: str, env: dict[str, str], cwd: Path, stdin: bytes = b""
) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of one git command.

    Raises:
        SandboxError: the host has no git.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            *args,
            env=env,
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        msg = "this machine has no git"
        raise SandboxError(msg, hint="install git here") from error
    try:
        out, err = await process.communicate(stdin)
    finally:
        await _finish(process)
    assert process.returncode is not None
    return process.returncode, out, err


async def _finish(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
