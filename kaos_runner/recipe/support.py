"""What each backend makes of a recipe: honours, emulates or refuses, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.recipe import nodes
    from kaos_runner.recipe.load import Loaded
    from kaos_runner.recipe.nodes import Node

FIELDS = (
    "image", "workdir", "env", "secrets", "network", "files", "setup", "limits", "checks",
    "artifacts", "cleanup",
)  # fmt: skip
"""Fields of the recipe whose meaning lies with the backend."""


def support(loaded: Loaded, only: str | None) -> dict[str, Any]:
    """For each backend, or for one: its verdict, and a row for every field that the recipe uses."""
    from kaos_runner.recipe.schema import installed_schema

    assert loaded.document is not None
    facts = installed_schema()["x-backends"]
    found = {}
    for name, backend in facts.items():
        if only is None or name == only:
            rows = list(_rows(loaded.document, backend))
            refused = any(row["support"] == "refuses" for row in rows)
            found[name] = {"runs": not refused, "fields": rows}
    return found


def _rows(document: Node, backend: dict[str, Any]) -> Iterator[dict[str, str]]:
    told = set()
    for path, feature in sorted(backend["features"].items()):
        if uses(document, path):
            told.add(path.partition(".")[0])
            yield {"field": path, **feature}
    for name in FIELDS:
        if name in told or not uses(document, name):
            continue
        if name == "image" and not backend["defaults"]["has_image"]:
            yield {"field": name, "support": "refuses", "reason": "it has no image"}
        else:
            yield {"field": name, "support": "honours", "reason": ""}


def uses(document: Node, feature: str) -> Node | None:
    """Where a recipe asks for a feature such as `network.allow`, if it does.

    A value that is what one gets anyway, such as an empty list or `allow`, asks for nothing.
    """
    node: Node | None = document
    for step in feature.split("."):
        node = node.child(step) if node else None
    return node if node is not None and _asks(node, feature) else None


def _asks(node: Node, feature: str) -> bool:
    if node.entries is not None:
        return any(_asks(value, f"{feature}.{key}") for key, value in node.entries.items())
    if node.items is not None:
        return bool(node.items)
    return node.value is not None and (feature, node.value) not in _ANYWAY


_ANYWAY = {("network.default", "allow")}


def refusals(document: Node, backend: dict[str, Any]) -> Iterator[tuple[Node, nodes.Path, str]]:
    """Every field that the recipe uses and its backend refuses: the value, its path, the reason."""
    for path, feature in backend["features"].items():
        in_schema = path == "image" and not backend["defaults"]["has_image"]
        if feature["support"] == "refuses" and not in_schema:
            node = uses(document, path)
            if node is not None:
                yield node, tuple(path.split(".")), feature["reason"]


def as_table(found: dict[str, Any]) -> str:
    """The backends' verdicts as a table."""
    rows = [("BACKEND", "FIELD", "SUPPORT", "REASON")]
    for name, backend in found.items():
        rows.append((name, "", "can run it" if backend["runs"] else "cannot run it", ""))
        rows += [("", r["field"], r["support"], r["reason"]) for r in backend["fields"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )
