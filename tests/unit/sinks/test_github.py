"""What GitHub Actions gets, and that no content can give it orders."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from kaos_runner import events as ev
from kaos_runner.sinks.github import GithubSink, report_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Stamp = Callable[[Iterable[ev.AnyEvent]], list[ev.Record]]


class Step:
    """A step of a job: its environment files, and what its log makes the runner do."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.environ = {
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "GITHUB_WORKSPACE": "/workspace",
            **more,
        }
        self.out = io.StringIO()

    def run(self, records: list[ev.Record]) -> Step:
        sink = GithubSink(self.out, self.environ)
        for record in records:
            sink.handle(record)
        sink.close()
        sink.close()
        return self

    @property
    def log(self) -> str:
        return self.out.getvalue()

    @property
    def summary(self) -> str:
        file = Path(self.environ["GITHUB_STEP_SUMMARY"])
        return file.read_text() if file.exists() else ""

    @property
    def commands(self) -> list[tuple[str, str, str]]:
        """What the runner obeys, by the rules of actions/runner's ActionCommand.cs."""
        found = []
        for line in re.split(r"\r\n|\r|\n", self.log):
            text = line.lstrip()  # .NET trims the same white space
            if text.startswith("::") and (match := re.match(r"::(\S+?)(?: (.*?))?::(.*)", text)):
                found.append((match[1], match[2] or "", match[3]))
            elif "##[" in line:
                found.append(("old form", "", line))
        return found

    @property
    def outputs(self) -> dict[str, str]:
        """The outputs, read as the runner reads the file."""
        lines = Path(self.environ["GITHUB_OUTPUT"]).read_text().splitlines()
        found, position = {}, 0
        while position < len(lines):
            name, _, delimiter = lines[position].partition("<<")
            end = lines.index(delimiter, position + 1)
            found[name] = "\n".join(lines[position + 1 : end])
            position = end + 1
        return found


def test_groups_and_annotations(tmp_path: Path, story: list[ev.Record]) -> None:
    step = Step(tmp_path).run(story)
    assert [(name, title) for name, _, title in step.commands if name == "group"] == [
        ("group", "sandbox"),
        ("group", "workspace"),
        ("group", "prompt 1 (fix)"),
        ("group", "prompt 2"),
        ("group", "checks"),
        ("group", "artifacts"),
    ]
    opened = [name for name, _, _ in step.commands if name in ("group", "endgroup")]
    assert opened == ["group", "endgroup"] * 6
    assert [c for c in step.commands if c[0] in ("error", "warning")] == [
        (
            "error",
            "title=check failed%3A file PLAN.md,file=recipes/tidy.yaml,line=31,col=5",
            "PLAN.md does not exist",
        ),
        ("warning", "title=kaos-runner", "the model was slow%0Atake another"),
        (
            "error",
            "title=kaos-runner%3A exit code 1%3A it ran%2C and a check%2C an output schema or a "
            "required artifact failed",
            "check failed: file PLAN.md%0Asee the record",
        ),
    ]
    assert "result    tidy failed in 26s" in step.log


def test_outputs(tmp_path: Path, story: list[ev.Record]) -> None:
    run_dir = "/somewhere/.kaos-runner/runs/20261123-085959-4f3a2c"
    assert Step(tmp_path).run(story).outputs == {
        "conclusion": "failure",
        "exit-code": "1",
        "run-id": "20261123-085959-4f3a2c",
        "run-dir": run_dir,
        "final-message": "The plan is made.\n\nIt is short.",
        "patch-file": f"{run_dir}/artifacts/change.patch",
        "tokens": "13250",
        "sandbox-id": "box-1",
    }


@pytest.mark.parametrize(
    ("code", "word"),
    [(0, "success"), (4, "failure"), (124, "timed_out"), (130, "cancelled"), (143, "cancelled")],
)
def test_conclusion(
    tmp_path: Path, stamp: Stamp, started: ev.RunStarted, code: int, word: str
) -> None:
    end = ev.RunFinished(
        status="error", exit_code=code, message="m", seconds=1, steps=0, input_tokens=0,
        output_tokens=0,
    )  # fmt: skip
    outputs = Step(tmp_path).run(stamp([started, end])).outputs
    assert (outputs["conclusion"], outputs["exit-code"]) == (word, str(code))
    assert outputs["patch-file"] == outputs["sandbox-id"] == outputs["final-message"] == ""


def test_outputs_are_written_for_a_run_that_breaks_off(
    tmp_path: Path, story: list[ev.Record]
) -> None:
    outputs = Step(tmp_path).run(story[:9]).outputs
    assert (outputs["conclusion"], outputs["exit-code"]) == ("failure", "70")


def test_an_empty_patch_is_no_patch_file(tmp_path: Path, story: list[ev.Record]) -> None:
    records = [
        r.model_copy(update={"event": r.event.model_copy(update={"size": 0})})
        if r.event.type == "artifact"
        else r
        for r in story
    ]
    assert Step(tmp_path).run(records).outputs["patch-file"] == ""


def test_content_gives_no_orders(
    tmp_path: Path, hostile_story: list[ev.Record], hostile: str
) -> None:
    step = Step(tmp_path).run(hostile_story)
    obeyed = {name for name, _, _ in step.commands}
    assert obeyed == {"group", "endgroup", "error"}
    for name, properties, _ in step.commands:
        keys = [pair.partition("=")[0] for pair in properties.split(",")] if properties else []
        assert keys == ([] if name in ("group", "endgroup") else keys)
        assert set(keys) <= {"title", "file", "line", "col"}
    outputs = step.outputs
    assert outputs["conclusion"] == "failure"
    assert outputs["exit-code"] == "1"
    assert set(outputs) == {
        "conclusion", "exit-code", "run-id", "run-dir", "final-message", "patch-file", "tokens",
        "sandbox-id",
    }  # fmt: skip
    assert outputs["final-message"].splitlines() == hostile.splitlines()


def test_delimiters_cannot_be_guessed(tmp_path: Path, story: list[ev.Record]) -> None:
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        step = Step(tmp_path / name).run(story)
        text = Path(step.environ["GITHUB_OUTPUT"]).read_text()
        found |= set(re.findall(r"<<(kaos_runner_[0-9a-f]{32})$", text, re.MULTILINE))
    assert len(found) == 16


def test_summary_page(tmp_path: Path, story: list[ev.Record]) -> None:
    page = Step(tmp_path).run(story).summary
    assert page.startswith("## ❌ `tidy` failed\n")
    for part in (
        "> nothing is isolated",
        "Exit code 1: it ran, and a check",
        "| model | `scripted`, replayed from a cassette |",
        "| prompts | 2 of 2 finished |",
        "| ❌ | `file PLAN.md` | recipe | `recipes/tidy.yaml:31` | 0.0s |",
        "| ✅ | `tests` | prompt 1 | `recipes/tidy.yaml:12` | 0.3s |",
        "1 file changed, 1 insertion(+), 1 deletion(-)",
        "13.0k in (10.0k from cache), 250 out; 2 steps, 2 tool calls",
        "come back: kaos-runner shell box-1",
    ):
        assert part in page


def test_summary_content_is_not_rendered(tmp_path: Path, hostile_story: list[ev.Record]) -> None:
    tokens = (
        MarkdownIt("commonmark").enable("table").parse(Step(tmp_path).run(hostile_story).summary)
    )
    inline = {child.type for token in tokens for child in token.children or []}
    assert not {token.type for token in tokens} & {"html_block"}
    assert inline <= {"text", "strong_open", "strong_close", "code_inline", "softbreak"}
    assert sum(token.type == "heading_open" for token in tokens) == 1
    assert sum(token.type == "table_open" for token in tokens) == 3


def test_summary_stays_under_the_limit(
    tmp_path: Path, stamp: Stamp, started: ev.RunStarted
) -> None:
    check = ev.CheckFinished(name="c", kind="run", prompt=None, ok=False, detail="", seconds=1)
    checks = [
        check.model_copy(update={"name": f"{i} {'`|' * 300}", "detail": "✅" * 20_000})
        for i in range(500)
    ]
    turn = ev.TurnFinished(
        prompt=0, prompt_id=None, attempt=1, final_message="漢" * 2_000_000, steps=1, tool_calls=0
    )
    step = Step(tmp_path).run(stamp([started, *checks, turn]))
    assert len(Path(step.environ["GITHUB_STEP_SUMMARY"]).read_bytes()) < 1024 * 1024
    assert "300 checks left out" in step.summary
    assert len(step.outputs["final-message"]) == 100_000


def test_annotations_and_summary_can_be_left_out(tmp_path: Path, story: list[ev.Record]) -> None:
    step = Step(tmp_path, KAOS_RUNNER_ANNOTATE="false", KAOS_RUNNER_SUMMARY="false").run(story)
    assert {name for name, _, _ in step.commands} == {"group", "endgroup"}
    assert step.summary == ""
    assert step.outputs["conclusion"] == "failure"


def test_files_of_the_workspace_are_named_from_it(
    tmp_path: Path, stamp: Stamp, started: ev.RunStarted
) -> None:
    check = ev.CheckFinished(
        name="c", kind="run", prompt=None, ok=False, detail="", seconds=1,
        file="/workspace/recipes/a.yaml", line=3,
    )  # fmt: skip
    step = Step(tmp_path).run(stamp([started, check]))
    assert ("error", "title=check failed%3A c,file=recipes/a.yaml,line=3", "the check failed") in (
        step.commands
    )


def test_a_failure_before_any_record(tmp_path: Path, hostile: str) -> None:
    step = Step(tmp_path)
    report_failure(2, "no such recipe", "see the docs", step.environ, step.out)
    assert step.outputs == {"conclusion": "failure", "exit-code": "2"}
    assert step.commands == [
        ("error", "title=kaos-runner%3A wrong usage or an invalid recipe",
         "no such recipe%0Asee the docs"),
    ]  # fmt: skip
    assert "no such recipe" in step.summary
    report_failure(3, hostile, hostile, step.environ, step.out)
    assert [name for name, _, _ in step.commands] == ["error", "error"]


def test_outside_of_github_nothing_is_written(story: list[ev.Record]) -> None:
    sink = GithubSink(io.StringIO(), {})
    for record in story:
        sink.handle(record)
    sink.close()
