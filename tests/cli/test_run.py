"""Every outcome of a run, from the command line: its exit code, its words, its record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import ROOT, CommandLine, says, shell

if TYPE_CHECKING:
    from tests.cli.conftest import Done


def left_behind(done: Done) -> list[str]:
    """What became of the sandbox's directory, which its id names."""
    return [p for p in [done.result["sandbox"]["id"]] if Path(p).exists()]


def test_the_quickstart_brings_its_patch_home(cli: CommandLine, tmp_path: Path) -> None:
    done = cli.run(ROOT / "recipes" / "quickstart.yaml")

    assert done.code == 0, done.err
    result = done.result
    assert (result["status"], result["isolation"]) == ("succeeded", "bubblewrap")
    assert [p["status"] for p in result["prompts"]] == ["succeeded", "succeeded"]
    assert result["usage"]["steps"] == 5
    assert str(done.run_dir) in done.out + done.err
    start = tmp_path / "start"
    subprocess.run(["cp", "-r", ROOT / "recipes/fixtures/quickstart", start], check=True)
    patch = done.run_dir / "artifacts" / "fix.patch"
    subprocess.run(["git", "apply", patch], cwd=start, check=True)
    subprocess.run(["/usr/bin/python3", "-m", "unittest", "-q"], cwd=start, check=True)
    assert left_behind(done) == []


def test_a_failed_check_is_1_and_its_output_goes_back_to_the_agent(cli: CommandLine) -> None:
    recipe = cli.recipe(
        [says("done?"), says("still not")],
        prompts=[
            {
                "text": "Make it.",
                "checks": [{"run": "cat wanted.txt", "name": "wanted"}],
                "retry": 1,
            }
        ],
    )
    done = cli.run(recipe)

    assert done.code == 1
    assert "wanted" in done.err
    turns = [e["text"] for e in done.events if e["type"] == "turn_started"]
    assert len(turns) == 2
    assert "No such file or directory" in turns[1]
    assert done.result["prompts"][0]["attempts"] == 2


def test_a_retry_that_mends_it_is_0(cli: CommandLine) -> None:
    recipe = cli.recipe(
        [says("done?"), shell("echo yes > wanted.txt"), says("now it is there")],
        prompts=[{"text": "Make it.", "checks": [{"file": "wanted.txt"}], "retry": 2}],
        artifacts=[{"path": "wanted.txt"}],
    )
    done = cli.run(recipe)

    assert done.code == 0, done.err
    assert (done.run_dir / "artifacts" / "wanted.txt").read_text() == "yes\n"


def test_a_required_artifact_that_is_missing_is_1(cli: CommandLine) -> None:
    artifacts = [{"path": "report.md"}, {"path": "notes.md", "optional": True}]
    done = cli.run(cli.recipe([says("nothing to do")], artifacts=artifacts))

    assert done.code == 1
    assert "report.md" in done.err
    assert "notes.md" not in done.result["message"]


def test_an_empty_patch_is_1_unless_it_is_optional(cli: CommandLine) -> None:
    assert cli.run(cli.recipe([says("no")], artifacts=[{"patch": "."}])).code == 1
    optional = cli.recipe([says("no")], artifacts=[{"patch": ".", "optional": True}])
    assert cli.run(optional, "--run-dir", "second").code == 0


def test_an_output_schema_is_demanded(cli: CommandLine) -> None:
    schema = {"type": "object", "required": ["title"]}
    prompts = [
        {"id": "plan", "text": "Plan.", "output": {"schema": schema}, "retry": 1},
        "The title is {{ prompts.plan.output.title }}.",
    ]
    turns = [says("a plan"), says('{"title": "T1"}'), says("noted")]
    done = cli.run(cli.recipe(turns, prompts=prompts))

    assert done.code == 0, done.err
    assert done.result["prompts"][0]["output"] == {"title": "T1"}
    texts = [e["text"] for e in done.events if e["type"] == "turn_started"]
    assert texts[-1] == "The title is T1."


def test_an_invalid_recipe_is_2_and_leaves_no_record(cli: CommandLine) -> None:
    done = cli.run(cli.recipe([says("x")], cleanup="allways"))

    assert done.code == 2
    assert "recipe.yaml:" in done.err
    assert "always" in done.err
    assert not (cli.folder / ".kaos-runner").exists()


def test_a_deferred_template_that_fails_is_2(cli: CommandLine) -> None:
    prompts = [{"id": "one", "text": "Plan."}, "Then {{ prompts.one.output.title }}"]
    done = cli.run(cli.recipe([says("no plan")], prompts=prompts))

    assert done.code == 2, done.err
    assert "recipe.yaml:" in done.err


def test_a_missing_key_is_3_and_says_what_to_do(cli: CommandLine) -> None:
    done = cli.run(cli.recipe(None, agent={"model": "some-model"}))
    assert done.code == 3
    assert "KIMI_API_KEY" in done.err


def test_everything_that_is_missing_is_told_at_once(cli: CommandLine) -> None:
    done = cli.run(cli.recipe(None, agent={"model": "some-model"}, secrets=["NOT_THERE"]))
    assert done.code == 3
    assert "KIMI_API_KEY" in done.err
    assert "NOT_THERE" in done.err


def test_a_failing_setup_is_4(cli: CommandLine) -> None:
    done = cli.run(cli.recipe([says("x")], setup=["true", "echo broken >&2; exit 9"]))

    assert done.code == 4
    assert "exit code 9" in done.err
    assert left_behind(done) == []


def test_drift_from_the_cassette_is_5(cli: CommandLine) -> None:
    turns = [shell("echo now", expect={"contains": "then"}), says("done")]
    done = cli.run(cli.recipe(turns))

    assert done.code == 5
    assert "then" in done.err


def test_a_step_limit_is_6(cli: CommandLine) -> None:
    turns = [*(shell(f"echo {n}") for n in range(5)), says("done")]
    done = cli.run(cli.recipe(turns, limits={"steps": 3}))

    assert done.code == 6
    assert done.result["usage"]["steps"] == 3


def test_a_token_limit_is_6(cli: CommandLine) -> None:
    turns = [{**shell("echo 1"), "usage": {"input": 900, "output": 200}}, says("done")]
    assert cli.run(cli.recipe(turns, limits={"tokens": 1000})).code == 6


def test_the_wall_limit_is_124_and_ends_what_runs(cli: CommandLine) -> None:
    # Long enough for a busy machine to come to the agent's command.
    recipe = cli.recipe(
        [shell("sleep 300"), says("done")],
        setup=["echo before > before.txt"],
        limits={"wall": "20s"},
        artifacts=[{"path": "before.txt"}],
    )
    begun = time.monotonic()
    done = cli.run(recipe)

    assert done.code == 124, done.err
    assert time.monotonic() - begun < 60
    assert (done.run_dir / "artifacts" / "before.txt").read_text() == "before\n"
    assert left_behind(done) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(cli: CommandLine, number: int, code: int) -> None:
    recipe = cli.recipe(
        [shell("touch running; sleep 300"), says("done")], artifacts=[{"path": "running"}]
    )
    with cli.start(recipe, "--output", "stream-json") as process:
        assert process.stdout is not None
        sandbox = ""
        for line in process.stdout:
            event = json.loads(line)["event"]
            if event["type"] == "sandbox_ready":
                sandbox = event["sandbox_id"]
            if event["type"] == "tool_call":
                break
        time.sleep(1)
        os.kill(process.pid, number)
        out, _err = process.communicate(timeout=60)
    last = json.loads(out.splitlines()[-1])["event"]

    assert process.returncode == code
    assert (last["type"], last["exit_code"], last["status"]) == (
        "run_finished",
        code,
        "interrupted",
    )
    assert not Path(sandbox).exists()


def test_json_prints_the_result_alone(cli: CommandLine) -> None:
    done = cli.run(cli.recipe([says("fine")]), "--output", "json")
    assert json.loads(done.out)["status"] == "succeeded"

    refused = cli.run("absent.yaml", "--output", "json")
    assert refused.code == 2
    assert json.loads(refused.out)["problems"]


def test_a_wrong_verb_gets_a_hint(cli: CommandLine) -> None:
    done = cli.run("vaildate", "x.yaml")
    assert done.code == 2
    assert "kaos-runner validate" in done.err


def test_the_policy_on_success_keeps_after_a_failure(cli: CommandLine) -> None:
    checks = [{"file": "absent"}]
    done = cli.run(cli.recipe([says("no")], checks=checks, cleanup="on_success"))

    assert done.code == 1
    (kept,) = left_behind(done)
    assert done.result["sandbox"]["end"] in ("kept", "paused")
    assert kept in done.err + done.out
    subprocess.run(["rm", "-rf", kept], check=True)


def test_run_stdout_ends_quietly_when_its_reader_goes(cli: CommandLine) -> None:
    recipe = cli.recipe([says("fine")])
    with cli.start(recipe, "--output", "stream-json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_work_tree_that_is_none_is_2_and_nothing_is_created(cli: CommandLine) -> None:
    (cli.folder / "plain").mkdir()
    done = cli.run(cli.recipe([says("x")], files=[{"git": "plain"}]))

    assert done.code == 2, done.err
    assert "recipe.yaml:" in done.err
    assert "plain" in done.err
    assert done.result["sandbox"] is None


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", ">&- 2>&-", "<&-"])
def test_a_stream_that_nobody_reads_changes_no_outcome(cli: CommandLine, redirection: str) -> None:
    cli.recipe([says("fine")])
    for output in ("text", "json"):
        done = subprocess.run(
            ["bash", "-c", f'"$0" -m kaos_runner recipe.yaml --output {output} {redirection}',
             sys.executable],
            cwd=cli.folder, env=cli.environ, check=False,
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_a_killed_run_tells_where_its_sandbox_is(cli: CommandLine) -> None:
    recipe = cli.recipe([shell("sleep 300"), says("done")])
    with cli.start(recipe, "--output", "stream-json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)["event"]
            if event["type"] == "sandbox_ready":
                sandbox, remove = event["sandbox_id"], event["remove"]
            if event["type"] == "tool_call":
                break
        process.kill()

    shown = cli.run("show", "last")
    listed = cli.run("runs")

    assert sandbox in shown.out + shown.err
    assert remove in shown.out + shown.err
    assert "unknown" in listed.out
    subprocess.run(["sh", "-c", remove], check=True)
    assert not Path(sandbox).exists()


def test_a_report_is_written_into_a_pipe_and_never_over_it(cli: CommandLine) -> None:
    pipe = cli.folder / "pipe"
    os.mkfifo(pipe)
    with cli.start(cli.recipe([says("fine")]), "--junit", pipe) as process:
        text = pipe.read_text()
        process.communicate(timeout=60)
    assert "<testsuite" in text
    assert pipe.is_fifo()
