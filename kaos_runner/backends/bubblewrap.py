"""Isolation by bubblewrap: what the sandbox sees of the machine, and whether it works here."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USERNS_SWITCHES = (
    Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    Path("/proc/sys/kernel/unprivileged_userns_clone"),
    Path("/proc/sys/user/max_user_namespaces"),
)
INSTALL = "install bubblewrap (Debian, Ubuntu: sudo apt-get install -y bubblewrap)"
ONLY_LINUX = "bubblewrap needs Linux; on macOS nothing isolates a local sandbox"
PROBE_SECONDS = 10

_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "hosts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "magic", "mime.types",
    "nsswitch.conf", "os-release", "protocols", "resolv.conf", "services", "ssl/certs",
    "ssl/openssl.cnf", "terminfo", "timezone", "pki/tls/certs", "pki/ca-trust/extracted",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a sandbox may write to, and whether it has the host's network."""

    workdir: Path
    home: Path
    tmp: Path
    etc: Path
    """A directory with the sandbox's own `passwd` and `group`."""
    network: bool


def wrapper(view: View, *, bwrap: str = "bwrap") -> list[str]:
    """The argv that puts a command into the sandbox, as its first process."""
    argv = [bwrap, *_namespaces(network=view.network)]
    argv += ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        argv += _system_directory(Path("/", name))
    argv += [word for name in _ETC for word in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")]
    for name in ("passwd", "group"):
        argv += ["--ro-bind", str(view.etc / name), f"/etc/{name}"]
    # Root may write to /proc/sys without any capability, and so to kernel.core_pattern.
    argv += [
        "--proc",
        "/proc",
        "--remount-ro",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
    ]
    argv += ["--dir", "/run", "--bind", str(view.tmp), "/tmp", "--symlink", "/tmp", "/var/tmp"]
    argv += list(_interpreter())
    for path in (view.home, view.workdir):
        argv += ["--bind", str(path), str(path)]
    return [*argv, "--remount-ro", "/", "--chdir", str(view.workdir), "--"]


def identity(home: Path) -> dict[str, str]:
    """The content of the sandbox's `/etc/passwd` and `/etc/group`: its user, and nobody else."""
    uid, gid = os.getuid(), os.getgid()
    name = "root" if uid == 0 else "user"
    group = "root" if gid == 0 else "user"
    return {
        "passwd": f"{name}:x:{uid}:{gid}::{home}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        "group": f"{group}:x:{gid}:\nnogroup:x:65534:\n",
    }


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether bubblewrap works on this machine; if not, why, and what to do."""

    works: bool
    reason: str
    hint: str | None = None


async def examine() -> Finding:
    """Run bubblewrap once, with the namespaces that a sandbox uses."""
    if sys.platform != "linux":
        return Finding(False, ONLY_LINUX)
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return Finding(False, "bubblewrap is not installed", INSTALL)
    everything = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    argv = [bwrap, *_namespaces(network=False), *everything, "--", "/bin/sh", "-c", ":"]
    failure = await _try(argv)
    if failure is None:
        return Finding(True, bwrap)
    reason, hint = explain(failure, {str(p): _value(p) for p in USERNS_SWITCHES})
    return Finding(False, reason, hint)


def explain(failure: str, switches: dict[str, str | None]) -> tuple[str, str | None]:
    """Why bubblewrap failed, from its message and the kernel's switches, and what to do."""
    apparmor, clone, most = (switches.get(str(path)) for path in USERNS_SWITCHES)
    if most == "0":
        return (
            "user namespaces are switched off (user.max_user_namespaces is 0)",
            "sudo sysctl -w user.max_user_namespaces=10000",
        )
    if clone == "0":
        return (
            "user namespaces are for root only (kernel.unprivileged_userns_clone is 0)",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if apparmor == "1":
        return (
            "AppArmor keeps bubblewrap from using user namespaces, as Ubuntu does since 24.04",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, "
            "or install an AppArmor profile for bwrap that has `userns`",
        )
    hint = None
    if "not permitted" in failure or "denied" in failure:
        hint = (
            "in a container, allow user namespaces and a new /proc (Docker: --security-opt "
            "seccomp=unconfined --security-opt systempaths=unconfined), or run outside of it"
        )
    return f"bubblewrap does not work here: {failure}", hint


def _namespaces(*, network: bool) -> list[str]:
    argv = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    argv += ["--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL"]
    argv += ["--new-session", "--die-with-parent", "--as-pid-1", "--clearenv"]
    return argv if network else [*argv, "--unshare-net"]


def _system_directory(path: Path) -> list[str]:
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind-try", str(path), str(path)]


def _interpreter() -> Iterator[str]:
    """The running Python's own files, for the spawner, where /usr does not have them."""
    import sysconfig

    from kaos_runner.kaos.local import SPAWNER

    program = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    shared = sorted(library.parent.glob("libpython*.so*"))
    for path in (program, library, *shared):
        if not path.is_relative_to("/usr"):
            yield from ("--ro-bind", str(path), str(path))
    packages = library / "site-packages"
    if packages.is_dir() and not packages.is_relative_to("/usr"):
        yield from ("--tmpfs", str(packages), "--remount-ro", str(packages))
    yield from ("--ro-bind", str(SPAWNER), str(SPAWNER))


async def _try(argv: Sequence[str]) -> str | None:
    """What a command says when it fails; None when it does not.

    It runs to its end even if the caller is cancelled: a bubblewrap that is killed while it sets
    up can leave a child behind that waits for ever.
    """
    task = asyncio.get_running_loop().create_task(_outcome(argv))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _outcome(argv: Sequence[str]) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={}
    )
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return "it does not come up"
    if process.returncode == 0:
        return None
    return said.decode("utf-8", "replace").strip() or f"exit code {process.returncode}"


def _value(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
