"""A composed YAML value with its place in the source, and paths into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kaos_runner.errors import Problem

if TYPE_CHECKING:
    from kaos_runner.recipe.scalars import Scalar
    from kaos_runner.recipe.source import Source

Path = tuple[str | int, ...]
"""A place in the document, such as `("prompts", 1, "checks", 0)`."""

MAX_PROBLEMS = 200
"""More of them help nobody, and a hostile recipe could have a hundred thousand."""

KIND_NAMES = {"mapping": "a mapping", "sequence": "a list"}


@dataclass(slots=True, eq=False)
class Node:
    """A value with the span of characters that it was written in."""

    source: Source
    start: int
    end: int
    kind: Literal["scalar", "mapping", "sequence"]
    value: Scalar = None
    """A scalar's; None for the others."""
    style: str | None = None
    """How a scalar is written: None is plain, else `'`, `"`, `|` or `>`."""
    entries: dict[str, Node] | None = None
    keys: dict[str, Key] | None = None
    items: list[Node] | None = None
    broken: bool = False
    """A fault of it is told already; what else is wrong with it follows from that."""
    weight: int = 1
    """How many nodes and characters it stands for with every alias written out."""

    def plain(self) -> Any:
        """The value as plain data."""
        if self.entries is not None:
            return {key: node.plain() for key, node in self.entries.items()}
        if self.items is not None:
            return [node.plain() for node in self.items]
        return self.value

    def child(self, step: str | int) -> Node | None:
        """The value under a key or an index, if there is one."""
        if self.entries is not None and isinstance(step, str):
            return self.entries.get(step)
        if self.items is not None and isinstance(step, int) and 0 <= step < len(self.items):
            return self.items[step]
        return None

    def find(self, path: Path) -> Node | None:
        """The value at a path, if there is one."""
        node: Node | None = self
        for step in path:
            node = node.child(step) if node else None
        return node

    def nearest(self, path: Path) -> Node:
        """The value at a path, or the deepest one on the way to it."""
        node = self
        for step in path:
            below = node.child(step)
            if below is None:
                break
            node = below
        return node

    def text(self, *path: str | int) -> str | None:
        """The string at a path, if one is there."""
        node = self.find(path)
        return node.value if node and isinstance(node.value, str) else None

    @property
    def described(self) -> str:
        """What it is, for a message: `a list`, `text`, `a number`."""
        if self.kind != "scalar":
            return KIND_NAMES[self.kind]
        if self.value is None:
            return "nothing"
        if isinstance(self.value, bool):
            return f"`{str(self.value).lower()}`"
        return "text" if isinstance(self.value, str) else "a number"


@dataclass(slots=True, frozen=True)
class Key:
    """Where a mapping's key is written."""

    source: Source
    start: int
    end: int


def format_path(path: Path) -> str:
    """A path as people write it: `prompts[1].checks[0].run`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier() or step.replace("-", "_").isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text


def problem_at(
    spot: Node | Key,
    message: str,
    *,
    hint: str | None = None,
    path: Path = (),
    warning: bool = False,
    offset: int | None = None,
    length: int | None = None,
) -> Problem:
    """A problem at a value or a key; `offset` is another place in the same file."""
    start = spot.start if offset is None else offset
    line, column = spot.source.line_column(start)
    if length is None:
        written = spot.source.text[start : min(spot.end, start + 1000)]
        length = len(written.splitlines()[0].rstrip()) if written.strip() else 1
    return Problem(
        message=message,
        file=spot.source.label,
        line=line,
        column=column,
        path=format_path(path),
        hint=hint,
        severity="warning" if warning else "error",
        source=spot.source.line(line),
        length=max(length, 1),
    )
