"""`runs` and `show`: what was recorded, as a table and one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaos_runner.events import Record
from kaos_runner.record import ResultSink, RunDirectory
from kaos_runner.sinks.record import RecordSink

if TYPE_CHECKING:
    from kaos_runner.events import Sink
    from tests.cli.conftest import CommandLine

STREAM = Path(__file__).parents[1] / "unit" / "sinks" / "streams" / "written-by-hand.jsonl"
FINISHED = "20261123-085959-aaaaaa"
BROKEN_OFF = "20261123-085959-bbbbbb"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recorded runs, the second of which broke off, and a third without a result."""
    records = [Record.model_validate_json(line) for line in STREAM.read_text().splitlines()]
    write(tmp_path, FINISHED, records)
    write(tmp_path, BROKEN_OFF, records[:12])
    (tmp_path / "runs" / "20261123-085959-cccccc").mkdir()
    return tmp_path


def write(folder: Path, run_id: str, records: list[Record]) -> None:
    directory = RunDirectory.create(folder, run_id)
    sinks: list[Sink] = [RecordSink(directory.path), ResultSink(directory)]
    for sink in sinks:
        for record in records:
            sink.handle(record)
        sink.close()


def run(cli: CommandLine, folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = cli.run(*arguments, "--run-dir", folder)
    return done.code, done.out, done.err


def test_runs_table(folder: Path, cli: CommandLine) -> None:
    code, out, _ = run(cli, folder, "runs")
    assert code == 0
    assert out == (
        "RUN                     STATUS      CODE  RECIPE  BACKEND  TIME  TOKENS  SANDBOX\n"
        "20261123-085959-aaaaaa  failed      1     tidy    local    26s   13.2k   kept\n"
        "20261123-085959-bbbbbb  unfinished        tidy    local          0       unknown\n"
        "20261123-085959-cccccc  unreadable                               0\n"
    )


def test_runs_json(folder: Path, cli: CommandLine) -> None:
    code, out, _ = run(cli, folder, "runs", "--output", "json")
    listed = json.loads(out)["runs"]
    assert code == 0
    assert [entry["status"] for entry in listed] == ["failed", "unfinished", "unreadable"]
    assert listed[0]["tokens"] == 13_250
    assert listed[0]["sandbox"]["id"] == "box-1"
    _, out, _ = run(cli, folder, "runs", "--output", "json", "-n", "1")
    assert [entry["status"] for entry in json.loads(out)["runs"]] == ["unreadable"]


def test_no_runs(tmp_path: Path, cli: CommandLine) -> None:
    code, out, _ = run(cli, tmp_path, "runs")
    assert (code, out) == (0, f"no recorded runs below {tmp_path / 'runs'}\n")


def test_show_summarises(folder: Path, cli: CommandLine) -> None:
    code, out, _ = run(cli, folder, "show", FINISHED)
    assert code == 0
    assert "result    tidy failed in 26s (exit code 1:" in out
    assert "FAILED  file PLAN.md" in out
    assert out.endswith("\n\nThe plan is made.\n\nIt is short.\n")


def test_show_takes_a_beginning_and_tells_again(folder: Path, cli: CommandLine) -> None:
    code, out, _ = run(cli, folder, "show", BROKEN_OFF[:-5], "-v")
    assert code == 0
    assert "setup     git init -q (ok, 0.1s)" in out
    assert "result    the run did not come to its end" in out


def test_show_for_machines(folder: Path, cli: CommandLine) -> None:
    _, out, _ = run(cli, folder, "show", FINISHED, "--output", "json")
    assert json.loads(out)["exit_code"] == 1
    _, out, _ = run(cli, folder, "show", FINISHED, "--output", "stream-json")
    told = [json.loads(line) for line in out.splitlines()]
    recorded = [json.loads(line) for line in STREAM.read_text().splitlines()]
    for now, then in zip(told, recorded, strict=True):
        # What was added since has its default.
        assert {**now["event"], **then["event"]} == now["event"]
        assert {**now, "event": None} == {**then, "event": None}


def test_show_without_events(folder: Path, cli: CommandLine) -> None:
    (folder / "runs" / FINISHED / "events.jsonl").unlink()
    _, out, _ = run(cli, folder, "show", FINISHED)
    assert out == f"{FINISHED}: failed (exit code 1)\ncheck failed: file PLAN.md\n"


def test_report(folder: Path, cli: CommandLine) -> None:
    (folder / "runs" / FINISHED / "artifacts" / "change.patch").write_text("+a new line\n")
    code, out, _ = run(cli, folder, "report", FINISHED)
    file = folder / "runs" / FINISHED / "report.html"
    assert (code, out) == (0, f"{file}\n")
    assert "+a new line" in file.read_text()
    _, out, _ = run(cli, folder, "report", FINISHED, "--to", "-")
    assert out == file.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nothing"], "no recorded run below"),
        (["show", "2026"], "3 recorded runs below"),
        (["show", "last"], "has no readable result.json"),
        (["show", FINISHED, "--output", "github"], "`show` does not speak github"),
        (["report", "last"], "has no events"),
        (["report", FINISHED, "--to", "/nowhere/x.html"], "cannot write /nowhere/x.html"),
        (["runs", "--output", "github"], "`runs` does not speak github"),
    ],
)
def test_mistakes(folder: Path, cli: CommandLine, arguments: list[str], message: str) -> None:
    code, out, err = run(cli, folder, *arguments)
    assert (code, out) == (2, "")
    assert message in err
