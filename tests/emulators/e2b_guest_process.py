"""Processes inside an emulated E2B sandbox, with the semantics of the real envd.

Threads and blocking writes give its back-pressure: a subscriber that does not read stops the
process that writes. A process outlives its subscribers; what it writes without any is dropped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.emulators import e2b_guest_wire as codes
from tests.emulators.e2b_guest_files import resolve
from tests.emulators.e2b_guest_wire import CHUNK, Header, Refusal, pack

if TYPE_CHECKING:
    import socket

# How long the output of a killed process is still read when a child of it holds the pipes open.
LINGER = 0.2


class Process:
    """One process with its pipes, its subscribers and, once it is over, its end."""

    def __init__(self, request: Header, link: socket.socket) -> None:
        self.request = request
        self.over = threading.Event()
        self._links = [link]
        self._end: Header | None = None
        self._lock = threading.Lock()
        self._popen = _spawn(request)
        self.pid = self._popen.pid
        self._pumps = [
            threading.Thread(target=self._pump, args=("stdout", self._popen.stdout), daemon=True),
            threading.Thread(target=self._pump, args=("stderr", self._popen.stderr), daemon=True),
        ]

    def begin(self) -> None:
        """Tell of the start, and then of what happens."""
        self._publish({"event": "start", "pid": self.pid})
        for thread in (*self._pumps, threading.Thread(target=self._reap, daemon=True)):
            thread.start()

    def subscribe(self, link: socket.socket) -> None:
        """Add a subscriber, which first hears of the start; also after the end."""
        with self._lock:
            link.sendall(pack({"event": "start", "pid": self.pid}))
            self._links.append(link)
            if self._end is not None:
                link.sendall(pack(self._end))

    def write(self, chunk: bytes) -> None:
        """Write to stdin; blocks while the pipe is full."""
        if self._popen.stdin is None or self._popen.stdin.closed:
            raise Refusal(codes.FAILED_PRECONDITION, "stdin is not enabled or is closed")
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._popen.stdin.fileno(), rest) :]
        except OSError as error:
            raise Refusal(codes.INTERNAL, f"error writing to stdin: {error.strerror}") from error

    def close(self) -> None:
        """Close stdin: a real EOF."""
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()

    def signal(self, number: int) -> None:
        """Signal the leader, and nothing else."""
        if self._end is not None:
            raise Refusal(codes.NOT_FOUND, f"process with pid {self.pid} not found")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _publish(self, header: Header, payload: bytes = b"") -> None:
        frame = pack(header, payload)
        for link in list(self._links):
            try:
                link.sendall(frame)
            except OSError:
                self._links.remove(link)

    def _pump(self, name: str, pipe: IO[bytes]) -> None:
        while chunk := os.read(pipe.fileno(), CHUNK):
            with self._lock:
                if self._end is None:
                    self._publish({"event": name}, chunk)

    def _reap(self) -> None:
        code = self._popen.wait()
        for pump in self._pumps:  # whoever holds the pipes keeps the stream open, as with Go's Wait
            pump.join(timeout=None if code >= 0 else LINGER)
        with self._lock:
            self._end = _end(code)
            self._publish(self._end)
        self.over.set()


def _spawn(request: Header) -> subprocess.Popen[bytes]:
    cwd = resolve(request["cwd"])
    if not Path(cwd).is_dir():
        raise Refusal(codes.INVALID_ARGUMENT, f"cwd '{cwd}' does not exist")
    try:
        return subprocess.Popen(
            request["argv"],
            env=_environ() | request["env"],
            cwd=cwd,
            stdin=subprocess.PIPE if request["stdin"] else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
    except OSError as error:
        message = f"error starting process: {error.strerror}"
        raise Refusal(codes.INVALID_ARGUMENT, message) from error


def _environ() -> dict[str, str]:
    """The sandbox's variables, without what the interpreter of this module needed."""
    return {k: v for k, v in os.environ.items() if k not in {"LC_CTYPE", "LD_LIBRARY_PATH"}}


def _end(code: int) -> Header:
    """The end in Go's words: a signal gives -1."""
    if code < 0:
        word = f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
        return {"event": "end", "exit_code": -1, "exited": False, "status": word, "error": word}
    status = f"exit status {code}"
    error = status if code else None
    return {"event": "end", "exit_code": code, "exited": True, "status": status, "error": error}
