"""`doctor`: what is there, by name and never by value; and a third party's backend everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaos_runner.cli import run_command_line

ROOT = Path(__file__).parents[2]
MINIMAL = ROOT / "tests" / "recipes" / "valid" / "minimal.yaml"


def test_machine_model_and_every_backend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KIMI_API_KEY", "E2B_API_KEY", "SPRITE_TOKEN", "BOXLITE_API_KEY"):
        monkeypatch.setenv(name, f"hunter2-{name}")
    assert run_command_line(["doctor", "--output", "json"]) == 0
    told = capsys.readouterr().out
    assert "hunter2" not in told
    found = json.loads(told)
    assert list(found) == [
        "machine", "model", "backend boxlite", "backend e2b", "backend local", "backend sprites",
    ]  # fmt: skip
    machine = {each["subject"]: each for each in found["machine"]}
    assert machine["python"]["ok"] is True
    assert machine["kimi-agent-sdk"]["ok"] is True
    model = {each["subject"]: each for each in found["model"]}
    assert model["KIMI_API_KEY"]["detail"] == "set"


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["doctor"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("machine\n  ok       python ")
    assert "KIMI_API_KEY     not set" in told


def test_recipe_asks_its_own_backend_only(capsys: pytest.CaptureFixture[str]) -> None:
    run_command_line(["doctor", str(MINIMAL), "--output", "json"])
    assert "backend sprites" not in json.loads(capsys.readouterr().out)
    assert run_command_line(["doctor", str(MINIMAL), "--backend", "sprites"]) == 3
    assert "SPRITE_TOKEN is not set" in capsys.readouterr().out


def test_faulty_recipe_and_unknown_backend(capsys: pytest.CaptureFixture[str]) -> None:
    faulty = ROOT / "tests" / "recipes" / "invalid" / "misspelt_key.yaml"
    assert run_command_line(["doctor", str(faulty)]) == 2
    assert run_command_line(["doctor", "--backend", "spritse"]) == 2
    assert "did you mean `sprites`?" in capsys.readouterr().err


THIRD_PARTY = '''
from typing import Literal

from kaos_runner.backends.base import Defaults, Diagnosis, Feature
from kaos_runner.recipe.model import BackendConfig, Size


class CloudConfig(BackendConfig):
    """A sandbox in somebody's cloud."""

    type: Literal["cloud"] = "cloud"
    memory: Size | None = None
    """How much of it."""


class CloudBackend:
    name = "cloud"
    config = CloudConfig
    defaults = Defaults(workdir="/work", image="any", has_image=True)
    features = {"network.deny": Feature("refuses", "the cloud is open")}
    environ = ("CLOUD_TOKEN",)

    async def diagnose(self, environ, *, online):
        return [Diagnosis(subject="cloud token", ok=False, detail="CLOUD_TOKEN is not set")]
'''
ENTRY_POINTS = (
    "[kaos_runner.backends]\ncloud = cloud_backend:CloudBackend\nbroken = no_such:Thing\n"
)


@pytest.fixture
def third_party(tmp_path: Path) -> Path:
    """A package with an entry point of its own, as pip would have installed it."""
    site = tmp_path / "site"
    info = site / "cloud_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "cloud_backend.py").write_text(THIRD_PARTY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cloud-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


def _run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaos_runner", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


RECIPE = """\
version: 1
name: third
backend: {type: cloud, memory: %s}
image: mine
network: {deny: [x.example]}
prompts: [Do it.]
"""


def test_third_party_backend_is_in_schema_doctor_and_validate(
    third_party: Path, tmp_path: Path
) -> None:
    schema = json.loads(_run(third_party, "schema").stdout)
    assert schema["$defs"]["backend_cloud"]["properties"]["memory"]["description"]
    assert "cloud" in schema["properties"]["backend"]["anyOf"][0]["enum"]

    doctor = _run(third_party, "doctor", "--backend", "cloud")
    assert doctor.returncode == 3
    assert "CLOUD_TOKEN is not set" in doctor.stdout
    broken = _run(third_party, "doctor", "--backend", "broken")
    assert broken.returncode == 3
    assert "cannot be loaded: ModuleNotFoundError" in broken.stdout

    recipe = tmp_path / "third.yaml"
    recipe.write_text(RECIPE % "2")
    done = _run(third_party, "validate", str(recipe))
    assert done.returncode == 2
    assert "`2` has no unit" in done.stdout
    assert "the backend `cloud` cannot do this: the cloud is open" in done.stdout
    recipe.write_text((RECIPE % "2GiB").replace("network: {deny: [x.example]}\n", ""))
    done = _run(third_party, "validate", "--backend", "all", str(recipe), "--output", "json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["recipes"][0]["backends"]["cloud"]["runs"] is True
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text("version: 1\nname: x\nbackend: clod\nprompts: [x]\n")
    assert "did you mean `cloud`?" in _run(third_party, "validate", str(misspelt)).stdout
    rendered = _run(third_party, "render", str(recipe))
    assert rendered.returncode == 0, rendered.stderr
    assert "memory: 2GiB" in rendered.stdout
