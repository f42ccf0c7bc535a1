"""What a stranger can put into inputs, parameters and the model's mouth gives no orders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.action.conftest import ACTION, Job, says

HOSTILE = [
    "'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned) `touch pwned` ${IFS}",
    "line one\nline two\nother: injected\n--trusted\n",
    "${{ secrets.GITHUB_TOKEN }} {{ params.word }} {% for x in y %}",
    "@/etc/passwd",
    "EOF\nconclusion=success\nEOF",
    "::set-output name=conclusion::success\n::stop-commands::x\n##[add-path]/evil",
    "\\ \t * ? [a-z] ~ ! # & | < >",
]
PARAMETER = "word"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_parameter_stays_one_value(job: Job, text: str) -> None:
    """As JSON, the way `toJSON()` gives it; the prompt holds it verbatim, and nothing ran."""
    job.recipe(
        [says("Done.")],
        params={PARAMETER: {"type": "string"}, "other": {"type": "string", "default": "kept"}},
        prompts=["{{ params.other }} {{ params.word }} the end"],
    )
    ended = job.run(recipe="recipe.yaml", params=json.dumps({PARAMETER: text}))
    assert ended.code == 0, ended.log
    events = (Path(ended.outputs["run-dir"]) / "events.jsonl").read_text().splitlines()
    (turn,) = [
        e for e in (json.loads(line)["event"] for line in events) if e["type"] == "turn_started"
    ]
    assert turn["text"] == f"kept {text} the end"
    assert not list(job.folder.rglob("pwned"))
    assert obeyed(ended.log) <= {"group", "endgroup", "warning"}


@pytest.mark.parametrize("name", ["recipe", "params", "params-file", "backend", "model", "args"])
@pytest.mark.parametrize("text", HOSTILE[:4])
def test_an_input_is_never_shell(job: Job, name: str, text: str) -> None:
    job.recipe([says("Done.")])
    inputs = {"recipe": "recipe.yaml", name: text}
    ended = job.finish(job.start("run", inputs))
    assert not list(job.folder.rglob("pwned"))
    assert ended.outputs["conclusion"] in ("success", "failure")
    assert ended.outputs["exit-code"] == str(ended.code)
    assert ended.code != 70
    assert "Traceback" not in ended.log


def test_a_recipe_is_never_an_option(job: Job) -> None:
    ended = job.run(recipe="--help")
    assert ended.code == 2, ended.log
    assert "--help" in ended.log


@pytest.mark.parametrize("text", HOSTILE)
def test_a_final_message_gives_no_orders(job: Job, text: str) -> None:
    job.recipe([says(text)], prompts=["Say it."])
    ended = job.run(recipe="recipe.yaml")
    assert ended.code == 0, ended.log
    assert obeyed(ended.log) <= {"group", "endgroup", "warning"}
    assert ended.outputs["conclusion"] == "success"
    assert ended.outputs["exit-code"] == "0"
    assert ended.outputs["final-message"].strip() == text.strip()
    assert len(ended.outputs) == 8


def obeyed(log: str) -> set[str]:
    """The commands that the runner takes out of a log."""
    found = set()
    for line in log.splitlines():
        if match := re.match(r"\s*::([^\s:]+).*?::", line):
            found.add(match[1])
        elif "##[" in line:
            found.add(line)
    return found


def test_every_value_goes_through_the_environment() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
    wired = json.dumps(ACTION["runs"])
    assert all(f"inputs.{name}" in wired for name in ACTION["inputs"])
