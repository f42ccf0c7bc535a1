"""How numbers, calls and outcomes read: the same words on a terminal, in a report and in CI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kaos_runner.sinks.safe import one_line

if TYPE_CHECKING:
    from kaos_runner.events import CheckFinished, ToolCall

NOT_ISOLATED = "nothing is isolated: commands run as you on this machine"

MEANING = {
    0: "the recipe ran, and everything it demands holds",
    1: "it ran, and a check, an output schema or a required artifact failed",
    2: "wrong usage or an invalid recipe",
    3: "something needed is missing; nothing was started",
    4: "the sandbox failed",
    5: "the agent failed",
    6: "a limit of the recipe was reached",
    7: "all went well, but the sandbox could not be cleaned up",
    70: "a bug of kaos-runner",
    124: "the wall clock limit was reached",
    130: "interrupted (Ctrl-C); cleanup was attempted",
    143: "terminated (SIGTERM); cleanup was attempted",
}

_GIST_KEYS = ("command", "pattern", "path", "description", "url", "query")


def seconds(value: float) -> str:
    """`0.4s`, `12s`, `3m 04s`, `1h 02m`."""
    if value < 10:
        return f"{value:.1f}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def count(value: int) -> str:
    """`950`, `12.3k`, `1.2m`."""
    if value < 1000:
        return str(value)
    if value < 999_950:
        return f"{value / 1000:.1f}k"
    return f"{value / 1_000_000:.1f}m"


def size(value: int) -> str:
    """`17 B`, `1.2 KiB`, `3.0 MiB`."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def plural(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def gist(call: ToolCall, limit: int = 120) -> str:
    """What a tool call is about, on one line: its command, path or pattern."""
    arguments = call.arguments
    if isinstance(arguments, dict):
        for key in _GIST_KEYS:
            if isinstance(arguments.get(key), str):
                return one_line(arguments[key], limit)
        arguments = json.dumps(arguments, ensure_ascii=False)
    return one_line(arguments, limit)


def prompt_name(index: int, prompt_id: str | None) -> str:
    """`prompt 2 (apply)`, counted from 1."""
    return f"prompt {index + 1} ({one_line(prompt_id, 40)})" if prompt_id else f"prompt {index + 1}"


def check_place(check: CheckFinished) -> str:
    """`recipe.yaml:31`, or nothing where the place is not known."""
    if check.file is None:
        return ""
    return one_line(check.file if check.line is None else f"{check.file}:{check.line}", 200)
