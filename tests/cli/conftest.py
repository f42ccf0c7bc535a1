"""The command line as a user meets it: real processes in an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
TIMEOUT = 100


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def run_dir(self) -> Path:
        """The one run's directory."""
        (found,) = (self.folder / ".kaos-runner" / "runs").iterdir()
        return found

    @property
    def result(self) -> dict[str, Any]:
        """The run's `result.json`."""
        loaded: dict[str, Any] = json.loads((self.run_dir / "result.json").read_text())
        return loaded

    @property
    def events(self) -> list[dict[str, Any]]:
        """The run's events, without their envelope."""
        lines = (self.run_dir / "events.jsonl").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Runs `kaos-runner` in a folder of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def write(self, name: str, content: str | Mapping[str, Any]) -> Path:
        """Write a file, YAML from a mapping."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text)
        return path

    def recipe(
        self, turns: list[dict[str, Any]] | None = None, name: str = "recipe.yaml", **fields: Any
    ) -> Path:
        """Write a recipe on the local backend, played by a cassette of these turns."""
        document: dict[str, Any] = {
            "version": 1,
            "name": "test",
            "backend": "local",
            "agent": {"model": {"replay": "cassette.yaml"}},
            "prompts": ["Do it."],
        }
        if turns is not None:
            self.write("cassette.yaml", {"cassette": 1, "turns": turns})
        else:
            del document["agent"]
        return self.write(name, {**document, **fields})

    def start(self, *arguments: str | Path, **environ: str) -> subprocess.Popen[str]:
        """Start a command without waiting for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "kaos_runner", *map(str, arguments)],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, **environ: str) -> Done:
        """Run a command to its end."""
        with self.start(*arguments, **environ) as process:
            try:
                out, err = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Done(process.returncode, out, err, self.folder)


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """A command line in an empty folder that is a git work tree of nobody."""
    folder = tmp_path / "desk"
    folder.mkdir()
    return CommandLine(folder)


def says(text: str, **more: Any) -> dict[str, Any]:
    """A turn in which the model only speaks."""
    return {"text": text, **more}


def shell(command: str, **more: Any) -> dict[str, Any]:
    """A turn in which the model runs a command."""
    return {"tools": [{"tool": "shell", "args": {"command": command}, **more}]}
