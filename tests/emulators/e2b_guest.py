"""The inside of an emulated E2B sandbox: it answers the emulator over a Unix socket.

It runs under bubblewrap, as the sandbox's user, with nothing but the standard library:

    python -m tests.emulators.e2b_guest /run/emulator/guest.sock
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.emulators import e2b_guest_files as files
from tests.emulators import e2b_guest_wire as codes
from tests.emulators.e2b_guest_process import Process
from tests.emulators.e2b_guest_wire import Header, Refusal, pack, receive

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES: dict[int, Process] = {}


def main(path: str) -> None:
    """Serve one thread per connection until the sandbox is killed."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}.new")
        server.listen(128)
        Path(f"{path}.new").rename(path)  # who sees it can connect
        while True:
            link, _ = server.accept()
            threading.Thread(target=_serve, args=(link,), daemon=True).start()


def _serve(link: socket.socket) -> None:
    with link:
        try:
            header, payload = receive(link)
            _answer(link, header, payload)
        except Refusal as refusal:
            link.sendall(pack({"event": "error", "code": refusal.code, "message": refusal.message}))
        except (OSError, EOFError):
            return


def _answer(link: socket.socket, header: Header, payload: bytes) -> None:
    match header["op"]:
        case "start":
            process = Process(header, link)
            PROCESSES[process.pid] = process
            process.begin()
            process.over.wait()
        case "connect":
            process = _process(header)
            process.subscribe(link)
            process.over.wait()
        case "read":
            _send_file(link, files.resolve(header["path"]))
        case "write":
            found = files.write(files.resolve(header["path"]), _chunks(link))
            link.sendall(pack({"event": "done", "entry": found}))
        case _:
            link.sendall(pack({"event": "done", **_simple(header, payload)}))


def _simple(header: Header, payload: bytes) -> Header:
    match header["op"]:
        case "list":
            running = [p for p in list(PROCESSES.values()) if not p.over.is_set()]
            return {"processes": [{"pid": p.pid, **p.request} for p in running]}
        case "input":
            _process(header).write(payload)
        case "close_stdin":
            _process(header).close()
        case "signal":
            _process(header).signal(header["signal"])
        case "freeze":
            _signal_all(signal.SIGSTOP)
        case "thaw":
            _signal_all(signal.SIGCONT)
        case _:
            return _filesystem(header)
    return {}


def _signal_all(number: int) -> None:
    """Signal every process but this one; none at all is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, number)


def _filesystem(header: Header) -> Header:
    path = files.resolve(header["path"])
    match header["op"]:
        case "stat":
            return {"entry": files.entry(path)}
        case "list_dir":
            return {"entries": files.list_dir(path, header["depth"])}
        case "make_dir":
            return {"entry": files.make_dir(path)}
        case "move":
            return {"entry": files.move(path, files.resolve(header["destination"]))}
        case "remove":
            files.remove(path)
            return {}
    raise Refusal(codes.UNIMPLEMENTED, f"{header['op']} is not emulated")


def _process(header: Header) -> Process:
    for process in list(PROCESSES.values()):
        if header.get("pid", process.pid) == process.pid and _tagged(process, header.get("tag")):
            return process
    raise Refusal(codes.NOT_FOUND, f"process with pid {header.get('pid')} not found")


def _tagged(process: Process, tag: str | None) -> bool:
    return tag is None or process.request["tag"] == tag


def _send_file(link: socket.socket, path: str) -> None:
    size, chunks = files.read(path)
    link.sendall(pack({"event": "size", "size": size}))
    for chunk in chunks:
        link.sendall(pack({"event": "chunk"}, chunk))
    link.sendall(pack({"event": "done"}))


def _chunks(link: socket.socket) -> Iterator[bytes]:
    while True:
        header, payload = receive(link)
        if header["event"] == "done":
            return
        yield payload


if __name__ == "__main__":
    main(sys.argv[1])
