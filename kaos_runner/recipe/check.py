"""Checks a composed document against the recipe's JSON schema, with places and words for people.

It walks nodes, not plain values, and understands just the keywords that `schema.py` writes; a test
holds it to the verdict of `jsonschema`. It is here for its messages and for start-up time: the
library's import alone costs more than everything else that `validate` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.nodes import MAX_PROBLEMS, Path, problem_at
from kaos_runner.recipe.suggest import closest, did_you_mean
from kaos_runner.recipe.words import expected, explain_value, hint_of, shown, within

if TYPE_CHECKING:
    from kaos_runner.errors import Problem
    from kaos_runner.recipe.nodes import Node

type Schema = dict[str, Any]
TEMPLATE_MARKS = ("{{", "{%", "{#")
_EXPRESSION = "#/$defs/Expression"


@dataclass(slots=True)
class Leaf:
    """A string that looks like a template, and what its field takes."""

    path: Path
    node: Node
    role: str
    """`text`: any template; `typed`: one whole expression; `literal`: none."""
    schema: Schema


@dataclass(slots=True)
class Checked:
    """What a walk over a document found."""

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
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._resolved: dict[int, Schema] = {}
        self._homes: dict[str, list[str]] | None = None

    def check(self, document: Node) -> Checked:
        """All faults of a document, in no order, and its templates and paths."""
        found = Checked()
        self._value(self.schema, document, (), found, literal=False)
        return found

    def _resolve(self, schema: Schema) -> Schema:
        if "$ref" not in schema:
            return schema
        known = self._resolved.get(id(schema))
        if known is None:
            target = self.schema["$defs"][schema["$ref"].rpartition("/")[2]]
            known = {**self._resolve(target), **{k: v for k, v in schema.items() if k != "$ref"}}
            self._resolved[id(schema)] = known
        return known

    def _accepts(self, schema: Schema, node: Node) -> bool:
        found = Checked()
        self._value(schema, node, (), found, literal=False)
        return not found.problems

    def _value(
        self, schema: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        if not schema or node.broken or len(found.problems) >= MAX_PROBLEMS:
            return
        schema = self._resolve(schema)
        literal = literal or "x-literal" in schema
        if "not" in schema and not self._negated(schema, node, path, found):
            return
        if "anyOf" in schema and "x-one-of" not in schema:
            self._alternatives(schema, node, path, found, literal=literal)
            return
        if not self._kind(schema, node):
            found.problems.append(explain_value(schema, node, path))
            return
        if "x-one-of" in schema:
            self._one_of(schema, node, path, found, literal=literal)
            return
        if node.entries is not None:
            self._mapping(schema, node, path, found, literal=literal)
        elif node.items is not None:
            self._list(schema, node, path, found, literal=literal)
        else:
            self._scalar(schema, node, path, found, literal=literal)
        self._conditions(schema, node, path, found, literal=literal)

    def _negated(self, schema: Schema, node: Node, path: Path, found: Checked) -> bool:
        wrong = self._accepts(schema["not"], node)
        if wrong:
            message = "this is not allowed here"
            found.problems.append(problem_at(node, message, path=path, hint="remove it"))
        return not wrong

    def _kind(self, schema: Schema, node: Node) -> bool:
        kinds = schema.get("type")
        if kinds is None:
            return True
        value = node.value
        if kinds == "object":
            return node.entries is not None
        if kinds == "array":
            return node.items is not None
        if node.kind != "scalar":
            return False
        if kinds == "string":
            return isinstance(value, str)
        if kinds == "boolean":
            return isinstance(value, bool)
        if kinds == "null":
            return value is None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return kinds == "number" or float(value).is_integer() if kinds == "integer" else True

    def _alternatives(
        self, schema: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        branches = [self._resolve(branch) for branch in _flat(self, schema["anyOf"])]
        notes = {k: v for k, v in rest.items() if k.startswith("x-")}
        if node.kind != "scalar":
            for branch in branches:
                if self._kind(branch, node) and "type" in branch:
                    self._value({**branch, **notes}, node, path, found, literal=literal)
                    return
        else:
            for branch in branches:
                if branch.get("title") == "Expression":
                    if self._accepts(branch, node):
                        found.leaves.append(Leaf(path, node, "typed", schema))
                        return
                elif self._kind(branch, node) and self._accepts(branch, node):
                    self._value({**branch, **notes}, node, path, found, literal=literal)
                    return
        found.problems.append(explain_value({**rest, "anyOf": branches}, node, path))

    def _scalar(
        self, schema: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        value = node.value
        # A template in a literal field is told of as that, whatever else it is not.
        if not self._scalar_holds(schema, value) and not (literal and self._is_template(value)):
            found.problems.append(explain_value(schema, node, path))
            return
        if isinstance(value, str):
            if self._is_template(value):
                found.leaves.append(Leaf(path, node, "literal" if literal else "text", schema))
            elif "x-path" in schema:
                found.paths.append(Leaf(path, node, schema["x-path"], schema))
            if "x-shell" in schema:
                found.shells.add(path)

    def _scalar_holds(self, schema: Schema, value: Any) -> bool:
        if "const" in schema and not _same(schema["const"], value):
            return False
        if "enum" in schema and not any(_same(each, value) for each in schema["enum"]):
            return False
        if isinstance(value, str):
            if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
                return False
            if ("x-minimum" in schema or "x-maximum" in schema) and not within(
                schema, schema, value
            ):
                return False
            pattern = schema.get("pattern")
            return pattern is None or bool(self._pattern(pattern).search(value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return schema.get("minimum", value) <= value <= schema.get("maximum", value) and (
                "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"]
            )
        return True

    def _is_template(self, value: Any) -> bool:
        return self.templates and is_template(value)

    def _pattern(self, pattern: str) -> re.Pattern[str]:
        if pattern not in self._patterns:
            # `$` in JSON schema is the very end; Python's also matches before a last line end.
            self._patterns[pattern] = re.compile(re.sub(r"\$$", r"\\Z", pattern))
        return self._patterns[pattern]

    def _list(
        self, schema: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        assert node.items is not None
        if len(node.items) < schema.get("minItems", 0):
            found.problems.append(
                problem_at(node, "the list is empty; it needs at least one entry", path=path)
            )
        if len(node.items) > schema.get("maxItems", len(node.items)):
            message = f"the list takes at most {schema['maxItems']} entries"
            found.problems.append(problem_at(node, message, path=path))
        items = schema.get("items")
        if items:
            for index, item in enumerate(node.items):
                self._value(items, item, (*path, index), found, literal=literal)
        elif literal and self.templates:
            _free_templates(node, path, schema, found)

    def _mapping(
        self, schema: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        assert node.entries is not None
        properties = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        more = schema.get("additionalProperties", True)
        names = schema.get("propertyNames")
        for key, value in node.entries.items():
            if len(found.problems) >= MAX_PROBLEMS:
                return
            below = (*path, key)
            if names is not None:
                self._name(names, node, key, below, found)
            if key in properties:
                self._value(properties[key], value, below, found, literal=literal)
                continue
            if key.startswith("x-") and "^x-" in patterns:
                continue  # free, and no template either
            matched = [
                part for pattern, part in patterns.items() if self._pattern(pattern).search(key)
            ]
            if matched:
                for part in matched:
                    self._value(part, value, below, found, literal=literal)
            elif more is False:
                self._unknown(schema, node, key, below, found)
            elif isinstance(more, dict):
                self._value(more, value, below, found, literal=literal)
            elif literal and not properties and self.templates:
                _free_templates(value, below, schema, found)
        for key in schema.get("required", ()):
            if key not in node.entries and key not in self._meant(schema, node):
                found.problems.append(self._missing(schema, node, key, path))

    def _name(self, schema: Schema, node: Node, key: str, path: Path, found: Checked) -> None:
        schema = self._resolve(schema)
        if not self._scalar_holds(schema, key):
            assert node.keys is not None
            message = f"`{shown(key)}` is not {expected(schema)}"
            hint = hint_of(schema)
            if is_template(key):
                message, hint = "a template has no place in a key", "write the key itself"
            found.problems.append(problem_at(node.keys[key], message, path=path, hint=hint))

    def _meant(self, schema: Schema, node: Node) -> set[str | None]:
        """The known keys that the unknown ones of a mapping are likely slips of."""
        known = schema.get("properties") or self.schema["properties"]
        return {closest(key, known) for key in node.entries or () if key not in known}

    def _missing(self, schema: Schema, node: Node, key: str, path: Path) -> Problem:
        properties = schema.get("properties") or self.schema["properties"]
        part = self._resolve(properties.get(key, {}))
        example = next((e for e in part.get("examples", ()) if isinstance(e, str | int)), None)
        if key == "version":
            example = 1
        hint = f"add `{key}: {example}`" if example is not None else None
        where = "" if path else " from the recipe"
        message = f"the key `{key}` is missing{where}"
        return problem_at(node, message, path=path, hint=hint, length=1)

    def _one_of(
        self, schema: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        """Check a mapping as the one type of a union whose key it has, or seems to mean."""
        assert node.entries is not None
        assert node.keys is not None
        tags: list[str] = schema["x-one-of"]
        parts = [self._resolve(part["then"]) for part in schema["allOf"]]
        present = [index for index, tag in enumerate(tags) if tag in node.entries]
        if len(present) > 1:
            second = max((tags[index] for index in present), key=lambda k: node.keys[k].start)  # type: ignore[index]
            others = " and ".join(f"`{tags[i]}`" for i in present if tags[i] != second)
            message = f"`{second}` cannot stand beside {others}"
            spot, hint = node.keys[second], "write an entry for each"
            found.problems.append(problem_at(spot, message, path=path, hint=hint))
        elif present:
            self._value(parts[present[0]], node, path, found, literal=literal)
        elif (meant := self._likely(tags, parts, node)) is not None:
            self._value(parts[meant], node, path, found, literal=literal)
        else:
            wanted = ", ".join(f"`{tag}`" for tag in tags[:-1]) + f" or `{tags[-1]}`"
            message = f"one of the keys {wanted} is missing"
            found.problems.append(problem_at(node, message, path=path, length=1))

    def _likely(self, tags: list[str], parts: list[Schema], node: Node) -> int | None:
        for key in node.entries or ():
            slip = closest(key, tags)
            if slip is not None:
                return tags.index(slip)
        known = [len(part["properties"].keys() & (node.entries or {}).keys()) for part in parts]
        best = max(known)
        return known.index(best) if best and known.count(best) == 1 else None

    def _unknown(self, schema: Schema, node: Node, key: str, path: Path, found: Checked) -> None:
        assert node.keys is not None
        known = list(schema.get("properties", {}))
        present = [name for name in known if node.entries and name in node.entries]
        hint = did_you_mean(key, [name for name in known if name not in present], otherwise="")
        if not hint:
            homes = self._home_of(key, path)
            hint = f"`{key}` belongs {homes}" if homes else did_you_mean(key, known)
        message = f"unknown key `{shown(key)}`"
        if is_template(key):
            message, hint = "a template has no place in a key", "write the key itself"
        found.problems.append(problem_at(node.keys[key], message, path=path, hint=hint))

    def _home_of(self, key: str, path: Path) -> str | None:
        """Where else in the language a key stands."""
        if self._homes is None:
            self._homes = {}
            places = {"": self.schema, **self.schema["$defs"]}
            for name, part in places.items():
                for each in part.get("properties", {}):
                    self._homes.setdefault(each, []).append(name)
        homes = self._homes.get(key, ())
        backends = [h.removeprefix("backend_") for h in homes if h.startswith("backend_")]
        own = next((_HOMES[home] for home in homes if home in _HOMES), None)
        if backends and (own is None or path[0] == "backend"):
            return "to the backend " + " or ".join(f"`{name}`" for name in backends)
        return own

    def _conditions(
        self, schema: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        for part in schema.get("allOf", ()):
            self._condition(part, node, path, found, literal=literal)
        if "if" in schema:
            self._condition(schema, node, path, found, literal=literal)

    def _condition(
        self, part: Schema, node: Node, path: Path, found: Checked, *, literal: bool
    ) -> None:
        if self._accepts(part["if"], node) and "then" in part:
            self._value(part["then"], node, path, found, literal=literal)


_HOMES = {
    "": "at the top of the recipe", "Agent": "under `agent`", "Limits": "under `limits`",
    "Network": "under `network`", "Model": "under `agent.model`", "Prompt": "in a prompt",
    "RunCheck": "in a check with `run`", "Param": "in a parameter",
}  # fmt: skip


def _flat(checker: Checker, branches: list[Schema]) -> list[Schema]:
    """The branches of a union, those of its unions among them."""
    found: list[Schema] = []
    for branch in branches:
        resolved = checker._resolve(branch)
        if "anyOf" in resolved and "x-one-of" not in resolved:
            found += _flat(checker, resolved["anyOf"])
        else:
            found.append(resolved)
    return found


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def is_template(value: Any) -> bool:
    """Whether a value is text with a template's mark in it."""
    return isinstance(value, str) and "{" in value and any(m in value for m in TEMPLATE_MARKS)


def _free_templates(node: Node, path: Path, schema: Schema, found: Checked) -> None:
    """Templates in a literal field whose content is free, such as an output's schema."""
    if node.entries is not None:
        for key, value in node.entries.items():
            _free_templates(value, (*path, key), schema, found)
    elif node.items is not None:
        for index, item in enumerate(node.items):
            _free_templates(item, (*path, index), schema, found)
    elif is_template(node.value):
        found.leaves.append(Leaf(path, node, "literal", schema))
