"""A small program that starts processes for the local transport: one in each sandbox.

It stands alone: it is run by file name, isolated from site-packages, as the first process of a
bubblewrap or as a plain child. One socket, whose descriptor is its only argument, carries
requests and replies:

    {"env": {...}}                                  once, first: the environment of all that follow
    {"start": id, "argv": [...], "cwd": path}       with three descriptors, for 0, 1 and 2
    {"kill": id}                                    the process and everything that it started

    {"id": id, "pid": n}   {"id": id, "exit": code}   {"id": id, "killed": true}
    {"id": id, "error": errno, "message": text, "path": path}

A request is four bytes of length and then JSON; a reply is a line of JSON. Each process gets a
keeper, to which the orphans below it return (Linux), so that a daemon cannot leave: whatever was
started is found below its keeper. When the socket is closed, everything is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Spawner:
    """Reads requests, forks keepers, and kills what is below them."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.environ: dict[str, str] = {}
        self.keepers: dict[int, int] = {}
        self.wakeup, wake = os.pipe()
        for end in (self.wakeup, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # not SIG_IGN, which children would inherit

    def serve(self) -> None:
        """Serve until the socket is closed, then kill everything."""
        become_subreaper()
        try:
            while True:
                ready, _, _ = select.select([self.control.fileno(), self.wakeup], [], [])
                if self.wakeup in ready:  # a child has ended
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wakeup, 4096)
                    self.reap()
                if self.control.fileno() in ready:
                    self.handle(*self.request())
        except (EOFError, ConnectionError):
            pass
        finally:
            kill_below(os.getpid())

    def request(self) -> tuple[dict[str, object], list[int]]:
        """The next request, with its descriptors."""
        head, descriptors, _, _ = socket.recv_fds(self.control, 4, 3)
        head += self.exactly(4 - len(head))
        (size,) = struct.unpack("!I", head)
        request: dict[str, object] = json.loads(self.exactly(size))
        return request, descriptors

    def exactly(self, size: int) -> bytes:
        """So many bytes from the socket."""
        chunks = bytearray()
        while len(chunks) < size:
            chunk = self.control.recv(min(size - len(chunks), 1 << 20))
            if not chunk:
                raise EOFError
            chunks += chunk
        return bytes(chunks)

    def handle(self, request: dict[str, object], descriptors: list[int]) -> None:
        """Do what one request asks."""
        if "env" in request:
            self.environ = request["env"]  # type: ignore[assignment]
        elif "start" in request:
            self.start(request, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            self.kill(int(str(request["kill"])))
            self.reply({"id": request["kill"], "killed": True})

    def kill(self, number: int) -> None:
        """Stop a keeper, so that it starts nothing any more, kill all below it, then itself."""
        keeper = self.keepers.pop(number, None)
        if keeper is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGSTOP)
            kill_below(keeper)
            os.kill(keeper, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(keeper, 0)
        self.reply({"id": number, "exit": -signal.SIGKILL})

    def start(self, request: dict[str, object], descriptors: list[int]) -> None:
        """Fork a keeper, which starts the process."""
        number = int(str(request["start"]))
        keeper = os.fork()
        if keeper:
            self.keepers[number] = keeper
            return
        try:
            signal.set_wakeup_fd(-1)
            os.setsid()
            become_subreaper(also_die_with_parent=True)
            self.keep(number, request, descriptors)
        finally:
            os._exit(0)

    def keep(self, number: int, request: dict[str, object], descriptors: list[int]) -> None:
        """Start the process, tell its end, and stay until all that it left behind has ended."""
        try:
            process = subprocess.Popen(
                request["argv"],  # type: ignore[call-overload]
                cwd=request["cwd"],
                env=self.environ,
                stdin=descriptors[0],
                stdout=descriptors[1],
                stderr=descriptors[2],
                start_new_session=True,
            )
        except OSError as error:
            failure = {"error": error.errno, "message": error.strerror, "path": error.filename}
            self.reply({"id": number, **failure})
            return
        except ValueError as error:
            self.reply({"id": number, "error": 22, "message": str(error), "path": None})
            return
        self.reply({"id": number, "pid": process.pid})
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while True:
                ended, status = os.waitpid(-1, 0)
                if ended == process.pid:
                    self.reply({"id": number, "exit": os.waitstatus_to_exitcode(status)})

    def reap(self) -> None:
        """Collect keepers that are done, and speak for those that were killed."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for number in [n for n, keeper in self.keepers.items() if keeper == ended[0]]:
                    del self.keepers[number]
                    if os.waitstatus_to_exitcode(ended[1]) != 0:
                        self.reply({"id": number, "exit": -signal.SIGKILL})

    def reply(self, message: dict[str, object]) -> None:
        """Send one line; it is short, and so never mixed with another's."""
        self.control.sendall(json.dumps(message).encode() + b"\n")


def become_subreaper(*, also_die_with_parent: bool = False) -> None:
    """Let orphans below this process return to it; Linux only."""
    if sys.platform != "linux":
        return
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if also_die_with_parent:
        signal.signal(signal.SIGTERM, lambda *_: kill_and_exit())
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def kill_and_exit() -> None:
    """Take everything below along: the spawner is gone."""
    kill_below(os.getpid())
    os._exit(1)


def kill_below(root: int, seconds: float = 5.0) -> None:
    """Kill everything below a process until nothing is left; another than ourselves has stopped."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        table = process_table()
        below = descendants(root, table)
        settled = root == os.getpid() or table.get(root, (0, "Z"))[1] in "TtZX"
        if settled and not below:
            return
        for process in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if root == os.getpid():
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        time.sleep(0.001)


def descendants(root: int, table: dict[int, tuple[int, str]]) -> list[int]:
    """The processes below one that still run; orphans come back to it, so zombies lead nowhere."""
    children: dict[int, list[int]] = {}
    for process, (parent, state) in table.items():
        if state not in "ZX":
            children.setdefault(parent, []).append(process)
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def process_table() -> dict[int, tuple[int, str]]:
    """Every process with its parent and the letter of its state."""
    if not os.path.isdir("/proc/self"):  # noqa: PTH112 - pathlib is slow to import
        listing = subprocess.run(
            ["/bin/ps", "-axo", "pid=,ppid=,stat="], capture_output=True, check=False
        )
        rows = [line.split() for line in listing.stdout.decode().splitlines()]
        return {int(row[0]): (int(row[1]), row[2][0]) for row in rows}
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is slow to import
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b") ")[2].split()[:2]
                table[int(name)] = (int(parent), state.decode())
    return table


if __name__ == "__main__":
    Spawner(socket.socket(fileno=int(sys.argv[1]))).serve()
