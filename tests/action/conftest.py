"""Runs the steps of `action.yml` as GitHub's runner does, as far as bash and files go."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def step(key: str) -> dict[str, Any]:
    """The step with this id or name."""
    (found,) = [s for s in ACTION["runs"]["steps"] if key in (s.get("id"), s.get("name"))]
    return dict(found)


def evaluate(text: str, contexts: dict[str, str]) -> str:
    """The text with its plain expressions replaced; an unknown one is an error."""
    return EXPRESSION.sub(lambda match: contexts[match[1]], text)


def read_outputs(file: Path) -> dict[str, str]:
    """What a step wrote to `GITHUB_OUTPUT`, by the rules of the runner's file commands."""
    lines = file.read_text().splitlines() if file.exists() else []
    found, position = {}, 0
    while position < len(lines):
        equals, heredoc = lines[position].find("="), lines[position].find("<<")
        if heredoc == -1 or -1 < equals < heredoc:
            name, _, value = lines[position].partition("=")
            found[name] = value
            position += 1
            continue
        name, _, delimiter = lines[position].partition("<<")
        end = lines.index(delimiter, position + 1)
        found[name] = "\n".join(lines[position + 1 : end])
        position = end + 1
    return found


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job with a workspace, in which steps of the action run."""

    folder: Path
    action: Path = ROOT
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        """The checkout."""
        return self.folder / "workspace"

    def write(self, name: str, content: str | dict[str, Any]) -> Path:
        """Write a file of the workspace, YAML from a mapping."""
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text)
        return path

    def recipe(self, turns: list[dict[str, Any]], **fields: Any) -> None:
        """Write `recipe.yaml` on the local backend, played by a cassette of these turns."""
        self.write("cassette.yaml", {"cassette": 1, "turns": turns})
        document: dict[str, Any] = {
            "version": 1,
            "name": "test",
            "backend": "local",
            "agent": {"model": {"replay": "cassette.yaml"}},
            "prompts": ["Do it."],
        }
        self.write("recipe.yaml", {**document, **fields})

    def start(self, key: str, inputs: dict[str, str], **contexts: str) -> subprocess.Popen[str]:
        """Start a step, its inputs and contexts given as the runner would."""
        found = step(key)
        assert "${{" not in found["run"], "a value is spliced into a shell line"
        defaults = {n: str(i.get("default", "")) for n, i in ACTION["inputs"].items()}
        known = {f"inputs.{n}": v for n, v in {**defaults, **inputs}.items()} | contexts
        script = self.folder / "step.sh"
        script.write_text(found["run"])
        environ = {
            **os.environ,
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.folder / "temp"),
            "RUNNER_OS": "Linux",
            "RUNNER_ARCH": "X64",
            "GITHUB_OUTPUT": str(self.folder / "output"),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "GITHUB_ENV": str(self.folder / "env"),
            "GITHUB_PATH": str(self.folder / "path"),
            **{name: evaluate(value, known) for name, value in found.get("env", {}).items()},
            **self.environ,
        }
        for name in ("output", "summary", "env", "path"):
            (self.folder / name).write_text("")
        where = self.workspace / evaluate(found.get("working-directory", "."), known)
        assert found["shell"] == "bash"
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=where,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = 110) -> Ended:
        """Wait for a step, and read what it left."""
        with process:
            try:
                log, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert (self.folder / "env").read_text() == "", "a step must not change the job's variables"
        assert (self.folder / "path").read_text() == ""
        outputs = read_outputs(self.folder / "output")
        return Ended(process.returncode, log, outputs, (self.folder / "summary").read_text())

    def run(self, key: str = "run", contexts: dict[str, str] | None = None, **inputs: str) -> Ended:
        """Run a step to its end; inputs are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in inputs.items()}
        return self.finish(self.start(key, named, **(contexts or {})))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job with an empty workspace."""
    made = Job(tmp_path)
    made.workspace.mkdir()
    (tmp_path / "temp").mkdir()
    return made


REFUSING = """
from typing import ClassVar, Literal
from kaos_runner.backends.local import LocalBackend, LocalConfig
from kaos_runner.errors import SandboxError
from kaos_runner.recipe.model import BackendConfig

class RefusingConfig(LocalConfig):
    type: Literal["refusing"] = "refusing"

class RefusingBackend(LocalBackend):
    name: ClassVar[str] = "refusing"
    config: ClassVar[type[BackendConfig]] = RefusingConfig

    async def create(self, request, labels):
        sandbox = await super().create(request, labels)
        destroy = sandbox.destroy
        async def refuse():
            await destroy()
            raise SandboxError("the provider refuses")
        sandbox.destroy = refuse
        return sandbox
"""


@pytest.fixture
def refusing_backend(job: Job) -> str:
    """The name of an installed backend whose sandboxes cannot be deleted."""
    site = job.folder / "site"
    info = site / "refusing-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "refusing_backend.py").write_text(REFUSING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: refusing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[kaos_runner.backends]\nrefusing = refusing_backend:RefusingBackend\n"
    )
    job.environ["PYTHONPATH"] = str(site)
    return "refusing"


def says(text: str, **more: Any) -> dict[str, Any]:
    """A turn in which the model only speaks."""
    return {"text": text, **more}


def shell(command: str) -> dict[str, Any]:
    """A turn in which the model runs a command."""
    return {"tools": [{"tool": "shell", "args": {"command": command}}]}
