"""Which branch of a union a value is meant for, by its kind and its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.suggest import closest

if TYPE_CHECKING:
    from kaos_runner.recipe.nodes import Node

type Schema = dict[str, Any]
_CONTAINERS = {"mapping": "object", "sequence": "array"}


def is_union(schema: Schema) -> bool:
    """Whether a schema leaves a choice that no key decides."""
    return "anyOf" in schema and "x-one-of" not in schema


def flat(branches: list[Schema]) -> list[Schema]:
    """The branches of a union, those of its unions among them."""
    found: list[Schema] = []
    for branch in branches:
        found += flat(branch["anyOf"]) if is_union(branch) else [branch]
    return found


def branch_for(branches: list[Schema], node: Node) -> int | None:
    """The first branch of a union that takes mappings, or lists, when the value is one."""
    kind = _CONTAINERS.get(node.kind, "")
    for index, branch in enumerate(branches):
        if any(each.get("type") == kind for each in flat([branch])):
            return index
    return None


def may_be(schema: Schema, node: Node) -> bool:
    """Whether a schema speaks of such a value at all; of scalars only the library can say."""
    kind = _CONTAINERS.get(node.kind)
    return kind is None or schema.get("type", kind) == kind


def tags_in(schema: Schema, node: Node) -> list[str]:
    """The keys of a mapping that name a type of the union."""
    return [tag for tag in schema["x-one-of"] if tag in (node.entries or ())]


def part_for(schema: Schema, node: Node) -> Schema | None:
    """The one type of a union whose key a mapping has, or seems to mean."""
    tags: list[str] = schema["x-one-of"]
    parts: list[Schema] = [part["then"] for part in schema["allOf"]]
    present = tags_in(schema, node)
    if present:
        return parts[tags.index(present[0])] if len(present) == 1 else None
    for key in node.entries or ():
        slip = closest(key, tags)
        if slip is not None:
            return parts[tags.index(slip)]
    known = [len(part["properties"].keys() & (node.entries or {}).keys()) for part in parts]
    best = max(known)
    return parts[known.index(best)] if best and known.count(best) == 1 else None
