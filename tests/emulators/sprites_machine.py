"""A sprite's machine: a root of its own and one process namespace, made by bubblewrap.

The namespaces are held by one bubblewrap process; every command enters them with nsenter, so that
commands of one sprite see each other, and ending that one process ends them all.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOME = "/home/sprite"
DEFAULT_ENV = {
    "HOME": HOME,
    "USER": "sprite",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
NEEDED = {"bwrap": "bubblewrap", "nsenter": "util-linux", "setsid": "util-linux"}

_PASSWD = "root:x:0:0:root:/root:/bin/bash\nsprite:x:1000:1000::/home/sprite:/bin/bash\n"
_FROM_HOST = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl", "/etc/mime.types")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_HOLDER = "sleep 2147483647"
_NOT_KEPT = {"usr", "proc", "dev"}


def missing_packages() -> list[str]:
    """The Debian packages that this machine lacks for running emulated sprites."""
    return sorted({package for tool, package in NEEDED.items() if shutil.which(tool) is None})


class Machine:
    """One sprite's file system, and its processes while it is awake."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self._snapshots = directory / "checkpoints"
        self._holder: asyncio.subprocess.Process | None = None
        self._inside = 0
        self.online = True
        self._lay_out()

    def _lay_out(self) -> None:
        for folder in ("home/sprite", "tmp", "var/tmp", "etc", "opt", "run", "root", *_NOT_KEPT):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        (self.root / "etc/passwd").write_text(_PASSWD)
        (self.root / "etc/group").write_text("root:x:0:\nsprite:x:1000:\n")
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        for name in ("bin", "sbin", "lib", "lib64"):
            if (Path("/") / name).is_symlink():
                (self.root / name).symlink_to(f"usr/{name}")

    @property
    def awake(self) -> bool:
        """Whether its processes can run."""
        running = self._holder is not None and self._holder.returncode is None
        return running and self._inside > 0

    def _bubblewrap(self, info: int) -> list[str]:
        command = ["bwrap", "--unshare-user", "--uid", "1000", "--gid", "1000", "--unshare-pid"]
        command += ["--unshare-ipc", "--unshare-uts", "--hostname", "sprite", "--die-with-parent"]
        command += [] if self.online else ["--unshare-net"]
        command += ["--bind", str(self.root), "/", "--ro-bind", "/usr", "/usr", "--proc", "/proc"]
        for name in ("bin", "sbin", "lib", "lib64"):
            folder = Path("/") / name
            if folder.is_dir() and not folder.is_symlink():
                command += ["--ro-bind", str(folder), str(folder)]
        for path in _FROM_HOST:
            command += ["--ro-bind-try", path, path]
        command += ["--tmpfs", "/dev", "--tmpfs", "/dev/shm"]
        for device in _DEVICES:
            command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
            command += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
        return [*command, "--info-fd", str(info), "sh", "-c", f"echo; exec {_HOLDER}"]

    async def start(self) -> None:
        """Bring its namespaces up."""
        reader, writer = os.pipe()
        try:
            self._holder = await asyncio.create_subprocess_exec(
                *self._bubblewrap(writer),
                pass_fds=(writer,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        finally:
            os.close(writer)
        assert self._holder.stdout is not None
        ready = await self._holder.stdout.readline()  # the mounts are done only now
        with os.fdopen(reader, "rb") as pipe:
            info = pipe.read()
        if not ready:
            msg = "bubblewrap did not start; are user namespaces allowed here?"
            raise RuntimeError(msg)
        self._inside = int(json.loads(info)["child-pid"])

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        tty: bool,
        leader: bool,
        **pipes: Any,
    ) -> asyncio.subprocess.Process:
        """Start a command inside; as a `leader` it has a session and a group of its own."""
        enter = ["nsenter", "--target", str(self._inside), "--user", "--preserve-credentials"]
        enter += ["--mount", "--pid", "--ipc", "--uts", *([] if self.online else ["--net"])]
        session = ["setsid", "-c"] if tty else ["setsid"] if leader else []
        return await asyncio.create_subprocess_exec(
            *enter, "--", *session, "env", "-C", cwd, *argv,
            env=dict(env), start_new_session=True, **pipes,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """The command lines of all processes inside, but the two that hold the namespaces."""
        if not self.awake:
            return []
        mine = (Path("/proc") / str(self._inside) / "ns/pid").readlink()
        inside = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [line for entry in inside if (line := _command_line(entry, mine))]

    async def stop(self) -> None:
        """End every process inside."""
        holder, self._holder, self._inside = self._holder, None, 0
        if holder is not None and holder.returncode is None:
            os.killpg(holder.pid, signal.SIGKILL)
            await holder.wait()

    async def save(self, name: str) -> None:
        """Copy the file system to a checkpoint, while processes go on."""
        await _copy(self.root, self._snapshots / name)

    async def restore(self, name: str) -> None:
        """End every process and put a checkpoint's file system in place."""
        await self.stop()
        await _run("rm", "-rf", str(self.root))
        await _copy(self._snapshots / name, self.root)

    def host_path(self, path: str, working_dir: str = "/") -> Path:
        """Where a path lies on the host; symlinks are followed inside the root only."""
        todo = list(PurePosixPath(working_dir, path).parts[1:])
        inside: list[str] = []
        hops = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                inside = inside[:-1]
                continue
            here = self._on_host([*inside, part])
            if here.is_symlink() and (hops := hops + 1) < 40:
                target = PurePosixPath(here.readlink())
                inside = [] if target.is_absolute() else inside
                todo = [p for p in target.parts if p != "/"] + todo
                continue
            inside.append(part)
        return self._on_host(inside)

    def _on_host(self, parts: list[str]) -> Path:
        base = Path("/") if parts and parts[0] in _NOT_KEPT else self.root
        return base.joinpath(*parts)


def _command_line(entry: Path, namespace: Path) -> str:
    """A process' command line, if it lives in this namespace and does not hold it."""
    try:
        if (entry / "ns/pid").readlink() != namespace:
            return ""
        status = (entry / "status").read_text()
        number = status.split("NSpid:", 1)[1].splitlines()[0].split()[-1]
        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    return "" if number == "1" or line.strip() == _HOLDER else line.strip()


async def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    await _run("cp", "-a", "--reflink=auto", "-T", str(source), str(target))


async def _run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    if await process.wait() != 0:
        msg = f"{argv[0]} failed"
        raise RuntimeError(msg)
