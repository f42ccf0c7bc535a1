"""A session's directory: a new one, or one that a process left in the middle of a step."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

from kaos_runner.errors import AgentError

if TYPE_CHECKING:
    from pathlib import Path

    from kaos_runner.agent.spec import SessionSpec

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_LOST = "<system>ERROR: The run was interrupted before this call's result was known.</system>"


def prepare(spec: SessionSpec) -> tuple[str, int]:
    """The session's directory and id, and how many answers the conversation already holds."""
    spec.session_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    spec.session_dir.chmod(0o700)
    note = spec.session_dir / "session.json"
    if spec.resume is None:
        session_id = str(uuid.uuid4())
        note.write_text(json.dumps({"id": session_id, "workdir": spec.workdir}) + "\n", "utf-8")
        (spec.session_dir / "context.jsonl").unlink(missing_ok=True)
        return session_id, 0
    _check_resumable(spec.resume, note)
    return spec.resume, mend(spec.session_dir / "context.jsonl")


def _check_resumable(session_id: str, note: Path) -> None:
    known = None
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(note.read_text("utf-8")).get("id")
    if not _ID.match(session_id) or known != session_id:
        msg = f"there is no session {session_id[:60]!r} to go on with"
        raise AgentError(msg, hint="`kaos-runner runs` lists the runs and what is left of them")


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
