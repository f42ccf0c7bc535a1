"""Recordings: what the model really said, as a cassette that plays to the same events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kaos_runner.agent import cassette, open_session
from kaos_runner.errors import UsageError
from tests.unit.agent.conftest import new_desk
from tests.unit.agent.test_cassettes import play_file
from tests.unit.agent.upstream import Reply, call, scripted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.conftest import Desk


def _comparable(desk: Desk) -> list[dict[str, Any]]:
    events = []
    for event in desk.events:
        record = event.model_dump()
        if "seconds" in record:
            record["seconds"] = 0
        events.append(_relative(record, str(desk.root)))
    return events


def _relative(value: Any, root: str) -> Any:
    if isinstance(value, str):
        return value.replace(root, "ROOT")
    if isinstance(value, dict):
        return {k: _relative(v, root) for k, v in value.items()}
    return [_relative(v, root) for v in value] if isinstance(value, list) else value


def test_a_recording_replays_to_the_same_events(tmp_path: Path) -> None:
    first, second, third = (new_desk(tmp_path / name) for name in ("first", "second", "third"))
    task = call("Task", description="d", subagent_name="coder", prompt="p")
    replies = [
        Reply(
            think="Hm.",
            text=["I wri", "te."],
            calls=(call("Shell", command="echo $0 | tee a; pwd"),),
        ),
        Reply(calls=(call("ReadFile", path=f"{first.root}/a"),), usage=(90, 9, 60)),
        Reply(calls=(call("Nonsense"),)),
        Reply(calls=(("Shell", "{broken"),)),
        Reply(calls=(task,)),
        Reply(calls=(call("Grep", pattern="b", path=str(first.root), output_mode="content"),)),
        Reply(text="sub:\n  done\n\n", usage=(5, 5, 0)),
        Reply(text="Literally ${workdir}, on\nlines  \nwith: colons # and\ttabs", usage=None),
        Reply(text="second prompt"),
    ]
    recorded, again = tmp_path / "recorded.yaml", tmp_path / "again.yaml"

    async def record() -> None:
        async with scripted(replies) as upstream:
            spec = first.spec(provider=upstream.provider, record=recorded)
            async with open_session(spec) as session:
                await session.turn("prompt 0")
                await session.turn("prompt 1")

    asyncio.run(record())
    play_file(second, recorded, 2, record=again)
    play_file(third, again, 2)
    assert _comparable(first) == _comparable(second) == _comparable(third)
    assert recorded.read_text() == again.read_text()
    assert str(tmp_path) not in recorded.read_text()
    assert "${workdir}/a" in recorded.read_text()
    assert "think: Hm." in recorded.read_text()


def test_a_recording_holds_no_secret(desk: Desk) -> None:
    record = desk.home / "recorded.yaml"
    replies = [
        Reply(calls=(call("Shell", command="echo hunter22 > a"),), text=["hun", "ter22"]),
        Reply(think="hunter22", text="ok"),
    ]

    async def main() -> None:
        async with scripted(replies) as upstream:
            spec = desk.spec(
                provider=upstream.provider,
                record=record,
                mask=lambda text: text.replace("hunter22", "***"),
            )
            async with open_session(spec) as session:
                await session.turn("go")

    asyncio.run(main())
    assert "hunter" not in record.read_text()
    assert record.read_text().count("***") == 3


def test_a_recording_is_yaml_for_people(desk: Desk) -> None:
    record = desk.home / "recorded.yaml"

    async def main() -> None:
        script = "set -e\nfor f in *; do\n  echo $f\ndone\n"
        replies = [Reply(calls=(call("Shell", command=script),)), Reply(text="ok")]
        async with desk.opened(replies, record=record) as (_, s):
            await s.turn("go")

    asyncio.run(main())
    text = record.read_text()
    assert "      command: |\n        set -e\n        for f in *; do\n" in text
    assert text.startswith("cassette: 1\nmodel: scripted\nturns:\n")
    assert cassette.load(record).model == "scripted"
    assert yaml.safe_load(text)["turns"][0]["tools"][0]["expect"] == {"ok": True}


@pytest.mark.parametrize("place", ["file/x.yaml", "."])
def test_a_place_that_cannot_be_written_is_found_first(desk: Desk, place: str) -> None:
    (desk.home / "file").touch()

    async def main() -> None:
        async with open_session(desk.spec(record=desk.home / place)):
            pass

    with pytest.raises(UsageError, match="cannot be written"):
        asyncio.run(main())
    assert desk.transport.ran == []


def test_a_recording_that_cannot_be_written_in_the_end_is_said(desk: Desk) -> None:
    async def main() -> None:
        record = desk.home / "gone" / "x.yaml"
        async with desk.opened([Reply(text="ok")], record=record) as (_, session):
            record.parent.rmdir()
            await session.turn("go")

    asyncio.run(main())
    assert {(e.level, "not written" in e.message) for e in desk.of("notice")} == {("error", True)}
