"""Mends a conversation that a process left in the middle of a step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_LOST = "<system>ERROR: The run was interrupted before this call's result was known.</system>"


def mend(path: Path) -> int:
    """Make the conversation one that a provider accepts; how many answers it holds.

    The SDK appends line by line: the last line may be half written, and an answer's tool calls may
    be without their results, which providers refuse.
    """
    lines = _whole(path)
    open_calls: list[str] = []
    answers = 0
    for line in lines:
        if line.get("role") == "assistant":
            answers += 1
            open_calls = [call["id"] for call in line.get("tool_calls") or ()]
        elif line.get("role") == "tool" and line.get("tool_call_id") in open_calls:
            open_calls.remove(line["tool_call_id"])
    lines += [{"role": "tool", "content": _LOST, "tool_call_id": call_id} for call_id in open_calls]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    return answers


def _whole(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for line in path.read_text("utf-8", "replace").split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines
