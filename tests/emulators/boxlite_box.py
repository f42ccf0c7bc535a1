"""A box of the BoxLite emulator: a root of its own, real processes in it, by bubblewrap."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Userland = Literal["gnu", "busybox"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A shell as process 1 collects orphans and survives `kill -9 -1`, as the init of a micro-VM does.
# When its child is stopped, nsenter stops itself, and continues both: it gets one that never is.
SHIM = 'setsid "$@"; exit $?'
INIT = "while :; do sleep 3600 & wait $!; done"


@functools.cache
def _applets() -> tuple[str, ...]:
    listing = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True)
    return tuple(listing.stdout.split())


def _lay_out_gnu(root: Path) -> None:
    (root / "usr").mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")


def _lay_out_busybox(root: Path) -> None:
    (root / "bin").mkdir()
    shutil.copy2(shutil.which("busybox") or "busybox", root / "bin/busybox")
    for name in _applets():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "usr").mkdir()
    (root / "usr/bin").symlink_to("../bin")
    (root / "sbin").symlink_to("bin")


def lay_out_root(root: Path, userland: Userland) -> None:
    """Make the file tree of a new box; of the host, only /usr is mounted into it, later."""
    root.mkdir(parents=True)
    for name in ("dev", "etc", "home", "proc", "root", "tmp", "var"):
        (root / name).mkdir()
    (root / "root").chmod(0o700)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    if userland == "busybox":
        _lay_out_busybox(root)
    else:
        _lay_out_gnu(root)


@dataclass(slots=True)
class Box:
    """One emulated box. `spec` is the request that made it."""

    id: str
    name: str | None
    spec: dict[str, object]
    directory: Path
    userland: Userland
    status: str = "configured"
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    init: asyncio.subprocess.Process | None = None
    inner_pid: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    metrics: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Where the box's file tree lies on the host."""
        return self.directory / "root"

    @property
    def env(self) -> dict[str, str]:
        """The image's variables under those of the request."""
        wanted = self.spec.get("env")
        given = {str(k): str(v) for k, v in wanted.items()} if isinstance(wanted, dict) else {}
        return {"PATH": PATH, "HOME": "/root", **given}

    def _set_status(self, status: str) -> None:
        self.status = status
        self.updated_at = datetime.now(UTC)

    def _mounts(self) -> list[str]:
        mounts = ["--bind", str(self.root), "/", "--proc", "/proc", "--dev", "/dev"]
        if self.userland == "gnu":
            mounts += ["--ro-bind", "/usr", "/usr"]
            for path in ("/etc/alternatives", "/etc/ld.so.cache"):
                mounts += ["--ro-bind-try", path, path]
        return mounts

    def _networkless(self) -> bool:
        network = self.spec.get("network")
        return isinstance(network, dict) and (
            network.get("mode") == "disabled" or bool(network.get("allow_net"))
        )

    async def start(self) -> None:
        """Bring up process 1 of the box; no effect on a running one."""
        async with self.changing:
            if self.status != "running":
                await self._boot()

    async def _boot(self) -> None:
        if not self.root.exists():
            await asyncio.to_thread(lay_out_root, self.root, self.userland)
        read_end, write_end = os.pipe()
        argv = ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid"]
        argv += ["--unshare-ipc", "--unshare-uts", "--die-with-parent", *self._mounts()]
        argv += ["--unshare-net"] * self._networkless()
        argv += ["--info-fd", str(write_end), "--as-pid-1", "/bin/sh", "-c", INIT]
        try:
            self.init = await asyncio.create_subprocess_exec(
                *argv, stdin=subprocess.DEVNULL, env={"PATH": PATH}, pass_fds=[write_end]
            )
        finally:
            os.close(write_end)
            with os.fdopen(read_end, "rb") as reader:
                info = await asyncio.to_thread(reader.read)
        self.inner_pid = int(json.loads(info)["child-pid"])
        await self._entered()
        self._set_status("running")

    async def _entered(self) -> None:
        """Wait until process 1 runs: namespaces can be joined before the mounts are in place."""
        while _command(self.inner_pid) not in {"sh", "busybox"}:  # noqa: ASYNC110  # no events
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """End every process of the box; its files stay."""
        async with self.changing:
            if self.init is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.inner_pid, signal.SIGKILL)
                await self.init.wait()
                self.init = None
            self._set_status("stopped")

    async def remove(self) -> None:
        """End the processes and delete the files."""
        await self.stop()
        await asyncio.to_thread(_delete_tree, self.directory)

    def _enter(self, cwd: str) -> list[str]:
        namespaces = ["-U", "--preserve-credentials", "-m", "-p", "-i", "-u"]
        namespaces += ["-n"] * self._networkless()
        return ["/usr/bin/nsenter", "-t", str(self.inner_pid), *namespaces, f"--wdns={cwd}"]

    async def spawn(
        self, argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Start a process in the box, in a session of its own, with pipes."""
        where = cwd or str(self.spec.get("working_dir") or "/")
        return await asyncio.create_subprocess_exec(
            *self._enter(where),
            *("sh", "-c", SHIM, "sh"),
            *argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.env, **env},
            start_new_session=True,
        )


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _delete_tree(directory: Path) -> None:
    for path, names, _files in directory.walk(top_down=True):
        for name in names:
            with contextlib.suppress(OSError):
                child = path / name
                if not child.is_symlink():
                    child.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)


def missing_packages(userland: Userland) -> list[str]:
    """The Debian packages that the emulator needs and does not find."""
    wanted = {"bwrap": "bubblewrap"}
    if userland == "busybox":
        wanted["busybox"] = "busybox-static"
    return [package for program, package in wanted.items() if shutil.which(program) is None]
