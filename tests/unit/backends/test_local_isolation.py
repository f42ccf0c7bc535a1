"""Escapes from a local sandbox, each tried from inside of it."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaos_runner.backends.local import LocalBackend
from kaos_runner.testing.case import Ended, ended
from tests.unit.backends.local_requests import (
    labels,
    request,
    requires_bubblewrap,
    temporary_files_in,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from kaos_runner.backends.local_sandbox import LocalSandbox

pytestmark = requires_bubblewrap


@pytest.fixture(autouse=True)
def _own_temporary_files(tmp_path: Path) -> Iterator[None]:
    with temporary_files_in(str(tmp_path)):
        yield


def inside[T](body: Callable[[LocalSandbox], Awaitable[T]], **fields: object) -> T:
    """Do something in an isolated sandbox, which is destroyed afterwards."""

    async def run() -> T:
        made = request(isolation="bubblewrap", **fields)  # type: ignore[arg-type]
        sandbox = await LocalBackend().create(made, labels())
        try:
            return await body(sandbox)
        finally:
            await sandbox.destroy()

    return asyncio.run(run())


def shell(script: str, *arguments: str, **fields: object) -> Ended:
    """Run a script in an isolated sandbox."""

    async def body(sandbox: LocalSandbox) -> Ended:
        process = await sandbox.kaos.exec("/bin/sh", "-c", script, "sh", *arguments)
        return await ended(process)

    return inside(body, **fields)


def test_home_is_empty() -> None:
    assert Path.home().is_dir()
    done = shell('ls -A ~; ls -A "$1/.ssh" "$1/.config" "$1/.bashrc"', str(Path.home()))
    assert done.stdout == b""
    assert done.stderr.count(b"No such file") == 3


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/root/.ssh", "/home", "/var/log", "/opt", "/srv", "/boot", "/sys"]
)
def test_the_rest_of_the_machine_is_not_there(path: str) -> None:
    done = shell('ls -A "$1"', path)
    assert done.stdout.replace(b".pyenv\n", b"").replace(b".local\n", b"") == b""


def test_the_hosts_users_are_not_told() -> None:
    done = shell("cat /etc/passwd; id -un")
    assert len(done.stdout.splitlines()) == 3


def test_the_runners_environment_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "host-canary-8642")
    script = 'cat "/proc/$1/environ" /proc/*/environ /proc/1/environ 2>/dev/null; env; ls /proc'
    done = shell(script, str(os.getpid()))
    assert b"host-canary" not in done.stdout
    assert b"PATH=" in done.stdout
    numbers = [word for word in done.stdout.split() if word.isdigit()]
    assert len(numbers) < 20  # its own processes, not the host's


def test_secrets_are_on_no_command_line() -> None:
    async def body(sandbox: LocalSandbox) -> bytes:
        process = await sandbox.kaos.exec("/bin/sh", "-c", "echo $CANARY; read line")
        assert await process.stdout.readline() == b"secret-canary-9753\n"
        lines = b""
        for entry in Path("/proc").iterdir():  # noqa: ASYNC240 - procfs does not block
            if entry.name.isdigit():
                try:
                    lines += (entry / "cmdline").read_bytes()
                except OSError:
                    continue
        process.stdin.close()
        await process.wait()
        return lines

    found = inside(body, secrets={"CANARY": "secret-canary-9753"})
    assert b"bwrap" in found
    assert b"secret-canary" not in found


@pytest.mark.parametrize(
    "path",
    ["/usr/owned", "/etc/owned", "/owned", "/run/owned", "/dev/owned", "/var/owned", "/bin/owned",
     "/proc/sys/kernel/hostname", "/proc/sys/vm/swappiness", "/etc/passwd"],
)  # fmt: skip
def test_nothing_outside_can_be_written(path: str) -> None:
    async def body(sandbox: LocalSandbox) -> None:
        with pytest.raises(OSError, match=r"."):
            await sandbox.kaos.writebytes(path, b"owned")

    inside(body)
    assert path.startswith("/proc") or path == "/etc/passwd" or not Path(path).exists()


def test_tmp_is_private() -> None:
    mark = Path("/tmp") / f"kaos-escape-{os.getpid()}"
    mark.write_text("host")
    try:
        done = shell('cat "$1"; echo sandbox >"$1"; cat "$1"', str(mark))
        assert done.stdout == b"sandbox\n"
        assert mark.read_text() == "host"
    finally:
        mark.unlink()


def test_symlinks_are_followed_inside_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    secret = outside / "host-secret"
    secret.write_text("host")

    async def body(sandbox: LocalSandbox) -> None:
        kaos = sandbox.kaos
        process = await kaos.exec(
            "/bin/sh", "-c", 'ln -s "$1" file; ln -s / root; ln -s "$2" dir; ln -s /etc/shadow s',
            "sh", str(secret), str(outside),
        )  # fmt: skip
        await ended(process)
        for path in ("file", "dir/host-secret", f"root{secret}", "s"):
            with pytest.raises(FileNotFoundError):
                await kaos.readbytes(path)
            assert [p async for p in kaos.glob(".", f"{path}*/*")] == []
        with pytest.raises(OSError, match=r"."):
            await kaos.writebytes("file", b"owned")
        assert [p.name async for p in kaos.glob("dir", "*") if p.name == "host-secret"] == []

    inside(body)
    assert secret.read_text() == "host"


def test_removal_follows_no_symlinks(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o755)
    (kept / "file").write_text("host")

    async def body(sandbox: LocalSandbox) -> None:
        script = (
            'ln -s "$1" link; mkdir locked; ln -s "$1" locked/link; echo >locked/f; chmod 0 locked'
        )
        process = await sandbox.kaos.exec("/bin/sh", "-c", script, "sh", str(kept))
        assert (await ended(process)).exit_code == 0

    inside(body)
    assert (kept / "file").read_text() == "host"
    assert kept.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


@pytest.mark.parametrize("isolation", ["bubblewrap", "none"])
def test_no_process_outlives_the_sandbox(tmp_path: Path, isolation: str) -> None:
    script = """(setsid sh -c 'while :; do date +%s%N >beat; sleep 0.02; done' >/dev/null 2>&1 &)
    trap '' TERM HUP INT; while ! [ -s beat ]; do sleep 0.01; done"""

    async def run() -> Path:
        made = request(isolation=isolation, workdir=str(tmp_path / "project"))
        sandbox = await LocalBackend().create(made, labels())
        process = await sandbox.kaos.exec("/bin/sh", "-c", script)
        assert await process.wait() == 0
        await sandbox.destroy()
        return tmp_path / "project" / "beat"

    beat = asyncio.run(run())
    before = beat.read_text()
    threading.Event().wait(0.3)
    assert beat.read_text() == before


def test_a_background_server_lives_until_the_next_command() -> None:
    async def body(sandbox: LocalSandbox) -> bytes:
        script = "(while :; do echo beat >beat; sleep 0.02; done) >/dev/null 2>&1 &"
        assert await (await sandbox.kaos.exec("/bin/sh", "-c", script)).wait() == 0
        wait = "rm -f beat; while ! [ -s beat ]; do sleep 0.01; done; cat beat"
        return (await ended(await sandbox.kaos.exec("/bin/sh", "-c", wait))).stdout

    assert inside(body) == b"beat\n"


CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"


@pytest.mark.parametrize(("network", "code"), [("allow", 0), ("deny", 1)])
def test_the_network(network: str, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        script = 'command -v python3 >/dev/null || exit 9; python3 -c "$1" "$2"'
        done = shell(script, CONNECT, port, network=network)
    assert done.exit_code == code, done


def test_no_terminal_can_be_typed_into() -> None:
    """TIOCSTI needs a controlling terminal; the sandbox is in a session without one."""
    leader, follower = os.openpty()
    try:
        done = shell("echo >/dev/tty; ps -o tty= -p $$ 2>/dev/null; exit 0")
    finally:
        os.close(leader)
        os.close(follower)
    assert b"/dev/tty" in done.stderr
    tty = "import fcntl, os, termios; fcntl.ioctl(os.open('/dev/tty', 2), termios.TIOCSTI, b'x')"
    assert shell('python3 -c "$1"', tty).exit_code == 1


def test_there_are_no_capabilities() -> None:
    done = shell("grep ^Cap /proc/self/status; grep NoNewPrivs /proc/self/status")
    *sets, privileges = done.stdout.decode().split("\n")[:-1]
    assert {line.split()[1] for line in sets} == {"0000000000000000"}
    assert privileges.split()[1] == "1"
    assert shell("mount -t tmpfs none /tmp").exit_code != 0
    assert shell("chroot / true").exit_code != 0


def test_no_descriptor_of_the_runner_is_open() -> None:
    with tempfile.TemporaryFile() as secret:
        os.set_inheritable(secret.fileno(), True)
        done = shell("ls -l /proc/self/fd | wc -l; ls /proc/1/fd")
    assert int(done.stdout.split()[0]) <= 5  # total, 0, 1, 2, and the directory itself


def test_the_first_process_cannot_be_killed() -> None:
    async def body(sandbox: LocalSandbox) -> bytes:
        process = await sandbox.kaos.exec("/bin/sh", "-c", "kill -9 -1; kill -9 1")
        await process.wait()
        return (await ended(await sandbox.kaos.exec("echo", "lives"))).stdout

    assert inside(body) == b"lives\n"
