"""The action's own steps, each outcome of a run, and what a workflow gets of it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.action.conftest import ACTION, Job, says, shell

if TYPE_CHECKING:
    from tests.action.conftest import Ended

OUTPUTS = {
    "conclusion", "exit-code", "run-id", "run-dir", "final-message", "patch-file", "tokens",
    "sandbox-id",
}  # fmt: skip
SETUP = ["git init -q", "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m start"]


def assert_ended(ended: Ended, code: int, conclusion: str) -> None:
    assert ended.code == code, ended.log
    assert ended.outputs["exit-code"] == str(code)
    assert ended.outputs["conclusion"] == conclusion


def test_declared_outputs_are_those_of_the_run_step() -> None:
    declared = {name: output["value"] for name, output in ACTION["outputs"].items()}
    assert declared == {name: f"${{{{ steps.run.outputs.{name} }}}}" for name in OUTPUTS}


def test_success_with_a_patch(job: Job) -> None:
    job.recipe(
        [shell("echo new > new.txt"), says("Made new.txt.", usage={"input": 7, "output": 2})],
        setup=SETUP,
        checks=[{"file": "new.txt"}],
        artifacts=[{"patch": "."}],
    )
    ended = job.run(recipe="recipe.yaml")
    assert_ended(ended, 0, "success")
    assert set(ended.outputs) == OUTPUTS
    run_dir = Path(ended.outputs["run-dir"])
    assert run_dir.parent == job.folder / "temp" / "kaos-runner" / "runs"
    assert run_dir.name == ended.outputs["run-id"]
    assert (run_dir / "result.json").is_file()
    assert "+new" in Path(ended.outputs["patch-file"]).read_text()
    assert ended.outputs["final-message"] == "Made new.txt."
    assert int(ended.outputs["tokens"]) >= 9
    assert ended.outputs["sandbox-id"]
    assert ended.summary.startswith("## ✅ `test` succeeded")
    assert "new.txt" in ended.summary
    assert not (job.workspace / ".kaos-runner").exists()


def test_a_failed_check_points_at_the_recipe(job: Job) -> None:
    job.recipe([says("Done.")], checks=[{"run": "echo broken; exit 3", "name": "proof"}])
    ended = job.run(recipe="recipe.yaml")
    assert_ended(ended, 1, "failure")
    lines = (job.workspace / "recipe.yaml").read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "echo broken" in line)
    (annotation,) = [
        line for line in ended.log.splitlines() if line.startswith("::error title=check failed")
    ]
    assert f",file=recipe.yaml,line={number}," in annotation
    assert "broken" in annotation
    assert "| ❌ | `proof`" in ended.summary


def test_an_invalid_recipe_is_annotated_at_its_line(job: Job) -> None:
    job.write("recipe.yaml", "version: 1\nname: test\nbackend: local\npromps: [Do it.]\n")
    ended = job.run(recipe="recipe.yaml", args="--junit=junit.xml")
    assert_ended(ended, 2, "failure")
    assert "::error file=recipe.yaml,line=4,col=1" in ended.log
    assert "<error " in (job.workspace / "junit.xml").read_text()
    assert ended.summary.startswith("## ❌ kaos-runner: wrong usage or an invalid recipe")


def test_annotations_and_the_summary_can_be_left_out(job: Job) -> None:
    job.write("recipe.yaml", "version: 1\nname: test\nbackend: local\npromps: [Do it.]\n")
    ended = job.run(recipe="recipe.yaml", annotate="false", summary="false")
    assert_ended(ended, 2, "failure")
    assert "::error" not in ended.log
    assert ended.summary == ""


def test_a_missing_key(job: Job) -> None:
    job.recipe([], agent={"model": "some-model"})
    ended = job.run(recipe="recipe.yaml")
    assert_ended(ended, 3, "failure")
    assert "KIMI_API_KEY" in ended.log


def test_a_sandbox_that_fails(job: Job) -> None:
    job.recipe([says("never")], setup=["echo no luck >&2; exit 9"])
    ended = job.run(recipe="recipe.yaml")
    assert_ended(ended, 4, "failure")
    assert ended.outputs["sandbox-id"]
    assert "no luck" in ended.log


def test_an_agent_that_fails(job: Job) -> None:
    job.recipe([says("Done.")], prompts=["Do it.", "And more than the cassette holds."])
    assert_ended(job.run(recipe="recipe.yaml"), 5, "failure")


def test_a_limit(job: Job) -> None:
    job.recipe([shell("true"), shell("true"), says("Done.")], limits={"steps": 1})
    assert_ended(job.run(recipe="recipe.yaml"), 6, "failure")


def test_a_sandbox_that_cannot_be_cleaned_up(job: Job, refusing_backend: str) -> None:
    job.recipe([says("Done.")], backend=refusing_backend)
    ended = job.run(recipe="recipe.yaml")
    assert_ended(ended, 7, "failure")
    assert "COULD NOT BE CLEANED UP" in ended.summary


def test_the_wall_limit(job: Job) -> None:
    job.recipe([shell("sleep 60"), says("Done.")], limits={"wall": "3s"})
    assert_ended(job.run(recipe="recipe.yaml"), 124, "timed_out")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_cancelled_job_cleans_up(job: Job, number: signal.Signals, code: int) -> None:
    """GitHub signals the step's shell only, and not its children."""
    job.recipe([shell("touch ready; sleep 60"), says("Done.")])
    process = job.start("run", {"recipe": "recipe.yaml"})
    runs = job.folder / "temp" / "kaos-runner" / "runs"
    deadline = time.monotonic() + 60
    while not _called(runs) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    ended = job.finish(process)
    assert_ended(ended, code, "cancelled")
    assert not Path(ended.outputs["sandbox-id"]).exists()


def _called(runs: Path) -> bool:
    return any('"type":"tool_call"' in file.read_text() for file in runs.glob("*/events.jsonl"))


def test_it_is_untrusted_unless_told_otherwise(job: Job) -> None:
    job.environ["SOME_SECRET"] = "a secret of some length"
    job.recipe([says("Done.")], secrets=["SOME_SECRET"])
    ended = job.run(recipe="recipe.yaml")
    assert ended.code in (2, 3)
    assert "secrets" in ended.log
    for word in ("True", "true; x"):
        assert job.run(recipe="recipe.yaml", trusted=word).code == ended.code
    assert_ended(job.run(recipe="recipe.yaml", trusted="true"), 0, "success")


def test_inputs_become_options(job: Job) -> None:
    """Each in its own way: a backend, a file of parameters, further arguments, a directory."""
    job.recipe(
        [says("Done.")],
        backend="e2b",
        params={"word": {"type": "string"}},
        prompts=["Say {{ params.word }}."],
    )
    (job.workspace / "here").mkdir()
    job.write("here/params.yaml", "word: from-a-file\n")
    ended = job.run(
        recipe="../recipe.yaml",
        working_directory="here",
        params_file="params.yaml",
        backend="local",
        args=f"--junit\n{job.folder}/a report.xml\n\n--run-dir={job.folder}/my runs",
    )
    assert_ended(ended, 0, "success")
    assert "Say from-a-file." in ended.log
    assert (job.folder / "a report.xml").is_file()
    assert ended.outputs["run-dir"].startswith(f"{job.folder}/my runs/runs/")


def test_params_and_a_file_of_them_do_not_mix(job: Job) -> None:
    job.recipe([says("Done.")])
    ended = job.run(recipe="recipe.yaml", params="a: 1", params_file="b.yaml")
    assert_ended(ended, 2, "failure")
    assert "::error title=kaos-runner::give either params or params-file\n" in ended.log


def test_outputs_of_a_command_line_that_cannot_begin(job: Job) -> None:
    job.recipe([says("Done.")])
    ended = job.run(recipe="recipe.yaml", args="--no-such-option")
    assert_ended(ended, 2, "failure")
    assert "::error title=kaos-runner::no run began (exit code 2)\n" in ended.log


def test_the_key_names_everything_that_is_installed(job: Job, tmp_path: Path) -> None:
    names = ("requirements.lock", "pyproject.toml", ".python-version", ".ci/setup")
    action = Job(tmp_path, action=tmp_path / "action")
    for name in names:
        path = action.action / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    def key(python: str = "/usr/bin/python3") -> str:
        outputs = action.run("key", {"steps.python.outputs.python-path": python}).outputs
        assert outputs["path"] == f"{action.action}/.venv"
        return outputs["key"]

    first = key()
    assert first == key()
    assert first.startswith("kaos-runner-Linux-X64-")
    seen = {first, key("/other/python3")}
    for name in names:
        (action.action / name).write_text("changed")
        seen.add(key())
    assert len(seen) == 2 + len(names)
    assert job.workspace.is_dir()


def test_it_is_installed_by_the_set_up_of_the_checkout(job: Job, tmp_path: Path) -> None:
    setup = tmp_path / "action" / ".ci" / "setup"
    setup.parent.mkdir(parents=True)
    setup.write_text('#!/bin/sh\necho "first on PATH: ${PATH%%:*}"\nexit 3\n')
    setup.chmod(0o755)
    contexts = {"steps.python.outputs.python-path": "/some where/python3"}
    ended = Job(tmp_path, action=tmp_path / "action").run("Install", contexts)
    assert (ended.code, ended.log) == (3, "first on PATH: /some where\n")
    assert job.workspace.is_dir()


def steps_using(name: str) -> list[dict[str, Any]]:
    return [s for s in ACTION["runs"]["steps"] if s.get("uses", "").startswith(name)]


def test_the_session_is_not_uploaded_and_the_cache_is_kept_before_the_run() -> None:
    (upload,) = steps_using("actions/upload-artifact@")
    assert "!${{ steps.run.outputs.run-dir }}/session" in upload["with"]["path"]
    order = [s.get("id") or s["name"] for s in ACTION["runs"]["steps"]]
    assert order.index("Keep the installation") < order.index("run")
