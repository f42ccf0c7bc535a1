"""`extends`: a recipe laid over another, every value keeping its own file and line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.recipe.compose import compose
from kaos_runner.recipe.nodes import Key, Node, problem_at
from kaos_runner.recipe.source import Source, UnreadableError, read_source

if TYPE_CHECKING:
    from kaos_runner.errors import Problem
    from kaos_runner.recipe.trust import Fence

MAX_CHAIN = 16
_MARKS = frozenset({"version", "name", "backend", "prompts", "agent", "extends"})
"""A mapping with one of these keys is taken to be a recipe, and may be quoted."""


class Chain:
    """Reads a recipe and what it extends; collects sources and problems on the way."""

    def __init__(self, fence: Fence) -> None:
        self.fence = fence
        self.sources: list[Source] = []
        self.problems: list[Problem] = []

    def lay(self, document: Node, source: Source) -> Node:
        """The document with everything that it extends laid underneath."""
        trail = [source]
        layers = [document]
        while (below := self._next(layers[-1], trail)) is not None:
            layers.append(below)
        merged = layers[-1]
        for layer in reversed(layers[:-1]):
            merged = _laid_over(layer, merged)
        return _without(merged, "extends") if len(layers) > 1 else merged

    def _next(self, document: Node, trail: list[Source]) -> Node | None:
        spot = document.child("extends")
        if spot is None or not isinstance(spot.value, str) or not spot.value or "{{" in spot.value:
            return None
        here = trail[-1]
        path = here.path.parent / spot.value
        if not self.fence.holds(path):
            self._problem(
                spot,
                f"`{spot.value}` lies outside the recipe's work tree",
                "move it inside, or allow its folder with --allow-path",
            )
            return None
        if len(trail) > MAX_CHAIN:
            self._problem(spot, f"more than {MAX_CHAIN} recipes extend one another")
            return None
        if any(_same_file(path, each.path) for each in trail):
            names = " → ".join([*(each.label for each in trail), _label(here, spot.value)])
            self._problem(spot, f"the recipe extends itself: {names}", "remove one `extends`")
            return None
        return self._read(spot, path, _label(here, spot.value), trail)

    def _read(self, spot: Node, path: Path, label: str, trail: list[Source]) -> Node | None:
        try:
            source = read_source(path, label)
        except UnreadableError as error:
            self._problem(spot, f"`{spot.value}` {error.message}", error.hint)
            return None
        document, problems = compose(source)
        if not is_recipe(document, source):
            self._problem(spot, f"`{spot.value}` is not a recipe")
            return None
        self.problems += problems
        self.sources.append(source)
        trail.append(source)
        return document

    def _problem(self, spot: Node, message: str, hint: str | None = None) -> None:
        self.problems.append(problem_at(spot, message, hint=hint, path=("extends",)))


def is_recipe(document: Node | None, source: Source) -> bool:
    """Whether the text is a recipe, if a faulty one: what is none is never quoted."""
    if document is not None:
        return document.entries is not None and bool(_MARKS & document.entries.keys())
    heads = {line.split(":", 1)[0] for line in source.text.splitlines() if ":" in line}
    return len(_MARKS & heads) >= 2 or "prompts" in heads


def _label(source: Source, relative: str) -> str:
    import os.path

    return os.path.normpath(Path(source.label).parent / relative)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _laid_over(top: Node, under: Node) -> Node:
    """Mappings merge; lists and scalars of the top replace."""
    if top.entries is None or under.entries is None:
        return top
    assert top.keys is not None
    assert under.keys is not None
    entries: dict[str, Node] = {}
    keys: dict[str, Key] = {}
    for name in [*top.entries, *(n for n in under.entries if n not in top.entries)]:
        upper, lower = top.entries.get(name), under.entries.get(name)
        if upper is not None and lower is not None:
            merges = name != "backend" or not _other_backend(upper, lower)
            entries[name] = _laid_over(upper, lower) if merges else upper
        else:
            entries[name] = upper or lower  # type: ignore[assignment]
        keys[name] = top.keys.get(name) or under.keys[name]
    return Node(top.source, top.start, top.end, "mapping", entries=entries, keys=keys)


def _other_backend(top: Node, under: Node) -> bool:
    """Whether the lower one's fields mean nothing to the upper one."""
    one, other = top.text("type"), under.text("type")
    return one is not None and other is not None and one != other


def _without(node: Node, key: str) -> Node:
    assert node.entries is not None
    entries = {name: value for name, value in node.entries.items() if name != key}
    return Node(node.source, node.start, node.end, "mapping", entries=entries, keys=node.keys)
