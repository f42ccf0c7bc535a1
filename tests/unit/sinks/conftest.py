"""Records to feed to sinks: one run with everything in it, and what a hostile tool would say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kaos_runner import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RUN_ID = "20261123-085959-4f3a2c"
BEGAN = datetime(2026, 11, 23, 8, 59, 59, tzinfo=UTC)


def _stamp(events: Iterable[ev.AnyEvent]) -> list[ev.Record]:
    return [
        ev.Record(run_id=RUN_ID, seq=number, at=BEGAN + timedelta(seconds=number), event=event)
        for number, event in enumerate(events, start=1)
    ]


@pytest.fixture
def stamp() -> Callable[[Iterable[ev.AnyEvent]], list[ev.Record]]:
    """Makes records of events, one second apart."""
    return _stamp


@pytest.fixture
def started() -> ev.RunStarted:
    """How every run here begins."""
    return ev.RunStarted(
        recipe="tidy",
        recipe_file="recipes/tidy.yaml",
        recipe_digest="d" * 64,
        backend="local",
        isolation="none",
        workdir=None,
        model="scripted",
        replay=True,
        prompts=2,
        run_dir="/somewhere/.kaos-runner/runs/" + RUN_ID,
    )


@pytest.fixture
def story(started: ev.RunStarted) -> list[ev.Record]:
    """A run whose second check failed, with every kind of event in it."""
    patch_stat = " a.py | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)"
    place = {"file": "recipes/tidy.yaml", "column": 5}
    return _stamp([
        started,
        ev.PhaseStarted(phase="sandbox"),
        ev.Retry(operation="create", attempt=1, reason="503", wait_seconds=2),
        ev.SandboxReady(backend="local", sandbox_id="box-1", created=True, workdir="/w"),
        ev.PhaseFinished(phase="sandbox", seconds=2.5, ok=True),
        ev.PhaseStarted(phase="workspace"),
        ev.SetupFinished(command="git init -q", exit_code=0, output="hint: main", seconds=0.1),
        ev.PhaseFinished(phase="workspace", seconds=0.2, ok=True),
        ev.PhaseStarted(phase="prompts"),
        ev.TurnStarted(prompt=0, prompt_id="fix", attempt=1, text="Find the bug\nand fix it."),
        ev.StepStarted(step=1),
        ev.Think(text="A bug, "),
        ev.Think(text="surely."),
        ev.Text(text="I look "),
        ev.Text(text="around."),
        ev.ToolCall(call=1, tool="Shell", arguments={"command": "python3 -m unittest -q"}),
        ev.ToolCall(call=2, tool="ReadFile", arguments={"path": "a.py"}),
        ev.Approval(call=2, tool="ReadFile", decision="allow", by="rule", rule="read *"),
        ev.ToolResult(call=2, tool="ReadFile", ok=True, output="x = 1", seconds=0.04),
        ev.ToolResult(
            call=1, tool="Shell", ok=False, seconds=12.2,
            output="\n".join(f"line {number}" for number in range(1, 11)),
        ),
        ev.Usage(input=12_300, output=200, cache_read=10_000, cache_write=0),
        ev.Text(text="Done."),
        ev.TurnFinished(
            prompt=0, prompt_id="fix", attempt=1, final_message="Done.", steps=1, tool_calls=2
        ),
        ev.CheckFinished(
            name="tests", kind="run", prompt=0, attempt=1, ok=True, detail="OK", seconds=0.3,
            line=12, **place,
        ),
        ev.PromptFinished(
            prompt=0, prompt_id="fix", status="succeeded", attempts=1, final_message="Done."
        ),
        ev.TurnStarted(prompt=1, prompt_id=None, attempt=1, text="Write PLAN.md."),
        ev.StepStarted(step=2),
        ev.Usage(input=700, output=50, cache_read=0, cache_write=0),
        ev.Text(text="The plan is made.\n\nIt is short."),
        ev.TurnFinished(
            prompt=1, prompt_id=None, attempt=1, steps=1, tool_calls=0,
            final_message="The plan is made.\n\nIt is short.",
        ),
        ev.PromptFinished(
            prompt=1, prompt_id=None, status="succeeded", attempts=1,
            final_message="The plan is made.\n\nIt is short.",
        ),
        ev.PhaseFinished(phase="prompts", seconds=20, ok=True),
        ev.PhaseStarted(phase="checks"),
        ev.CheckFinished(
            name="file PLAN.md", kind="file", prompt=None, attempt=1, ok=False, seconds=0.01,
            detail="PLAN.md does not exist", line=31, **place,
        ),
        ev.PhaseFinished(phase="checks", seconds=0.1, ok=True),
        ev.PhaseStarted(phase="artifacts"),
        ev.ArtifactCollected(
            name="change.patch", kind="patch", ok=True, required=True, size=1234,
            sha256="a" * 64, detail=patch_stat,
        ),
        ev.ArtifactCollected(
            name="PLAN.md", kind="path", ok=False, required=False, detail="no such file"
        ),
        ev.PhaseFinished(phase="artifacts", seconds=0.1, ok=True),
        ev.Notice(level="warning", message="the model was slow", hint="take another"),
        ev.SandboxEnded(
            sandbox_id="box-1", end="kept", reason="cleanup: on_success",
            command="kaos-runner shell box-1",
        ),
        ev.RunFinished(
            status="failed", exit_code=1, message="check failed: file PLAN.md",
            hint="see the record", seconds=25.5, steps=2, input_tokens=13_000, output_tokens=250,
        ),
    ])  # fmt: skip


HOSTILE = (
    "::set-output name=conclusion::success\n"
    "  ::add-mask::a\n"
    "\t::stop-commands::token\n"
    "x ##[add-path]/evil\r::error::gone\r\n"
    "\x0b::debug::a\n\x85::debug::b\n\u2028::debug::c\n\xa0::debug::d\n"
    "EOF\nghadelimiter\n"
    "```\n# A heading of mine\n<script>alert(1)</script> ![x](https://evil.example/x)\n"
    "~~~\n| a | b |\n"
    "\x1b]0;title\x07\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\\x1b[2J\x1b[31mred\x9b1m"
    "\u202eevil\u2066\u200b\x00\x08\x7f\ud800 $(touch pwned) `touch pwned` ${{ secrets.X }} ]]> &"
)


@pytest.fixture
def hostile() -> str:
    """What a tool, a model or a file name may say to harm who reads it."""
    return HOSTILE.replace("\ud800", "")  # no event can hold half a pair


@pytest.fixture
def hostile_story(started: ev.RunStarted, hostile: str) -> list[ev.Record]:
    """A run in which every free text is hostile."""
    begun = started.model_copy(
        update={"recipe": hostile, "model": hostile, "prompts": 1, "recipe_file": hostile}
    )
    return _stamp([
        begun,
        ev.Notice(level="error", message=hostile, hint=hostile),
        ev.Retry(operation=hostile, attempt=1, reason=hostile, wait_seconds=1),
        ev.SandboxReady(backend=hostile, sandbox_id=hostile, created=True, workdir=hostile),
        ev.SetupFinished(command=hostile, exit_code=1, output=hostile, seconds=1),
        ev.TurnStarted(prompt=0, prompt_id=hostile, attempt=2, text=hostile),
        ev.Think(text=hostile),
        ev.Text(text=hostile),
        ev.ToolCall(call=1, tool=hostile, arguments=hostile),
        ev.ToolCall(call=2, tool="Shell", arguments={"command": hostile}),
        ev.ToolCall(call=3, tool="Other", arguments={hostile: hostile}),
        ev.Approval(call=1, tool=hostile, decision="deny", by="rule", rule=hostile),
        ev.ToolResult(call=2, tool="Shell", ok=False, output=hostile, seconds=1),
        ev.TurnFinished(
            prompt=0, prompt_id=hostile, attempt=2, final_message=hostile, steps=1, tool_calls=3
        ),
        ev.CheckFinished(
            name=hostile, kind="run", prompt=0, ok=False, detail=hostile, seconds=1,
            file=hostile, line=3, column=1,
        ),
        ev.PromptFinished(
            prompt=0, prompt_id=hostile, status="failed", attempts=2, final_message=hostile
        ),
        ev.ArtifactCollected(
            name=hostile, kind="patch", ok=True, required=True, size=3, detail=hostile
        ),
        ev.ArtifactCollected(name=hostile, kind="path", ok=False, required=True, detail=hostile),
        ev.SandboxEnded(sandbox_id=hostile, end="failed", reason=hostile, command=hostile),
        ev.RunFinished(
            status="failed", exit_code=1, message=hostile, hint=hostile, seconds=1, steps=1,
            input_tokens=1, output_tokens=1,
        ),
    ])  # fmt: skip
