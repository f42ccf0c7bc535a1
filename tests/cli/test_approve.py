"""A person at the terminal is asked, and their word decides."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import CommandLine, says, shell

if TYPE_CHECKING:
    from pathlib import Path


def on_terminal(cli: CommandLine, recipe: Path, answer: str) -> str:
    """What a terminal shows while a run asks and gets an answer."""
    main, terminal = pty.openpty()
    environ = {k: v for k, v in cli.environ.items() if k != "CI"} | {"TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "kaos_runner", str(recipe)],
        cwd=cli.folder, env=environ, stdin=terminal, stdout=terminal, stderr=terminal,
    ):  # fmt: skip
        os.close(terminal)
        seen, answered, deadline = b"", False, time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                seen += os.read(main, 65536)
            except OSError:
                break  # nobody has the terminal open any more
            if not answered and b"[y/N] " in seen:
                os.write(main, answer.encode() + b"\n")
                answered = True
    os.close(main)
    return seen.decode()


@pytest.mark.parametrize(("answer", "decision"), [("y", "allow"), ("", "deny"), ("what", "deny")])
def test_the_answer_decides(cli: CommandLine, answer: str, decision: str) -> None:
    recipe = cli.recipe(
        [shell("touch made"), says("Done.")],
        agent={
            "model": {"replay": "cassette.yaml"},
            "approvals": [{"tool": "shell", "match": "touch *", "action": "ask"}],
        },
        artifacts=[{"path": "made", "optional": True}],
    )
    seen = on_terminal(cli, recipe, answer)
    question = seen.index("allow shell: touch made? [y/N]")
    assert "\x1b[?25h" in seen[:question].rpartition("\x1b[?25l")[2], "the live view goes on"
    (run_dir,) = (cli.folder / ".kaos-runner" / "runs").iterdir()
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    decided = [(e["decision"], e["by"]) for e in events if e["type"] == "approval"]
    assert decided == [(decision, "person")]
    assert (run_dir / "artifacts" / "made").exists() == (decision == "allow")
