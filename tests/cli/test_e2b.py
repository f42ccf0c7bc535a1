"""Runs in E2B from the command line, against its emulator."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import ROOT, CommandLine, says, shell
from tests.debian import need
from tests.emulators.e2b import Emulator, running
from tests.emulators.e2b_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Done

RECIPE = ROOT / "recipes/e2b-refactor.yaml"
REPLAY = ("--replay", ROOT / "recipes/cassettes/e2b-refactor.yaml")
WAIT = 60


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """E2B, in which no sandbox may be left after a test."""
    need(missing_packages())
    with running() as server:
        yield server
        assert not server.fleet.sandboxes


@pytest.fixture
def e2b(cli: CommandLine, emulator: Emulator) -> CommandLine:
    """A command line that finds it."""
    return replace(cli, environ={**cli.environ, **emulator.environ()})


def test_the_recipe_brings_its_patch_home(
    e2b: CommandLine, emulator: Emulator, tmp_path: Path
) -> None:
    done = e2b.run(RECIPE, *REPLAY)

    assert done.code == 0, done.err
    assert [p["attempts"] for p in done.result["prompts"]] == [1, 2, 1]
    assert json.loads(done.result["prompts"][2]["final_message"])["files"][0] == "shapes/base.py"
    _applies(done, tmp_path)
    assert "length" in (done.run_dir / "artifacts/REPORT.md").read_text()
    (created,) = emulator.fleet.created
    assert created["metadata"]["kaos-runner-recipe"] == "e2b-refactor"
    assert created["metadata"]["kaos-runner-run-id"] == done.run_dir.name
    assert created["timeout"] == 900
    assert list(emulator.fleet.ended.values()) == ["killed"]


def test_the_same_recipe_rehearses_on_local(cli: CommandLine, tmp_path: Path) -> None:
    need(missing_packages())
    done = cli.run(RECIPE, *REPLAY, "--backend", "local")

    assert done.code == 0, done.err
    _applies(done, tmp_path)


@pytest.mark.live
@pytest.mark.parametrize("model", ["replayed", "real"])
def test_the_recipe_in_the_service(cli: CommandLine, tmp_path: Path, model: str) -> None:
    for name in ("E2B_API_KEY", *(["KIMI_API_KEY"] if model == "real" else [])):
        if not os.environ.get(name):
            pytest.skip(f"{name} is not set")
    done = cli.run(RECIPE, *(REPLAY if model == "replayed" else ()))

    assert done.code == 0, done.err
    if model == "replayed":
        _applies(done, tmp_path)


def _applies(done: Done, tmp_path: Path) -> None:
    """The patch goes onto what the recipe began with, and the tests hold there."""
    start = tmp_path / "start"
    shutil.copytree(ROOT / "recipes/fixtures/shapes", start)
    patch = done.run_dir / "artifacts/refactor.patch"
    subprocess.run(["git", "apply", patch], cwd=start, check=True)
    subprocess.run(["python3", "-m", "unittest", "-q"], cwd=start, check=True)
    assert "describe" not in (start / "shapes/circle.py").read_text()


def test_a_rate_limit_and_a_dropped_connection_are_got_over(
    e2b: CommandLine, emulator: Emulator
) -> None:
    emulator.rate_limit("create", 2)
    emulator.fail("create", how="lose")  # it was made, and nobody heard of it
    emulator.fail("Process/Start", how="cut")

    done = e2b.run(RECIPE, *REPLAY)

    assert done.code == 0, done.err
    assert emulator.counts["create"] == 4
    assert len(emulator.fleet.created) == 1
    retries = [e for e in done.events if e["type"] == "retry"]
    assert [r["attempt"] for r in retries] == [1, 2, 3, 1]
    assert "429" in retries[0]["reason"]
    assert "reset" in retries[2]["reason"]
    assert retries[3]["operation"] == "exec"


def _recipe(e2b: CommandLine, *turns: dict[str, Any], **fields: Any) -> Path:
    return e2b.recipe([*turns], backend="e2b", **fields)


@contextlib.contextmanager
def _when_it_sleeps(e2b: CommandLine, emulator: Emulator, **fields: Any) -> Iterator[str]:
    """A run whose agent waits in a command, and its sandbox; afterwards the run must end."""
    recipe = _recipe(e2b, shell("touch ~/asleep; sleep 300"), says("done"), **fields)
    with e2b.start(recipe) as process:
        yield _asleep(emulator)
        out, err = process.communicate(timeout=WAIT)
    e2b.write("out", out)
    e2b.write("err", err)
    e2b.write("code", str(process.returncode))


def _asleep(emulator: Emulator) -> str:
    for _ in range(WAIT * 20):
        for sandbox in list(emulator.fleet.sandboxes.values()):
            if (sandbox.box.directory / "home/asleep").exists():
                return sandbox.id
        time.sleep(0.05)
    pytest.fail("the agent's command did not start")


def _ended(e2b: CommandLine) -> tuple[int, str]:
    return int((e2b.folder / "code").read_text()), (e2b.folder / "err").read_text()


def test_a_sandbox_that_expires_ends_the_run_and_says_so(
    e2b: CommandLine, emulator: Emulator
) -> None:
    with _when_it_sleeps(e2b, emulator) as sandbox_id:
        emulator.expire(sandbox_id)

    code, err = _ended(e2b)
    assert code == 4, err
    assert f"{sandbox_id} is gone: it was killed, or its time was up" in err
    assert "timeout" in err
    assert "Traceback" not in err


def test_an_interrupted_run_kills_its_sandbox(e2b: CommandLine, emulator: Emulator) -> None:
    import signal

    recipe = _recipe(e2b, shell("touch ~/asleep; sleep 300"), says("done"))
    with e2b.start(recipe) as process:
        _asleep(emulator)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130, err


def test_a_failed_run_pauses_its_sandbox_and_a_later_one_takes_it_up(
    e2b: CommandLine, emulator: Emulator
) -> None:
    turns = (shell("echo kept > note"), says("done"))
    checks = [{"run": "false", "name": "never"}]
    done = e2b.run(_recipe(e2b, *turns, checks=checks, cleanup="on_success"))

    assert done.code == 1, done.err
    (sandbox,) = emulator.fleet.sandboxes.values()
    assert sandbox.state == "paused"
    assert f"sandbox connect {sandbox.id}" in done.err + done.out
    shutil.rmtree(e2b.folder / ".kaos-runner")
    again = _recipe(e2b, shell("cat note", expect={"contains": "kept"}), says("done"))
    done = e2b.run(again, E2B_SANDBOX_ID=sandbox.id)
    assert done.code == 0, done.err
    assert sandbox.id in emulator.fleet.sandboxes  # a run never deletes what it did not create
    _remove_by_hand(e2b, sandbox.id)


def _remove_by_hand(e2b: CommandLine, sandbox_id: str) -> None:
    """The command that we print does what it says."""
    from kaos_runner.backends.e2b import E2bBackend

    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    command = E2bBackend().remove_command(sandbox_id)
    subprocess.run(command, shell=True, check=True, env={**e2b.environ, "PATH": path})


@pytest.mark.parametrize(
    ("fields", "environ", "code", "words"),
    [
        ({"image": "none"}, {}, 4, "there is no E2B template 'none'"),
        ({}, {"E2B_API_KEY": "e2b_wrong"}, 3, "E2B refuses the API key"),
        ({}, {"E2B_API_KEY": ""}, 3, "the E2B API key is missing"),
        ({}, {"E2B_API_URL": "http://127.0.0.1:9"}, 3, "E2B cannot be reached"),
        ({}, {"E2B_API_URL": "https://api.e2b.invalid"}, 3, "cannot be resolved"),
        ({}, {"E2B_SANDBOX_ID": "none"}, 4, "does not exist"),
        ({"network": {"deny": ["a.example"]}}, {}, 2, "'a.example' is a name"),
        ({"workdir": "/proc/here"}, {}, 4, "cannot make the workdir /proc/here"),
    ],
)
def test_what_goes_wrong_is_said_with_its_code(
    e2b: CommandLine, fields: dict[str, Any], environ: dict[str, str], code: int, words: str
) -> None:
    done = e2b.run(_recipe(e2b, says("done"), **fields), **environ)

    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err


def test_doctor_knows_e2b(e2b: CommandLine) -> None:
    done = e2b.run("doctor", "--online", "--output", "json")

    assert '"e2b service"' in done.out
    assert "answers; 0 sandboxes" in done.out
