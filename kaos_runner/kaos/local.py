"""The transport to a sandbox on this machine: a spawner inside of it starts the processes.

The spawner lives as long as the sandbox, and so does what a command leaves in the background: a
server that one tool call starts (`server >log 2>&1 &`) answers the next one, also within
bubblewrap, since both are in the same namespaces. It ends when the sandbox is detached from.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kaos_runner.errors import SandboxLostError
from kaos_runner.kaos.posix import Completed
from kaos_runner.kaos.streams import ByteReader, ByteWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kaos import AsyncReadable, AsyncWritable, KaosProcess

SPAWNER = Path(__file__).with_name("spawner.py")
CHUNK = 256 * 1024
GRACE = 10.0
"""Seconds for the spawner to kill what is below it."""


class LocalProcess:
    """A process in the sandbox, as pykaos' `KaosProcess`."""

    def __init__(self, transport: LocalTransport, number: int, output: Sequence[int]) -> None:
        self._transport, self._number = transport, number
        self._pid = 0
        self._returncode: int | None = None
        self._ended = asyncio.Event()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer = ByteWriter(_discard, _nothing)
        self._outputs = [_Output(descriptor) for descriptor in output]
        self.stdin: AsyncWritable = self._writer
        self.stdout: AsyncReadable = self._outputs[0].reader
        self.stderr: AsyncReadable = self._outputs[1].reader

    @property
    def pid(self) -> int:
        """The process id, as the sandbox counts."""
        return self._pid

    @property
    def returncode(self) -> int | None:
        """The exit code, -N after signal N; None while it runs."""
        return self._returncode

    async def wait(self) -> int:
        """Wait until it has ended; what it left in the background may run on."""
        await self._ended.wait()
        assert self._returncode is not None  # set before the event
        return self._returncode

    async def kill(self) -> None:
        """Kill it and everything that it started, wherever that went; idempotent."""
        await self._transport.kill(self._number)
        await self._ended.wait()
        for output in self._outputs:
            output.close()

    # -- the transport's side

    @property
    def done(self) -> bool:
        """Whether it has ended and nobody holds its streams open."""
        return self._returncode is not None and all(o.closed for o in self._outputs)

    def attach_input(self, descriptor: int) -> None:
        """Send what is written to a pipe."""
        pipe = _Input(descriptor)
        self.stdin = self._writer = ByteWriter(pipe.send, pipe.close)

    def learn(self, reply: Mapping[str, Any]) -> None:
        """Take in a reply of the spawner."""
        if "exit" in reply and self._returncode is None:
            self._returncode = int(reply["exit"])
            self._ended.set()
        if "pid" in reply:
            self._pid = int(reply["pid"])
        if not self.started.done() and ("pid" in reply or "exit" in reply):
            self.started.set_result(None)
        if "error" in reply and not self.started.done():
            error = OSError(reply["error"], reply["message"], reply["path"])
            self.fail(error)

    def fail(self, error: OSError) -> None:
        """It could not be started, or the sandbox is gone."""
        if not self.started.done():
            self.started.set_exception(error)
            self.started.exception()  # it may have no reader any more
        if self._returncode is None:
            self._returncode = -9
        self._ended.set()
        self._writer.abort()
        for output in self._outputs:
            output.close()


class LocalTransport:
    """Runs commands through the spawner of one sandbox."""

    def __init__(
        self, server: asyncio.subprocess.Process, control: socket.socket, said: IO[bytes],
        on_lost: Callable[[SandboxLostError], None],
    ) -> None:  # fmt: skip
        self._server, self._control, self._on_lost = server, control, on_lost
        self._said = said
        self._numbers = itertools.count(1)
        self._processes: dict[int, LocalProcess] = {}
        self._kills: dict[int, list[asyncio.Future[None]]] = {}
        self._sending = asyncio.Lock()
        self._closing = False
        self._lost = False
        self._ending: asyncio.Task[str] | None = None
        self._sends: set[asyncio.Task[None]] = set()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    @classmethod
    async def open(
        cls,
        wrapper: Sequence[str],
        environ: Mapping[str, str],
        *,
        on_lost: Callable[[SandboxLostError], None] = lambda _error: None,
    ) -> LocalTransport:
        """Start the spawner, behind the argv `wrapper`, and hand it the environment.

        The environment goes through the socket, so that no process list shows it.

        Raises:
            OSError: it did not come up; the message says why.
        """
        opening = asyncio.get_running_loop().create_task(cls._spawn(wrapper, on_lost))
        try:
            transport = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A bubblewrap that is killed while it sets up can leave a child that waits for ever.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await opening.result()._end()
            raise
        try:
            await transport._send({"env": dict(environ)})
            await transport.run(["/bin/sh", "-c", ":"], cwd="/")
        except BaseException as error:
            reason = await transport._end()
            if isinstance(error, ConnectionError):
                raise OSError(reason or str(error)) from None
            raise
        return transport

    @classmethod
    async def _spawn(
        cls, wrapper: Sequence[str], on_lost: Callable[[SandboxLostError], None]
    ) -> LocalTransport:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            said = undo.enter_context(tempfile.TemporaryFile())
            server = await asyncio.create_subprocess_exec(
                *wrapper, *spawner_command(), str(theirs.fileno()),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                env={}, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
            undo.pop_all()
        return cls(server, ours, said, on_lost)

    async def run(
        self, argv: Sequence[str], *, cwd: str | None, stdin: bytes | None = None
    ) -> Completed:
        """Run one command to its end; see `Transport`."""
        process = await self._start(argv, cwd or "/", piped=stdin is not None)
        try:
            if stdin:
                process.stdin.write(stdin)
            process.stdin.close()
            stdout, stderr = await asyncio.gather(process.stdout.read(), process.stderr.read())
            code = await process.wait()
        except BaseException:
            await asyncio.shield(process.kill())
            raise
        if self._lost:
            raise ConnectionError(_GONE)
        return Completed(code, stdout, stderr)

    async def start(self, argv: Sequence[str], *, cwd: str) -> KaosProcess:
        """Start a command; see `Transport`.

        Raises:
            OSError: it cannot be executed, such as FileNotFoundError.
        """
        return await self._start(argv, cwd, piped=True)

    async def _start(self, argv: Sequence[str], cwd: str, *, piped: bool) -> LocalProcess:
        self._check()
        number = next(self._numbers)
        into, feed = os.pipe() if piped else (os.open(os.devnull, os.O_RDONLY), -1)
        (out, stdout), (err, stderr) = os.pipe(), os.pipe()
        process = LocalProcess(self, number, [out, err])
        if piped:
            process.attach_input(feed)
        self._processes = {n: p for n, p in self._processes.items() if not p.done}
        self._processes[number] = process
        request = {"start": number, "argv": list(argv), "cwd": cwd}
        try:
            await self._send(request, [into, stdout, stderr])
            await process.started
        except asyncio.CancelledError:
            await asyncio.shield(process.kill())
            raise
        except OSError as error:
            self._processes.pop(number, None)
            process.fail(error)
            raise
        return process

    async def kill(self, number: int) -> None:
        """Kill a process and everything below its keeper."""
        if self._lost or self._closing:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kills.setdefault(number, []).append(done)
        await self._send({"kill": number})
        await done

    async def aclose(self) -> None:
        """Kill everything in the sandbox and end the spawner; idempotent."""
        await self._end()

    async def _end(self) -> str:
        """End the spawner, once and even if a caller is cancelled; what it said on stderr."""
        self._closing = True
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end_once())
        return await asyncio.shield(self._ending)

    async def _end_once(self) -> str:
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        try:
            await asyncio.wait_for(self._server.wait(), GRACE)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._server.kill()
        await asyncio.wait([self._listener, self._watcher])
        self._control.close()
        with self._said as file:
            file.seek(0)
            said = file.read()
        return said.decode("utf-8", "replace").strip()

    def _check(self) -> None:
        if self._lost or self._closing:
            raise ConnectionError(_GONE)

    async def _send(self, request: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """Send a request whole, even if the caller is cancelled meanwhile."""
        task = asyncio.get_running_loop().create_task(self._send_whole(request, descriptors))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        await asyncio.shield(task)

    async def _send_whole(self, request: Mapping[str, object], descriptors: Sequence[int]) -> None:
        body = json.dumps(request).encode()
        loop = asyncio.get_running_loop()
        try:
            async with self._sending:
                self._check()
                head = struct.pack("!I", len(body))
                while True:
                    try:
                        socket.send_fds(self._control, [head], descriptors)
                        break
                    except BlockingIOError:
                        await asyncio.sleep(0.001)
                await loop.sock_sendall(self._control, body)
        except (BrokenPipeError, ConnectionError):
            raise ConnectionError(_GONE) from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _watch(self) -> None:
        """Notice the spawner's end even where a process that it left holds the socket."""
        await self._server.wait()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RD)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        rest = b""
        try:
            while chunk := await loop.sock_recv(self._control, 65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._learn(json.loads(line))
        except OSError:
            pass  # the same as its end
        finally:
            self._gone()

    def _learn(self, reply: Mapping[str, Any]) -> None:
        number = int(reply["id"])
        if "killed" in reply:
            for done in self._kills.pop(number, []):
                if not done.done():
                    done.set_result(None)
        elif (process := self._processes.get(number)) is not None:
            process.learn(reply)

    def _gone(self) -> None:
        self._lost = True
        for process in self._processes.values():
            process.fail(ConnectionError(_GONE))
        for done in itertools.chain.from_iterable(self._kills.values()):
            if not done.done():
                done.set_result(None)
        if not self._closing:
            self._on_lost(SandboxLostError(_GONE))


_GONE = "the local sandbox is gone: its first process has ended"


def spawner_command() -> list[str]:
    """The argv of the spawner without its last argument."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", str(SPAWNER)]


class _Output:
    """Reads a pipe into a `ByteReader` as fast as that is read."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self.reader = ByteReader(pause=self._pause, resume=self._resume)
        self._resume()

    @property
    def closed(self) -> bool:
        """Whether the stream has ended."""
        return self._descriptor < 0

    def _pause(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)

    def _resume(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        try:
            chunk = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if chunk:
            self.reader.feed_data(chunk)
        else:
            self.close()

    def close(self) -> None:
        """Take what is there, and end the stream; idempotent."""
        if self._descriptor < 0:
            return
        self._pause()
        with contextlib.suppress(OSError):
            while chunk := os.read(self._descriptor, CHUNK):
                self.reader.feed_data(chunk)
        os.close(self._descriptor)
        self._descriptor = -1
        self.reader.feed_eof()


class _Input:
    """Writes to a pipe as fast as it is read."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Write everything."""
        rest = memoryview(data)
        while rest and self._descriptor >= 0:
            try:
                rest = rest[os.write(self._descriptor, rest[:CHUNK]) :]
            except BlockingIOError:
                await self._room()
            except OSError:
                await self.close()
                raise

    async def _room(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_writer(self._descriptor)

    async def close(self) -> None:
        """Give the reader its EOF; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def _discard(_data: bytes) -> None:
    """A process without a pipe reads nothing."""


async def _nothing() -> None:
    """There is nothing to close."""
