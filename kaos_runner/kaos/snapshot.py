"""What one tool call has learnt about paths, kept while it runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kaos_runner.kaos.glob import Tree
from kaos_runner.kaos.probe import Entries, Facts, Item

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kaos_runner.kaos.glob import Pattern

CONTENT_LIMIT = 256 * 1024
"""Bytes: a longer file is not fetched beside its stat, only its beginning."""


@dataclass(slots=True)
class Snapshot:
    """The scope of one tool call: what is known, and what the next request fetches besides."""

    owner: object
    """The Kaos that it belongs to."""
    paths: list[str] = field(default_factory=list)
    """Absolute; fetched with the first request."""
    directories: list[str] = field(default_factory=list)
    """Absolute; listed by the first request, with a stat of each entry."""
    globs: list[tuple[str, Pattern]] = field(default_factory=list)
    """Absolute roots and their patterns; listed by the first request."""
    facts: dict[str, Facts] = field(default_factory=dict)
    listings: dict[str, Entries] = field(default_factory=dict)
    deep: dict[Item, Entries] = field(default_factory=dict)
    trees: dict[tuple[str, Pattern], Tree] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    generation: int = 0
    closed: bool = False
    """A process was started in it, or it is over: nothing is kept any more."""

    def drop(self) -> None:
        """Forget everything that was learnt."""
        self.facts.clear()
        self.listings.clear()
        self.deep.clear()
        self.trees.clear()

    def answers(self, items: Sequence[Item]) -> list[Facts | Entries] | None:
        """What is known of all the items; None where anything is missing."""
        found = [self._answer(item) for item in items]
        known = [answer for answer in found if answer is not None]
        return known if len(known) == len(items) else None

    def _answer(self, item: Item) -> Facts | Entries | None:
        if not item.listing:
            facts = self.facts.get(item.path)
            return facts if facts and facts.link is not None else None
        shallow = item.limit == 1 and item.name == "*"
        return self.listings.get(item.path) if shallow else self.deep.get(item)

    def plan(self, asked: Sequence[Item]) -> list[Item]:
        """The items of the next request: what is asked, and everything planned, each only once."""
        items = [*asked]
        items += [Item(path, limit=CONTENT_LIMIT) for path in self.paths]
        items += [Item(path, listing=True, limit=1) for path in self.directories]
        items += [first_listing(root, pattern) for root, pattern in self.globs]
        self.paths.clear()
        self.directories.clear()
        return list(dict.fromkeys(items))

    def learn(self, items: Sequence[Item], results: Sequence[Facts | Entries]) -> None:
        """Keep what a request has found."""
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Facts):
                self.facts[item.path] = result
            else:
                self._learn_entries(item, result)
        found = dict(zip(items, results, strict=True))
        for root, pattern in self.globs:
            entries = found.get(first_listing(root, pattern))
            if isinstance(entries, Entries):
                self.trees[root, pattern] = tree = Tree()
                tree.add(pattern.prefix, pattern.depth, entries.kinds())
        self.globs.clear()

    def _learn_entries(self, item: Item, entries: Entries) -> None:
        if item.limit == 1 and item.name == "*":
            self.listings[item.path] = entries
        else:
            self.deep[item] = entries
        base = item.path.rstrip("/")
        for name, link in entries.stats.items():
            if entries.is_broken_link(name):
                continue  # the reason is not known
            target = entries.target_stats.get(name, link)
            self.facts.setdefault(f"{base}/{name}", Facts(target=target, link=link))


def first_listing(root: str, pattern: Pattern) -> Item:
    """The listing that answers a glob, unless symlinks to directories lead out of it."""
    path = f"{root.rstrip('/')}/{pattern.prefix}" if pattern.prefix else root
    return Item(path, listing=True, limit=pattern.depth, name=pattern.last_name)
