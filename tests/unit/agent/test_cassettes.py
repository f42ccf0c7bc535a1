"""Cassettes: read with places, played through the real client, recorded, held to their pins."""

from __future__ import annotations

import asyncio
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.agent import Turn, cassette, open_session
from kaos_runner.agent.replay import digest
from kaos_runner.errors import CassetteDriftError, RecipeError

if TYPE_CHECKING:
    from tests.unit.agent.conftest import Desk

WRITE_AND_READ = """
- think: I write it, then I read it.
  tools:
  - {tool: write, args: {path: "${workdir}/a.txt", content: "one\\n"}}
  usage: {input: 50, output: 7, cache_read: 20}
- tools:
  - tool: shell
    args: {command: cat a.txt}
    expect: {ok: true, text: one}
- text: |
    It says one.
"""


def play(desk: Desk, text: str, prompts: int = 1, **given: Any) -> list[Turn]:
    """Play a cassette's turns, with no key and no provider."""
    return play_file(desk, desk.cassette(text), prompts, **given)


def play_file(desk: Desk, path: Path, prompts: int = 1, **given: Any) -> list[Turn]:
    async def main() -> list[Turn]:
        async with open_session(desk.spec(replay=path, **given)) as session:
            return [await session.turn(f"prompt {n}") for n in range(prompts)]

    return asyncio.run(main())


def test_a_cassette_plays(desk: Desk) -> None:
    (turn,) = play(desk, WRITE_AND_READ)
    assert turn == Turn(final_message="It says one.", steps=3, tool_calls=2)
    assert (desk.root / "a.txt").read_text() == "one\n"
    (usage,) = desk.of("usage")
    assert (usage.input, usage.output, usage.cache_read) == (50, 7, 20)


def test_no_proxy_and_no_variable_comes_between(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert play(desk, "- text: hi")[0].final_message == "hi"


def test_a_subagent_s_turns_stand_under_its_call(desk: Desk) -> None:
    text = """
    - tools:
      - tool: task
        args: {description: a, subagent_name: coder, prompt: same}
        turns:
        - tools: [{tool: shell, args: {command: echo a > a.txt}}]
        - text: a is done
        expect: {text: a is done}
      - tool: task
        args: {description: b, subagent_name: coder, prompt: same}
        turns:
        - tools: [{tool: shell, args: {command: echo b > b.txt}}]
        - text: b is done
        expect: {text: b is done}
    - text: both
    """
    (turn,) = play(desk, textwrap.dedent(text))
    assert turn == Turn(final_message="both", steps=6, tool_calls=4)
    assert sorted(p.name for p in desk.root.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (
            "- tools: [{tool: shell, args: {command: echo two}}]",
            "holds 1 turns in `turns`; the agent asks for turn 2",
        ),
        (
            """
- tools: [{tool: shell, args: {command: echo two}, expect: {text: one}}]
- text: never
""",
            "`turns[0].tools[0]` (shell) differs: \n--- cassette\n+++ run\n@@ -1 +1 @@\n-one\n+two",
        ),
        (
            """
- tools: [{tool: shell, args: {command: echo two}, expect: {contains: one}}]
- text: never
""",
            "does not contain 'one', but is:\ntwo",
        ),
        (
            """
- tools: [{tool: shell, args: {command: exit 3}, expect: {ok: true}}]
- text: never
""",
            "it failed, with the output:\nCommand failed with exit code: 3.",
        ),
        (
            f"""
- tools: [{{tool: shell, args: {{command: echo two}}, expect: {{sha256: "{digest("one")}"}}}}]
- text: never
""",
            f"its digest is {digest('two')}",
        ),
        (
            """
- tools:
  - tool: task
    args: {description: a, subagent_name: coder, prompt: p}
    turns: [{tools: [{tool: shell, args: {command: "true"}}]}]
- text: never
""",
            "holds 1 turns in `turns[0].tools[0].turns`; the agent asks for turn 2",
        ),
        (
            """
- text: one
- text: two
- text: three
""",
            "ended after turn 1 of `turns` in the cassette, which holds 3",
        ),
        (
            """
- tools:
  - {tool: task, args: {description: a, subagent_name: nobody, prompt: p}, turns: [{text: x}]}
- text: one
""",
            "ended after turn 0 of `turns[0].tools[0].turns` in the cassette, which holds 1",
        ),
    ],
)
def test_drift(desk: Desk, turns: str, message: str) -> None:
    with pytest.raises(CassetteDriftError) as caught:
        play(desk, turns)
    assert message in caught.value.message
    assert "never" not in [e.text for e in desk.of("text")]


def test_an_exact_digest_and_a_workdir_in_a_result(desk: Desk) -> None:
    play(
        desk,
        f"""
- tools:
  - {{tool: shell, args: {{command: pwd}}, expect: {{text: "${{workdir}}"}}}}
  - {{tool: shell, args: {{command: pwd}}, expect: {{sha256: {digest("${workdir}")}}}}}
- text: ok
""",
    )


def test_a_failure_is_not_hidden_by_turns_that_are_left(desk: Desk) -> None:
    async def main() -> None:
        path = desk.cassette("- text: one\n- text: two\n")
        async with open_session(desk.spec(replay=path)) as session:
            await session.turn("go")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_the_example_of_the_documentation_plays(desk: Desk) -> None:
    page = (Path(__file__).parents[3] / "docs" / "cassettes.md").read_text("utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    path = desk.home / "example.yaml"
    path.write_text(example)
    (turn,) = play_file(desk, path)
    assert turn == Turn(final_message="greeting.txt says hello.", steps=5, tool_calls=4)
    assert (desk.root / "greeting.txt").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("turns: [{text: x}]\n", 1, 1, "`cassette` is missing", "cassette: 1"),
        ("cassette: 2\nturns: [{text: x}]\n", 1, 11, "should be 1", None),
        ("cassette: 1\nturns: []\n", 2, 8, "at least 1 item", None),
        ("cassette: 1\nturns:\n- txt: x\n", 3, 3, "unknown key `txt`", "`text`"),
        ("cassette: 1\nturns: [{tools: [{tool: shel}]}]\n", 2, 25, "`shel`", "`shell`"),
        (
            "cassette: 1\nturns:\n- tools:\n  - {tool: task, turns: [{tools: [{tool: foo}]}]}\n",
            4,
            42,
            "unknown tool `foo`",
            "expect: {ok: false}",
        ),
        ("cassette: 1\nturns:\n- {}\n", 3, 3, "needs `text`", None),
        (
            "cassette: 1\nturns:\n- tools:\n  - tool: shell\n    arg: {}\n",
            5,
            5,
            "unknown key `arg`",
            "`args`",
        ),
        ("cassette: 1\nturns:\n- tools:\n  - args: {}\n", 4, 5, "`tool` is missing", None),
        (
            "cassette: 1\nturns:\n- text: x\n  usage: {input: many}\n",
            4,
            18,
            "valid integer",
            None,
        ),
        ("cassette: 1\nturns:\n- text: [x\n", 3, 9, "", None),
        (
            "cassette: 1\nturns:\n- tools:\n  - {tool: task, turns: [{tools: [{tool: 1}]}]}\n",
            4,
            42,
            "valid string",
            None,
        ),
    ],
)
def test_a_bad_cassette_is_named_with_its_place(
    tmp_path: Path, text: str, line: int, column: int, message: str, hint: str | None
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        cassette.load(path, "bad.yaml")
    found = caught.value.problems[0]
    assert (found.file, found.line, found.column) == ("bad.yaml", line, column)
    assert message in found.message
    assert hint is None or hint in (found.hint or "")
    assert found.source is None


def test_a_cassette_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the cassette"):
        cassette.load(tmp_path / "none.yaml")
