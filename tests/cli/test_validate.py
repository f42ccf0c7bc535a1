"""`validate` and `schema` as processes: start-up, outputs, backends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kaos_runner.cli import run_command_line

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "tests" / "recipes"
HEAVY = (
    "kimi_agent_sdk", "kimi_cli", "kosong", "kaos", "e2b", "sprites", "boxlite", "aiohttp",
    "fastmcp", "pydantic", "rich", "asyncio",
)  # fmt: skip


def _run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaos_runner", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "recipe", ["recipes/quickstart.yaml", "tests/recipes/valid/extending.yaml"]
)
def test_validate_imports_nothing_heavy(recipe: str) -> None:
    program = (
        "import sys\n"
        "from kaos_runner.cli import run_command_line\n"
        f"code = run_command_line(['validate', {recipe!r}])\n"
        f"print(code, sorted(set({HEAVY!r}) & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{recipe}: ok\n0 []\n"


def test_every_committed_recipe_is_valid() -> None:
    recipes = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "recipes").glob("*.y*ml"))
    done = _run("validate", "--strict", *recipes)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_json_carries_the_same_facts() -> None:
    done = _run("validate", "misspelt_key.yaml", "--output", "json", cwd=RECIPES / "invalid")
    assert done.returncode == 2
    assert json.loads(done.stdout) == {
        "recipes": [
            {
                "file": "misspelt_key.yaml",
                "valid": False,
                "problems": [
                    {
                        "message": "unknown key `promts`",
                        "file": "misspelt_key.yaml",
                        "line": 4,
                        "column": 1,
                        "path": "promts",
                        "hint": "did you mean `prompts`?",
                        "severity": "error",
                    }
                ],
            }
        ]
    }


def test_github_annotations_carry_the_same_facts() -> None:
    done = _run("validate", "misspelt_key.yaml", "--output", "github", cwd=RECIPES / "invalid")
    assert done.stdout == (
        "::error file=misspelt_key.yaml,line=4,col=1,endColumn=7::"
        "unknown key `promts`%0Ahint: did you mean `prompts`?\n"
    )


def test_directory_is_an_error_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["validate", str(tmp_path)]) == 2
    assert "hint: name a file in it, such as `DIR/*.yaml`" in capsys.readouterr().out


def test_missing_file_and_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["validate", "no_such.yaml"]) == 2
    assert "no_such.yaml: error: the file does not exist" in capsys.readouterr().out
    assert run_command_line(["validate"]) == 2


def test_good_and_bad_recipes_together(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = RECIPES / "valid" / "minimal.yaml", RECIPES / "invalid" / "misspelt_key.yaml"
    assert run_command_line(["validate", str(good), str(bad)]) == 2
    told = capsys.readouterr().out
    assert f"{good}: ok\n" in told
    assert told.endswith("1 error in 2 recipes\n")
    assert run_command_line(["validate", "-q", str(good)]) == 0
    assert capsys.readouterr().out == ""


def test_untrusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("version: 1\nname: r\nbackend: local\nsecrets: [MY_TOKEN]\nprompts: [x]\n")
    assert run_command_line(["validate", str(recipe)]) == 0
    assert run_command_line(["validate", "--untrusted", str(recipe)]) == 2
    assert "an untrusted recipe may not use `secrets`" in capsys.readouterr().out


NETWORK = """\
version: 1
name: network
backend: e2b
image: base
network: {default: deny, allow: [pypi.org]}
prompts: [Do it.]
checks: [{file: x}]
"""


def _backends(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> dict[str, Any]:
    recipe = tmp_path / "network.yaml"
    recipe.write_text(NETWORK)
    capsys.readouterr()
    run_command_line(["validate", "--output", "json", "--backend", name, str(recipe)])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)["recipes"][0]
    return told


def test_all_backends_say_what_they_make_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _backends(tmp_path, capsys, "all")["backends"]
    assert list(found) == ["boxlite", "e2b", "local", "sprites"]
    local = {row["field"]: row for row in found["local"]["fields"]}
    assert local["network.allow"]["support"] == "refuses"
    assert local["network.allow"]["reason"]
    assert local["checks"]["support"] == "honours"
    assert local["image"]["support"] == "refuses"
    assert found["local"]["runs"] is False
    assert found["e2b"]["runs"] is True


def test_one_backend_takes_the_recipe_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _backends(tmp_path, capsys, "local")
    assert told["dropped"] == ["image: it belongs to e2b"]
    assert list(told["backends"]) == ["local"]
    assert [problem["path"] for problem in told["problems"]] == ["network.allow"]
    assert told["valid"] is False


def test_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "network.yaml"
    recipe.write_text(NETWORK)
    assert run_command_line(["validate", "--backend", "all", str(recipe)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["BACKEND", "FIELD", "SUPPORT", "REASON"]
    assert any(line.split()[:2] == ["network.allow", "refuses"] for line in lines)
    assert any(line.split() == ["e2b", "can", "run", "it"] for line in lines)


def test_unknown_backend(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(RECIPES / "valid" / "minimal.yaml")
    assert run_command_line(["validate", "--backend", "lcoal", recipe]) == 2
    told = capsys.readouterr().out
    assert "unknown backend `lcoal`" in told
    assert "did you mean `local`?" in told


def test_hostile_names_do_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "a\x1b[31mb\n.yaml"
    recipe.write_text("version: 2\nname: x\nbackend: local\nprompts: [x]\n")
    assert run_command_line(["validate", str(recipe)]) == 2
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["recipe", "event", "result"])
def test_schema_prints_the_committed_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["schema", kind]) == 0
    committed = (ROOT / "schemas" / f"{kind}.schema.json").read_text(encoding="utf-8")
    assert capsys.readouterr().out == committed


def test_schema_of_nothing_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["schema", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
