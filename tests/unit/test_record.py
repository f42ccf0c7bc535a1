"""The run directory and its result."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from kaos_runner import events
from kaos_runner.errors import UsageError
from kaos_runner.events import Bus
from kaos_runner.record import ResultSink, RunDirectory, new_run_id

if TYPE_CHECKING:
    from pathlib import Path


def started(run_dir: Path) -> events.RunStarted:
    return events.RunStarted(
        recipe="r", recipe_file="r.yaml", recipe_digest="d", backend="local", isolation=None,
        workdir=None, model="m", replay=True, prompts=1, run_dir=str(run_dir),
    )  # fmt: skip


def test_the_directory_is_private_and_ignored_by_git(tmp_path: Path) -> None:
    made = RunDirectory.create(tmp_path / "records", new_run_id())

    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.session.stat().st_mode) == 0o700
    assert (tmp_path / "records" / ".gitignore").read_text() == "*\n"


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        RunDirectory.create(tmp_path / "file", "x")
    assert "--run-dir" in (caught.value.hint or "")


def test_runs_are_found_by_id_by_beginning_and_as_last(tmp_path: Path) -> None:
    for run_id in ("20260101-000000-aaaaaa", "20260102-000000-bbbbbb"):
        RunDirectory.create(tmp_path, run_id)

    assert RunDirectory.find(tmp_path, "20260101").run_id.endswith("aaaaaa")
    assert RunDirectory.find(tmp_path, "last").run_id.endswith("bbbbbb")
    for wrong in ("2026", "2027"):
        with pytest.raises(UsageError):
            RunDirectory.find(tmp_path, wrong)


def test_a_result_is_there_from_the_first_event_on(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "run")
    bus = Bus("run", lambda text: text)
    bus.attach(ResultSink(directory))

    bus.emit(started(directory.path))

    result = json.loads(directory.result_file.read_text())
    assert result["schema"] == "kaos-runner/result/1"
    assert (result["status"], result["exit_code"]) == ("error", 70)


def test_the_result_sums_what_the_events_say(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "run")
    bus = Bus("run", lambda text: text)
    sink = ResultSink(directory)
    bus.attach(sink)
    bus.emit(started(directory.path))
    for step in (1, 2):
        bus.emit(events.StepStarted(step=step))
        bus.emit(events.Usage(input=10, output=3, cache_read=4, cache_write=0))
    bus.emit(
        events.RunFinished(
            status="succeeded", exit_code=0, message="ok", seconds=1.5, steps=2,
            input_tokens=20, output_tokens=6,
        )
    )  # fmt: skip

    result = directory.result()

    assert (result.usage.steps, result.usage.input, result.usage.output) == (2, 20, 6)
    assert (result.status, result.exit_code, result.usage.cost) == ("succeeded", 0, "unpriced")


def test_the_bus_masks_once_and_keeps_literals() -> None:
    seen: list[events.Record] = []

    class Keep:
        def handle(self, record: events.Record) -> None:
            seen.append(record)

        def close(self) -> None:
            pass

    bus = Bus("run", lambda text: text.replace("warning", "***"))
    bus.attach(Keep())
    bus.emit(events.Notice(level="warning", message="a warning"))
    bus.emit(events.ToolCall(call=1, tool="shell", arguments={"warning": ["warning", {"n": 1}]}))
    bus.emit(events.Text(text="\udcff is no text"))

    assert seen[0].event == events.Notice(level="warning", message="a ***")
    assert seen[1].event.model_dump()["arguments"] == {"***": ["***", {"n": 1}]}
    assert [record.seq for record in seen] == [1, 2, 3]
    assert all(json.loads(record.line())["schema"] == events.SCHEMA for record in seen)
