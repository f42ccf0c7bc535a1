"""What the leaves of a document are for: templates, expressions, literals, paths, shell text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.unions import branch_for, flat, is_union, may_be, part_for

if TYPE_CHECKING:
    from kaos_runner.recipe.nodes import Node, Path
    from kaos_runner.recipe.validator import Schema, Validator

TEMPLATE_MARKS = ("{{", "{%", "{#")


@dataclass(slots=True)
class Leaf:
    """A string that looks like a template, and what its field takes."""

    path: Path
    node: Node
    role: str
    """`text`: any template; `typed`: one whole expression; `literal`: none."""
    schema: Schema


def is_template(value: Any) -> bool:
    """Whether a value is text with a template's mark in it."""
    return isinstance(value, str) and "{" in value and any(m in value for m in TEMPLATE_MARKS)


class Leaves:
    """A document's leaves; it only follows the schema, whose verdict is the library's."""

    def __init__(self, document: Node, validator: Validator, *, templates: bool) -> None:
        self.validator = validator
        self.templates = templates
        self.leaves: list[Leaf] = []
        self.paths: list[Leaf] = []
        """Literal paths, `role` being `host` or `work`."""
        self.shells: set[Path] = set()
        self._value(validator.schema, document, (), literal=False)

    def _value(self, schema: Schema, node: Node, path: Path, *, literal: bool) -> None:
        if not schema or node.broken or not may_be(schema, node):
            return
        literal = literal or "x-literal" in schema
        if is_union(schema):
            self._union(schema, node, path, literal=literal)
        elif "x-one-of" in schema:
            part = part_for(schema, node) if node.entries is not None else None
            self._value(part or {}, node, path, literal=literal)
        elif node.entries is not None:
            self._mapping(schema, node, path, literal=literal)
        elif node.items is not None:
            self._list(schema, node, path, literal=literal)
        elif isinstance(node.value, str):
            self._text(schema, node, path, literal=literal)

    def _union(self, schema: Schema, node: Node, path: Path, *, literal: bool) -> None:
        branches = flat(schema["anyOf"])
        notes = {key: value for key, value in schema.items() if key.startswith("x-")}
        if node.kind != "scalar":
            chosen = branch_for(branches, node)
            if chosen is not None:
                self._value({**branches[chosen], **notes}, node, path, literal=literal)
            return
        if not isinstance(node.value, str):
            return
        said = any({"x-path", "x-shell"} & part.keys() for part in (schema, *branches))
        if not said and not is_template(node.value):
            return  # nothing hangs on the branch
        literal = literal or any("x-literal" in branch for branch in branches)
        if literal and self._is_template(node):
            self.leaves.append(Leaf(path, node, "literal", schema))
            return
        taken = next((b for b in branches if self.validator.accepts(node.value, b)), None)
        if taken and taken.get("title") == "Expression":
            self.leaves.append(Leaf(path, node, "typed", schema))
        elif taken:
            self._value({**taken, **notes}, node, path, literal=literal)

    def _text(self, schema: Schema, node: Node, path: Path, *, literal: bool) -> None:
        if self._is_template(node):
            self.leaves.append(Leaf(path, node, "literal" if literal else "text", schema))
        elif "x-path" in schema:
            self.paths.append(Leaf(path, node, schema["x-path"], schema))
        if "x-shell" in schema:
            self.shells.add(path)

    def _list(self, schema: Schema, node: Node, path: Path, *, literal: bool) -> None:
        items = schema.get("items")
        for index, item in enumerate(node.items or ()):
            if items:
                self._value(items, item, (*path, index), literal=literal)
            elif literal:
                self._free(item, (*path, index), schema)

    def _mapping(self, schema: Schema, node: Node, path: Path, *, literal: bool) -> None:
        properties = schema.get("properties", {})
        more = schema.get("additionalProperties", True)
        for key, value in (node.entries or {}).items():
            below = (*path, key)
            if key in properties:
                self._value(properties[key], value, below, literal=literal)
            elif key.startswith("x-") and "^x-" in schema.get("patternProperties", ()):
                continue  # free, and no template either
            elif isinstance(more, dict):
                self._value(more, value, below, literal=literal)
            elif literal and more and not properties:
                self._free(value, below, schema)
        self._conditions(schema, node, path, literal=literal)

    def _conditions(self, schema: Schema, node: Node, path: Path, *, literal: bool) -> None:
        parts = schema.get("allOf", ())
        plain = node.plain() if parts else None
        for part in parts:
            if "if" not in part:
                self._value(part, node, path, literal=literal)
            elif self.validator.accepts(plain, part["if"]):
                self._value(part.get("then", {}), node, path, literal=literal)

    def _free(self, node: Node, path: Path, schema: Schema) -> None:
        """Templates in a literal field whose content is free, such as an output's schema."""
        for key, value in (node.entries or {}).items():
            self._free(value, (*path, key), schema)
        for index, item in enumerate(node.items or ()):
            self._free(item, (*path, index), schema)
        if self._is_template(node):
            self.leaves.append(Leaf(path, node, "literal", schema))

    def _is_template(self, node: Node) -> bool:
        return self.templates and is_template(node.value)
