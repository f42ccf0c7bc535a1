"""Words of the recipe language that the command line needs too, without the types' import."""

from __future__ import annotations

from typing import Literal

Cleanup = Literal["always", "on_success", "never"]
ToolName = Literal["shell", "read", "write", "edit", "glob", "grep", "todo", "task", "fetch"]
DEFAULT_TOOLS: tuple[ToolName, ...] = (
    "shell", "read", "write", "edit", "glob", "grep", "todo", "task",
)  # fmt: skip
HOST_TOOLS: frozenset[ToolName] = frozenset({"fetch"})
"""Tools that act on the host or from its network; opt-in."""
