from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from kaos_runner.errors import SandboxError, SandboxLostError, UsageError
from kaos_runner.recipe.model import ChangedCheck, Check, FileCheck, RunCheck
from kaos_runner.workspace import Baseline, CheckOutcome, run_check, run_command, run_setup
from kaos_runner.workspace.checks import OUTPUT_TAIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.workspace.boxes import Box


def tried(box: Box, check: Check, change: Callable[[], object] | None = None) -> CheckOutcome:
    """The outcome of a check, after a change that follows the baseline."""

    async def main() -> CheckOutcome:
        baseline = await Baseline.take(box.kaos, str(box.workdir), ()) if change else None
        if change:
            change()
        box.kaos.operations = 0
        outcome = await run_check(box.kaos, check, workdir=str(box.workdir), baseline=baseline)
        await box.kaos.end()
        return outcome

    return asyncio.run(main())


def run(box: Box, command: str, timeout: float = 60.0) -> CheckOutcome:
    return tried(box, RunCheck(run=command, timeout=timeout))


def test_a_command_runs_in_the_workdir(box: Box) -> None:
    box.write("here", "x")
    outcome = run(box, "cat here && pwd")
    assert outcome.ok
    assert outcome.detail == f"exit code 0\nx{box.workdir}"
    assert box.kaos.operations == 1


def test_the_exit_code_and_both_streams_in_order(box: Box) -> None:
    outcome = run(box, "echo one; echo two >&2; echo three; exit 7")
    assert not outcome.ok
    assert outcome.detail == "exit code 7\none\ntwo\nthree"


def test_any_line_that_fails_fails_the_check(box: Box) -> None:
    assert run(box, "false\necho after").detail == "exit code 1"


def test_bash_is_used_where_it_is(full: Box, slim: Box) -> None:
    command = 'echo "${BASH_VERSION:+bash}"'
    assert run(full, command).detail == "exit code 0\nbash"
    assert run(slim, command).detail == "exit code 0"


def test_stdin_is_empty(box: Box) -> None:
    assert run(box, "cat; echo end").detail == "exit code 0\nend"


def test_a_command_that_is_not_there(box: Box) -> None:
    outcome = run(box, "no-such-command")
    assert not outcome.ok
    assert outcome.detail.startswith("exit code 127\n")
    assert "no-such-command" in outcome.detail


def test_output_is_bounded_however_much_comes(full: Box) -> None:
    tracemalloc.start()
    outcome = run(full, "yes | head -c 50000000; echo the end")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome.ok
    assert outcome.detail.endswith("\nthe end")
    assert len(outcome.detail) < OUTPUT_TAIL + 100
    assert "bytes before this were dropped" in outcome.detail
    assert peak < 5_000_000


def test_output_of_any_bytes(box: Box) -> None:
    assert run(box, r"printf 'a\377\303\251b'").detail == "exit code 0\na\ufffdéb"


def test_a_command_that_takes_too_long(box: Box) -> None:
    outcome = run(box, "echo begun; sleep 60", timeout=0.5)
    assert not outcome.ok
    assert outcome.detail == "stopped after 0.5 s, its limit\nbegun"


def test_a_process_left_behind_does_not_hold_up_the_outcome(full: Box) -> None:
    outcome = run(full, "sleep 1000 & echo begun", timeout=30)
    assert outcome.detail == "exit code 0\nbegun"


def test_a_missing_workdir_fails_the_check(box: Box) -> None:
    box.workdir.rmdir()
    assert run(box, "true").detail.startswith("exit code 126\n")


def test_setup_tells_how_it_ended(box: Box) -> None:
    done = asyncio.run(run_setup(box.kaos, "echo hello; exit 3", workdir=str(box.workdir)))
    assert (done.exit_code, done.output) == (3, "hello\n")
    done = asyncio.run(
        run_command(box.kaos, "sleep 60", workdir=str(box.workdir), timeout=0.3),
    )
    assert done.exit_code is None


def test_a_file(box: Box) -> None:
    box.write("a b/c", "12345")
    (box.workdir / "link").symlink_to("a b/c")
    (box.workdir / "dangling").symlink_to("nowhere")
    assert tried(box, FileCheck(file="a b/c")).detail == "a b/c is there, 5 bytes"
    assert box.kaos.operations == 0  # a stat, not a command
    assert tried(box, FileCheck(file="./link")).ok
    for file, reason in {
        "a b": "is a directory",
        "dangling": "does not exist",
        "a b/c/d": "does not exist",
        "x": "does not exist",
    }.items():
        outcome = tried(box, FileCheck(file=file))
        assert not outcome.ok
        assert outcome.detail == f"{file} {reason}"


@pytest.mark.parametrize("file", ["/etc/passwd", "../x", "a/../../x", "a\0b"])
def test_a_file_outside_the_workdir(full: Box, file: str) -> None:
    with pytest.raises(UsageError, match="not below the workdir"):
        tried(full, FileCheck(file=file))


@pytest.mark.parametrize(
    ("pattern", "ok"),
    [
        ("**/*.py", True),
        ("*.py", True),
        ("pkg/*.py", True),
        ("./pkg/**", True),
        ("**/.hidden", True),
        ("pkg", False),
        ("*/*.txt", False),
        ("**/*.PY", False),
    ],
)
def test_changed(box: Box, pattern: str, *, ok: bool) -> None:
    box.write("old.py", "x")

    def change() -> None:
        box.write("new.py", "x")
        box.write("pkg/a.py", "x")
        box.write("pkg/deep/b.md", "x")
        box.write(".hidden", "x")

    outcome = tried(box, ChangedCheck(changed=pattern), change)
    assert outcome.ok is ok
    assert box.kaos.operations == 1
    if not ok:
        assert f"nothing that matches {pattern} changed; changed: " in outcome.detail
        assert "pkg/deep/b.md" in outcome.detail


def test_a_deletion_is_a_change(box: Box) -> None:
    path = box.write("a.py", "x")
    assert tried(box, ChangedCheck(changed="*.py"), path.unlink).detail == "changed: a.py"


def test_nothing_changed(full: Box) -> None:
    outcome = tried(full, ChangedCheck(changed="*"), lambda: None)
    assert not outcome.ok
    assert outcome.detail.startswith("nothing changed")


def test_names_in_details_do_nothing_to_a_terminal(full: Box) -> None:
    outcome = tried(full, ChangedCheck(changed="*"), lambda: full.write("a\x1b[2J\nb"))
    assert outcome.detail == r"changed: a\x1b[2J\x0ab"


def test_changed_without_a_baseline_or_a_pattern(full: Box) -> None:
    with pytest.raises(SandboxError, match="needs a baseline"):
        tried(full, ChangedCheck(changed="*"))
    with pytest.raises(UsageError, match="needs a pattern"):
        tried(full, ChangedCheck(changed="./"), lambda: full.write("a"))


@pytest.mark.parametrize(
    "check", [RunCheck(run="true"), FileCheck(file="a"), ChangedCheck(changed="*")]
)
def test_a_sandbox_that_went_away(full: Box, check: Check) -> None:
    async def main() -> None:
        baseline = await Baseline.take(full.kaos, str(full.workdir), ())
        full.kaos.lost = True
        await run_check(full.kaos, check, workdir=str(full.workdir), baseline=baseline)

    with pytest.raises(SandboxLostError):
        asyncio.run(main())


def test_cancelling_ends_the_command(full: Box) -> None:
    async def main() -> int:
        task = asyncio.ensure_future(
            run_command(full.kaos, "sleep 60", workdir=str(full.workdir), timeout=60)
        )
        await full.kaos.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await full.kaos.started[0].wait()

    assert asyncio.run(main()) == -9
