"""The written record: events exactly as they were, and a transcript that no content can forge."""

from __future__ import annotations

import resource
import stat
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from kaos_runner import events as ev
from kaos_runner.sinks.record import RecordSink

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path, records: list[ev.Record]) -> RecordSink:
    sink = RecordSink(directory)
    for record in records:
        sink.handle(record)
    sink.close()
    sink.close()
    return sink


def test_events_are_written_exactly(tmp_path: Path, hostile_story: list[ev.Record]) -> None:
    write(tmp_path, hostile_story)
    lines = (tmp_path / "events.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    assert [ev.Record.model_validate_json(line) for line in lines] == hostile_story


def test_events_are_there_as_they_happen(tmp_path: Path, story: list[ev.Record]) -> None:
    sink = RecordSink(tmp_path)
    for number, record in enumerate(story[:5], start=1):
        sink.handle(record)
        assert len((tmp_path / "events.jsonl").read_text().splitlines()) == number
    assert "box-1" in (tmp_path / "transcript.md").read_text()
    sink.close()


def test_only_the_user_reads_it(tmp_path: Path, story: list[ev.Record]) -> None:
    write(tmp_path, story)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_it_goes_on_after_what_is_there(tmp_path: Path, story: list[ev.Record]) -> None:
    write(tmp_path, story[:3])
    write(tmp_path, story[3:])
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == len(story)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        RecordSink(tmp_path)


def test_a_full_disk_is_remembered(story: list[ev.Record], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        sink = write(tmp_path, story)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(sink.failure, OSError)
    assert len((tmp_path / "events.jsonl").read_text()) <= 500


def test_the_transcript_tells_the_story(tmp_path: Path, story: list[ev.Record]) -> None:
    write(tmp_path, story)
    text = (tmp_path / "transcript.md").read_text()
    assert text.startswith("# 20261123-085959-4f3a2c\n\n- recipe: `tidy` (`recipes/tidy.yaml`)\n")
    for part in (
        "**WARNING: nothing is isolated",
        "## Prompt 1 `fix`\n\n```text\nFind the bug\nand fix it.\n```\n",
        "**Thinking**\n\n```text\nA bug, surely.\n```\n",
        "**Tool 1**: `Shell`\n\n```sh\npython3 -m unittest -q\n```\n",
        "**Result 1** (failed, 12s)\n\n```text\nline 1\n",
        "## Outcome\n",
        "exit code 1",
    ):
        assert part in text


def test_content_cannot_break_out(tmp_path: Path, hostile_story: list[ev.Record]) -> None:
    """Whatever is said, the page's own structure stays: headings as ours, no HTML, no image."""
    write(tmp_path, hostile_story)
    page = MarkdownIt("commonmark").enable("table").parse((tmp_path / "transcript.md").read_text())
    kinds = {token.type for token in page}
    assert "html_block" not in kinds
    assert "table_open" not in kinds
    assert sum(token.type == "heading_open" for token in page) == 3  # title, prompt, outcome
    inline = {child.type for token in page for child in token.children or []}
    assert inline <= {"text", "strong_open", "strong_close", "code_inline", "softbreak"}
