"""`stream-json`: stable, versioned, and readable by what was written for an earlier version."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kaos_runner import events as ev
from kaos_runner.sinks.stream import StreamSink

STREAMS = Path(__file__).with_name("streams")
SCHEMA = Path(__file__).parents[3] / "schemas" / "event.schema.json"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text())
    return jsonschema.Draft202012Validator(schema)


def streamed(records: list[ev.Record]) -> list[str]:
    out = io.StringIO()
    sink = StreamSink(out)
    for record in records:
        sink.handle(record)
    sink.close()
    return out.getvalue().split("\n")[:-1]


def test_a_line_per_record(
    story: list[ev.Record], validator: jsonschema.Draft202012Validator
) -> None:
    lines = streamed(story)
    assert [ev.Record.model_validate_json(line) for line in lines] == story
    for line in lines:
        validator.validate(json.loads(line))


def test_hostile_text_is_escaped(hostile_story: list[ev.Record]) -> None:
    lines = streamed(hostile_story)
    assert [ev.Record.model_validate_json(line) for line in lines] == hostile_story
    for line in lines:
        assert not {"\x1b", "\x9b", "\x85", "\u2028", "\u202e"} & set(line)


def test_every_kind_of_event_is_in_the_story(story: list[ev.Record]) -> None:
    kinds = {record.event.type for record in story}
    every = ev.Event.__subclasses__()
    assert kinds >= {kind.model_fields["type"].default for kind in every}


@pytest.mark.parametrize("file", sorted(STREAMS.glob("*.jsonl")), ids=lambda file: file.stem)
def test_recorded_streams_stay_valid(
    file: Path, validator: jsonschema.Draft202012Validator
) -> None:
    """A field that goes, or changes its meaning, needs a new version of the schema."""
    records: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    for record in records:
        assert record["schema"] == "kaos-runner/event/1"
        validator.validate(record)
        now = json.loads(ev.Record.model_validate(record).line())
        assert covers(now, record), f"{record['event']['type']} has lost something"


def covers(now: Any, then: Any) -> bool:
    """Whether all that was there is there still; new fields may have come."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(k in now and covers(now[k], then[k]) for k in then)
    return bool(now == then)


def test_there_are_recorded_streams() -> None:
    assert list(STREAMS.glob("*.jsonl"))


def test_a_reader_that_leaves_does_not_end_the_run(story: list[ev.Record]) -> None:
    read, write = os.pipe()
    os.close(read)
    pipe = os.fdopen(write, "w", buffering=1)
    sink = StreamSink(pipe)
    for record in story:
        sink.handle(record)
    with pytest.raises(BrokenPipeError):
        pipe.close()
