"""The root, the processes and the files of one emulated E2B sandbox, seen from outside.

Bubblewrap gives it a user and process namespace and a root of its own, so that `/home/user` is not
the host's. Nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.emulators.e2b_guest_wire import FRAME, Header, Refusal, pack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

HOME = "/home/user"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GUEST = "/opt/emulator"
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "/etc/alternatives",
    "/etc/ssl",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/resolv.conf",
)


def missing_packages() -> list[str]:
    """The Debian packages that this machine lacks for it."""
    return [] if shutil.which("bwrap") else ["bubblewrap"]


class GoneError(Exception):
    """The sandbox ended while it was asked."""


class Box:
    """One sandbox's namespace; made by `start`, ended by `kill`."""

    def __init__(self, name: str, environ: Mapping[str, str], *, network: bool) -> None:
        self.name = name
        self._environ = dict(environ)
        self._network = network
        self.directory = Path(tempfile.mkdtemp(prefix="e2b-"))
        self._popen: subprocess.Popen[bytes] | None = None
        self._links: set[asyncio.StreamWriter] = set()

    @property
    def _socket(self) -> Path:
        return self.directory / "run" / "guest.sock"

    async def start(self) -> None:
        """Bring up the namespace and wait until its inside answers."""
        for name in ("home", "tmp", "run", "etc"):
            (self.directory / name).mkdir()
        (self.directory / "tmp").chmod(0o777)
        (self.directory / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n"
        )
        (self.directory / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
        # Popen in the loop's own thread: --die-with-parent means the thread that forked.
        self._popen = subprocess.Popen(  # noqa: ASYNC220
            self._command(), stdin=subprocess.DEVNULL, start_new_session=True
        )
        while not self._socket.exists():
            if self._popen.poll() is not None:
                msg = f"bubblewrap ended with {self._popen.returncode}"
                raise GoneError(msg)
            await asyncio.sleep(0.005)

    def _command(self) -> list[str]:
        here = self.directory
        words = ["bwrap", "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc"]
        words += ["--unshare-uts", "--hostname", "e2b", "--uid", "1000", "--gid", "1000"]
        words += [] if self._network else ["--unshare-net"]
        words += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
        for directory in map(Path, SYSTEM):
            if directory.is_symlink():
                words += ["--symlink", str(directory.readlink()), str(directory)]
            elif directory.exists():
                words += ["--ro-bind", str(directory), str(directory)]
        for name in ETC:
            words += ["--ro-bind-try", name, name]
        for name in ("passwd", "group"):
            words += ["--ro-bind", str(here / "etc" / name), f"/etc/{name}"]
        words += ["--bind", str(here / "home"), HOME, "--bind", str(here / "tmp"), "/tmp"]
        words += ["--bind", str(here / "run"), "/run/emulator", *self._guest(), "--chdir", GUEST]
        return [*words, *self._variables(), "--", *self._python(), "/run/emulator/guest.sock"]

    def _guest(self) -> list[str]:
        words = ["--ro-bind", str(Path(__file__).parent), f"{GUEST}/tests/emulators"]
        if not sys.base_prefix.startswith("/usr"):
            words += ["--ro-bind", sys.base_prefix, f"{GUEST}/python"]
        return words

    def _python(self) -> list[str]:
        prefix = sys.base_prefix if sys.base_prefix.startswith("/usr") else f"{GUEST}/python"
        python = f"{prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        # A shared libpython is found by its rpath, which names the host's prefix.
        loader = ["env", f"LD_LIBRARY_PATH={prefix}/lib"]
        return [*loader, python, "-B", "-S", "-E", "-m", "tests.emulators.e2b_guest"]

    def _variables(self) -> list[str]:
        base = {"HOME": HOME, "USER": "user", "LOGNAME": "user", "PATH": PATH, "SHELL": "/bin/bash"}
        words = ["--clearenv"]
        for name, value in (base | self._environ).items():
            words += ["--setenv", name, value]
        return words

    async def call(self, header: Header, payload: bytes = b"") -> Header:
        """One operation with one answer."""
        async with contextlib.aclosing(self.stream(header, payload)) as frames:
            async for answer, _ in frames:
                return answer
        raise GoneError(self.name)

    async def stream(
        self, header: Header, payload: bytes = b"", body: AsyncIterator[bytes] | None = None
    ) -> AsyncGenerator[tuple[Header, bytes]]:
        """One operation with the frames that answer it; leaving early drops the connection only.

        Raises:
            Refusal: the inside refuses.
            GoneError: the sandbox was killed meanwhile.
        """
        reader, writer = await self._open()
        try:
            writer.write(pack(header, payload))
            if body is not None:
                async for chunk in body:
                    writer.write(pack({"event": "chunk"}, chunk))
                    await writer.drain()
                writer.write(pack({"event": "done"}))
            while True:
                answer, chunk = await _frame(reader)
                if answer.get("event") == "error":
                    raise Refusal(answer["code"], answer["message"])
                yield answer, chunk
                if answer.get("event") in {"done", "end"}:
                    return
        except (asyncio.IncompleteReadError, OSError) as error:
            raise GoneError(self.name) from error
        finally:
            self._links.discard(writer)
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError as error:
            raise GoneError(self.name) from error
        self._links.add(writer)
        return reader, writer

    def cut(self) -> None:
        """Break every operation that is under way, as a pause does."""
        for writer in list(self._links):
            writer.transport.abort()

    async def kill(self) -> None:
        """End every process, and remove every file."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.kill()
            await asyncio.to_thread(self._popen.wait)
        self.cut()
        await asyncio.to_thread(_remove, self.directory)


async def _frame(reader: asyncio.StreamReader) -> tuple[Header, bytes]:
    head, body = FRAME.unpack(await reader.readexactly(FRAME.size))
    header: Header = json.loads(await reader.readexactly(head))
    return header, await reader.readexactly(body) if body else b""


def _remove(directory: Path) -> None:
    """Remove a tree, whatever modes a test has left in it."""
    for parent, names, _ in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                (Path(parent) / name).chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
