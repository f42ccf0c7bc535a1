"""Checks a composed document: `jsonschema` judges, `faults.py` finds words, `leaves.py` sorts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.faults import Faults
from kaos_runner.recipe.leaves import Leaf, Leaves
from kaos_runner.recipe.validator import Validator

if TYPE_CHECKING:
    from kaos_runner.errors import Problem
    from kaos_runner.recipe.nodes import Node, Path
    from kaos_runner.recipe.validator import Schema


@dataclass(slots=True)
class Checked:
    """What is known of a document by its schema."""

    problems: list[Problem] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    paths: list[Leaf] = field(default_factory=list)
    """Literal paths, `role` being `host` or `work`."""
    shells: set[Path] = field(default_factory=set)


class Checker:
    """A schema, ready to check many documents."""

    def __init__(self, schema: Schema, *, templates: bool = True) -> None:
        self.schema = schema
        self.templates = templates
        self.validator = Validator(schema)
        self.places = _places(schema)

    def check(self, document: Node) -> Checked:
        """All faults of a document, in no order, and its templates and paths."""
        found = Leaves(document, self.validator, templates=self.templates)
        # A template in a literal field is told of as that, whatever else it is not.
        literal = {leaf.path for leaf in found.leaves if leaf.role == "literal"}
        faults = Faults(self.validator, document, literal, self.places)
        faults.take(self.validator.errors(_plain(document, {})))
        leaves = [
            leaf for leaf in found.leaves if leaf.role == "literal" or leaf.path not in faults.told
        ]
        paths = [leaf for leaf in found.paths if leaf.path not in faults.told]
        return Checked(faults.problems, leaves, paths, found.shells)


def _plain(node: Node, known: dict[int, Any]) -> Any:
    """The value as plain data, in which all uses of an anchor are one object."""
    found = known.get(id(node))
    if found is not None:
        return found
    if node.entries is not None:
        found = {key: _plain(each, known) for key, each in node.entries.items()}
    elif node.items is not None:
        found = [_plain(each, known) for each in node.items]
    else:
        return node.value
    known[id(node)] = found
    return found


def _places(schema: Schema) -> dict[str, list[str]]:
    """Each key of the language with the names of the types that have it; "" is the top."""
    found: dict[str, list[str]] = {}
    for name, part in {"": schema, **schema["$defs"]}.items():
        for key in part.get("properties", {}):
            found.setdefault(key, []).append(name)
    return found
