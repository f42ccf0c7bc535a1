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


def test_a_parameter_stays_one_value(job: Job) -> None:
    """As JSON, the way `toJSON()` gives it; the prompt holds it verbatim, and nothing ran."""
    params = {f"p{number}": text for number, text in enumerate(HOSTILE)}
    job.recipe(
        [says("Done.") for _ in params],
        params={name: {"type": "string"} for name in params}
        | {"other": {"type": "string", "default": "kept"}},
        prompts=[f"{{{{ params.other }}}} {{{{ params.{name} }}}} the end" for name in params],
    )
    ended = job.run(recipe="recipe.yaml", params=json.dumps(params))
    assert ended.code == 0, ended.log
    lines = (Path(ended.outputs["run-dir"]) / "events.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    given = [event["text"] for event in events if event["type"] == "turn_started"]
    assert given == [f"kept {text} the end" for text in HOSTILE]
    assert not list(job.folder.rglob("pwned"))
    assert obeyed(ended.log) <= {"group", "endgroup", "warning"}


@pytest.mark.parametrize("name", ["recipe", "params", "params-file", "backend", "model", "args"])
def test_an_input_is_never_shell(job: Job, name: str) -> None:
    job.recipe([says("Done.")])
    inputs = {"recipe": "recipe.yaml", name: "\n".join(HOSTILE[:4])}
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


def test_a_final_message_gives_no_orders(job: Job) -> None:
    text = "\n".join(HOSTILE)
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
