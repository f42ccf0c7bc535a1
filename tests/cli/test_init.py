"""`init`: the starter recipe, and the schema that it points to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kaos_runner.cli import run_command_line
from kaos_runner.recipe.load import load
from kaos_runner.recipe.render import RunContext

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_starter_is_valid_and_points_to_its_schema(tmp_path: Path) -> None:
    folder = tmp_path / "my project"
    assert run_command_line(["init", str(folder)]) == 0
    recipe = folder / "recipe.yaml"
    first = recipe.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=recipe.schema.json"
    assert json.loads((folder / "recipe.schema.json").read_text())["title"] == "kaos-runner recipe"
    loaded = load(recipe)
    assert loaded.problems == ()
    assert loaded.name == "my-project"
    assert loaded.render(run=RunContext.now("r")).recipe.backend.type == "local"


def test_what_stands_in_comments_is_valid_too(tmp_path: Path) -> None:
    assert run_command_line(["init", str(tmp_path)]) == 0
    (tmp_path / "fixtures" / "data").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    recipe = tmp_path / "recipe.yaml"
    lines = recipe.read_text().splitlines()
    body = next(i for i, line in enumerate(lines) if line.startswith("version:"))
    # A commented line of YAML has a key or a list item; a sentence begins with a capital letter.
    opened = [_opened(line) for line in lines[body:]]
    recipe.write_text("\n".join(opened).replace("backend: local", "backend: e2b") + "\n")
    assert [str(problem) for problem in load(recipe).problems] == []


def _opened(line: str) -> str:
    stripped = line.lstrip()
    indent = line[: len(line) - len(stripped)]
    commented = stripped.startswith("# ") and not stripped[2].isupper()
    return indent + stripped[2:] if commented else line


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("mine\n")
    assert run_command_line(["init", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "recipe.yaml").read_text() == "mine\n"
    assert not (tmp_path / "recipe.schema.json").exists()
    assert run_command_line(["init", str(tmp_path), "--force"]) == 0
    assert load(tmp_path / "recipe.yaml").problems == ()


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run_command_line(["init", str(tmp_path / "file" / "sub")]) == 2
    assert "error: cannot write" in capsys.readouterr().err
