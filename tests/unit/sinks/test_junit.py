"""The JUnit report: strict enough for every reader, and true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from lxml import etree  # type: ignore[import-untyped]

from kaos_runner import events as ev
from kaos_runner.sinks.junit import JunitSink, refusal, write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Stamp = Callable[[Iterable[ev.AnyEvent]], list[ev.Record]]

STRICT = Path(__file__).with_name("junit.xsd")


def report(folder: Path, records: list[ev.Record]) -> Path:
    """The report of these records, valid against the strict schema."""
    file = folder / "reports" / "junit.xml"
    sink = JunitSink(file)
    for record in records:
        sink.handle(record)
    sink.close()
    assert sink.failure is None
    if file.exists():
        schema = etree.XMLSchema(etree.parse(STRICT))
        schema.assertValid(etree.parse(file))
    return file


def cases(file: Path) -> dict[str, str]:
    """Each case with its outcome, as a reader that is not ours finds it."""
    kinds = {Failure: "failure", Error: "error", Skipped: "skipped"}
    found = {}
    for suite in JUnitXml.fromfile(str(file)):
        for case in suite:
            found[case.name] = next((kinds[type(r)] for r in case.result), "passed")
    return found


def end(code: int, status: ev.Status = "agent_failed") -> ev.RunFinished:
    return ev.RunFinished(
        status=status, exit_code=code, message="m", hint="h", seconds=1, steps=0,
        input_tokens=0, output_tokens=0,
    )  # fmt: skip


def test_a_case_per_prompt_and_check(tmp_path: Path, story: list[ev.Record]) -> None:
    file = report(tmp_path, story)
    assert cases(file) == {
        "prompt 1 (fix)": "passed",
        "prompt 2": "passed",
        "prompt 1: tests": "passed",
        "recipe: file PLAN.md": "failure",
        "artifact: change.patch": "passed",
        "run": "passed",
    }
    (suite,) = JUnitXml.fromfile(str(file))
    assert (suite.name, suite.tests, suite.failures, suite.errors) == ("tidy", 6, 1, 0)
    failed = next(case for case in suite if case.name == "recipe: file PLAN.md")
    assert failed.result[0].message == "PLAN.md does not exist"
    assert failed.result[0].text == "recipes/tidy.yaml:31\nPLAN.md does not exist"
    prompt = next(case for case in suite if case.name == "prompt 1 (fix)")
    assert prompt.time == 15.0


def test_prompts_that_were_not_reached_are_skipped(
    tmp_path: Path, stamp: Stamp, started: ev.RunStarted
) -> None:
    turn = ev.TurnStarted(prompt=0, prompt_id=None, attempt=1, text="go")
    file = report(tmp_path, stamp([started, turn, end(5)]))
    assert cases(file) == {"prompt 1": "error", "prompt 2": "skipped", "run": "error"}


@pytest.mark.parametrize("code", [2, 3, 4, 5, 6, 7, 70, 124, 130, 143])
def test_other_failures_are_an_error_of_the_run(
    tmp_path: Path, stamp: Stamp, started: ev.RunStarted, code: int
) -> None:
    file = report(tmp_path, stamp([started, end(code)]))
    assert cases(file)["run"] == "error"
    assert f"exit code {code}:" in file.read_text()


def test_a_failed_prompt(tmp_path: Path, stamp: Stamp, started: ev.RunStarted) -> None:
    prompt = ev.PromptFinished(
        prompt=0, prompt_id="fix", status="failed", attempts=3, final_message="I tried."
    )
    turn = ev.TurnStarted(prompt=0, prompt_id="fix", attempt=3, text="go")
    file = report(tmp_path, stamp([started, turn, prompt, end(1, "failed")]))
    assert cases(file) == {"prompt 1 (fix)": "failure", "prompt 2": "skipped", "run": "passed"}
    assert "failed after 3 attempts" in file.read_text()


def test_the_last_attempt_of_a_check_counts(
    tmp_path: Path, stamp: Stamp, started: ev.RunStarted
) -> None:
    check = ev.CheckFinished(name="t", kind="run", prompt=0, ok=False, detail="no", seconds=1)
    again = check.model_copy(update={"attempt": 2, "ok": True})
    file = report(tmp_path, stamp([started, check, again]))
    assert cases(file)["prompt 1: t"] == "passed"


def test_a_run_that_breaks_off(tmp_path: Path, story: list[ev.Record]) -> None:
    assert cases(report(tmp_path, story[:14]))["run"] == "error"


def test_hostile_text_stays_text(tmp_path: Path, hostile_story: list[ev.Record]) -> None:
    file = report(tmp_path, hostile_story)
    (suite,) = JUnitXml.fromfile(str(file))
    assert (suite.tests, suite.failures, suite.errors) == (5, 3, 0)
    assert "]]> &" in etree.parse(file).findtext(".//system-out")
    assert "\u202e" not in file.read_text()


def test_a_refusal(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    write_report(file, refusal(2, "recipe.yaml:3:1: unknown key"))
    etree.XMLSchema(etree.parse(STRICT)).assertValid(etree.parse(file))
    assert cases(file) == {"run": "error"}
    assert "recipe.yaml:3:1: unknown key" in file.read_text()


def test_nothing_is_written_for_a_run_that_never_began(tmp_path: Path) -> None:
    assert not report(tmp_path, []).exists()


def test_an_unwritable_file_is_remembered(tmp_path: Path, story: list[ev.Record]) -> None:
    (tmp_path / "file").touch()
    sink = JunitSink(tmp_path / "file" / "junit.xml")
    for record in story:
        sink.handle(record)
    sink.close()
    assert isinstance(sink.failure, OSError)
