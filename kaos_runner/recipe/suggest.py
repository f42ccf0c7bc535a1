"""Did you mean: the likeliest of the names that would have been right."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_SYNONYMS = {
    "bash": ("shell", "run"), "sh": ("shell", "run"), "exec": ("shell", "run"), "ls": ("glob",),
    "search": ("grep",), "cmd": ("run",), "command": ("run",), "script": ("run",),
    "exists": ("file",), "commands": ("setup",), "steps": ("prompts",), "tasks": ("prompts",),
    "instructions": ("prompts", "text"), "message": ("text",), "content": ("text",),
    "environment": ("env",), "variables": ("env",), "vars": ("params",), "inputs": ("params",),
    "parameters": ("params",), "container": ("image",), "src": ("from",), "source": ("from",),
    "dest": ("to",), "target": ("to",), "timeout": ("wall",), "max_steps": ("steps",),
    "max_tokens": ("tokens",), "outputs": ("artifacts",), "tests": ("checks",),
    "str": ("string",), "int": ("integer",), "bool": ("boolean",), "float": ("number",),
    "array": ("list",), "required": ("optional",), "key": ("api_key_env",),
    "api_key": ("api_key_env",), "url": ("base_url",),
}  # fmt: skip
"""Words of other tools for what has another name here."""


MAX_KNOWN = 300
"""Names among which a slip is looked for; comparing takes its time."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name that `word` is most likely a slip of."""
    names = list(known)
    folded = word.casefold().replace("-", "_").strip()
    by_fold = {name.casefold().replace("-", "_"): name for name in names}
    if folded in by_fold:
        return by_fold[folded]
    if len(by_fold) > MAX_KNOWN:
        return None
    for synonym in _SYNONYMS.get(folded, ()):
        if synonym in by_fold:
            return by_fold[synonym]
    close = difflib.get_close_matches(folded[:60], by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str | None = None) -> str | None:
    """A hint: the closest name, or the list of names while it is short."""
    names = list(known)
    best = closest(word, names)
    if best:
        return f"did you mean `{best}`?"
    if otherwise is None and 0 < len(names) <= 12:
        return "known: " + ", ".join(f"`{name}`" for name in names)
    return otherwise
