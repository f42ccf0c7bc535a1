"""Decides a tool call by the recipe's rules: the first that matches wins, none allows."""

from __future__ import annotations

import posixpath
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kaos_runner.recipe.model import ApprovalRule

_SUBJECTS = {
    "shell": "command",
    "read": "path",
    "write": "path",
    "edit": "path",
    "grep": "path",
    "glob": "directory",
    "task": "prompt",
    "fetch": "url",
}
_PATHS = frozenset({"read", "write", "edit", "grep", "glob"})


def subject(tool: str, arguments: Mapping[str, Any], workdir: str, home: str) -> str:
    """What a rule's pattern is held against: the command, or the normalised absolute path."""
    value = arguments.get(_SUBJECTS.get(tool, ""))
    if tool in _PATHS:
        return normalised(value if isinstance(value, str) else ".", workdir, home)
    return value if isinstance(value, str) else ""


def normalised(path: str, workdir: str, home: str) -> str:
    """An absolute path without `.`, `..` and `~`; symbolic links are not resolved."""
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    whole = posixpath.normpath(posixpath.join(workdir, path))
    return "/" + whole.lstrip("/")  # POSIX lets `//etc` be special; no rule should have to know


def first_match(
    rules: Sequence[ApprovalRule], tool: str, subject: str, workdir: str
) -> ApprovalRule | None:
    """The first rule for this call.

    A path in the workdir matches in its relative form too. It is normalised before, so that an
    allowed `src/*` is no way to `src/../../etc`.
    """
    forms = [subject]
    if tool in _PATHS and (subject == workdir or subject.startswith(workdir.rstrip("/") + "/")):
        forms.append(posixpath.relpath(subject, workdir))
    for rule in rules:
        if rule.tool in ("*", tool) and any(fnmatchcase(form, rule.match) for form in forms):
            return rule
    return None


def described(rule: ApprovalRule) -> str:
    """The rule in one line, for events and for the agent."""
    return f"{rule.action} {rule.tool} {rule.match}"
