"""The wheel, installed elsewhere, is a working `kaos-runner` with its schemas and recipes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_schemas_and_recipes_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "kaos_runner/_data/schemas/recipe.schema.json" in names
    assert "kaos_runner/_data/recipes/quickstart.yaml" in names
    assert "kaos_runner/_data/recipes/fixtures/quickstart/durations.py" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_the_installed_wheel_runs_in_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside the locked dependencies, away from the checkout."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    # -P and the empty directory keep the checkout out; PYTHONPATH puts the wheel's files first.
    environ = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "kaos_runner", *arguments],
            cwd=empty, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip

    where = subprocess.run(
        [sys.executable, "-P", "-c", "import kaos_runner; print(kaos_runner.__file__)"],
        cwd=empty, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(site)
    recipe = site / "kaos_runner" / "_data" / "recipes" / "quickstart.yaml"

    assert run("--version").stdout.startswith("kaos-runner ")
    assert '"$schema"' in run("schema").stdout
    assert run("validate", str(recipe)).returncode == 0
    ran = run(str(recipe))
    assert ran.returncode == 0, ran.stderr
    assert list(empty.glob(".kaos-runner/runs/*/artifacts/fix.patch"))
