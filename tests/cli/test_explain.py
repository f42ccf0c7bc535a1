"""`explain` and `render` from the command line: plan and rendered recipe, without a network."""

from __future__ import annotations

import json

import yaml

from tests.cli.conftest import ROOT, CommandLine, says

QUICKSTART = ROOT / "recipes" / "quickstart.yaml"


def test_explain_tells_values_with_their_origin(cli: CommandLine) -> None:
    done = cli.run("explain", QUICKSTART, "--cleanup", "never", "--output", "json")
    told = json.loads(done.out)

    assert done.code == 0
    assert told["values"]["cleanup"] == {"value": "never", "from": "--cleanup"}
    assert told["values"]["backend"] == {"value": "local", "from": "recipe"}
    assert told["missing"] == []
    assert not (cli.folder / ".kaos-runner").exists()


def test_explain_says_loudly_that_nothing_is_isolated(cli: CommandLine) -> None:
    assert "NOTHING IS ISOLATED" in cli.run("explain", QUICKSTART, "--isolation", "none").out
    assert "NOTHING IS ISOLATED" not in cli.run("explain", QUICKSTART).out


def test_explain_lists_what_is_missing_and_every_power(cli: CommandLine) -> None:
    recipe = cli.recipe(None, secrets=["DEPLOY_KEY"], agent={"tools": ["shell", "fetch"]})
    done = cli.run("explain", recipe)

    assert done.code == 0
    for word in ("DEPLOY_KEY", "KIMI_API_KEY", "no model is named", "fetch", "secrets"):
        assert word in done.out, word


def test_explain_names_what_another_backend_drops(cli: CommandLine) -> None:
    recipe = cli.recipe([says("x")], backend="e2b", image="base", workdir="/home/user/work")
    done = cli.run("explain", recipe, "--backend", "local")

    assert done.code == 0, done.err
    assert "image" in done.out.partition("dropped:")[2]
    assert "workdir" in done.out.partition("dropped:")[2]


def test_render_fills_in_parameters_and_leaves_what_only_the_run_knows(cli: CommandLine) -> None:
    prompts = [
        {"id": "plan", "text": "Plan {{ params.goal }}, with {{ params.note }}."},
        "Then do {{ prompts.plan.final_message }}",
    ]
    params = {"goal": {"type": "string"}, "note": {"type": "string", "default": "care"}}
    recipe = cli.recipe([says("x")], params=params, prompts=prompts, secrets=["DEPLOY_KEY"])
    done = cli.run("render", recipe, "-p", "goal=topsecret99", DEPLOY_KEY="topsecret99")
    told = yaml.safe_load(done.out)

    assert done.code == 0, done.err
    assert told["prompts"][0]["text"] == "Plan ***, with care."
    assert "{{ prompts.plan.final_message }}" in str(told["prompts"][1])


def test_a_parameter_without_a_value_is_a_problem_with_its_place(cli: CommandLine) -> None:
    recipe = cli.recipe(
        [says("x")], params={"goal": {"type": "string"}}, prompts=["{{ params.goal }}"]
    )
    done = cli.run("render", recipe)

    assert done.code == 2
    assert "goal" in done.err
    assert "recipe.yaml:" in done.err
