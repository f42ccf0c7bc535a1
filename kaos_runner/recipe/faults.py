"""Says in words, with a place, what `jsonschema` found wrong with a document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.leaves import is_template
from kaos_runner.recipe.nodes import MAX_PROBLEMS, problem_at
from kaos_runner.recipe.suggest import closest, did_you_mean
from kaos_runner.recipe.unions import branch_for, flat, is_union, part_for, tags_in
from kaos_runner.recipe.words import expected, explain_value, hint_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jsonschema import ValidationError

    from kaos_runner.errors import Problem
    from kaos_runner.recipe.nodes import Key, Node, Path
    from kaos_runner.recipe.validator import Schema, Validator

_HOMES = {
    "": "at the top of the recipe", "Agent": "under `agent`", "Limits": "under `limits`",
    "Network": "under `network`", "Model": "under `agent.model`", "Prompt": "in a prompt",
    "RunCheck": "in a check with `run`", "Param": "in a parameter",
}  # fmt: skip
_OF_VALUES = frozenset({
    "type", "enum", "const", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "x-minimum", "x-maximum",
})  # fmt: skip


class Faults:
    """The problems of one document."""

    def __init__(
        self, validator: Validator, document: Node, literal: set[Path], places: dict[str, list[str]]
    ) -> None:
        self.validator = validator
        self.document = document
        self.places = places
        """Each key of the language with the names of the types that have it."""
        self.problems: list[Problem] = []
        self.told = set(literal)
        """The values of which enough is said, a literal's template among them."""
        self._seen: set[tuple[Any, ...]] = set()
        self._closed: set[Path] = set()
        """What is wrong below is no news."""

    def take(self, errors: Iterable[ValidationError], base: Path = ()) -> None:
        """Add the library's errors about the value at a path, until there are enough."""
        for error in errors:
            if len(self.problems) >= MAX_PROBLEMS:
                return
            path = (*base, *error.absolute_path)
            node = self._open(path)
            if node is not None:
                self._tell(error, node, path, base)

    def _open(self, path: Path) -> Node | None:
        """The value at a path; None when a fault of it, or of one above it, is told already."""
        node = self.document
        for depth in range(len(path) + 1):
            if node.broken or path[:depth] in self._closed:
                return None
            if depth < len(path):
                below = node.child(path[depth])
                if below is None:
                    return None
                node = below
        return node

    def _tell(self, error: ValidationError, node: Node, path: Path, base: Path) -> None:
        schema: Any = error.schema if isinstance(error.schema, dict) else {}
        if node.entries is not None and isinstance(error.instance, str):
            self._name(schema, node, error.instance, path)
        elif error.validator == "anyOf":
            self._alternatives(error, node, path, base)
        elif error.validator == "x-one-of":
            self._too_many(schema, node, path)
        elif error.validator == "additionalProperties":
            self._unknown(schema, node, path)
        elif error.validator == "required":
            self._missing(schema, node, path)
        elif error.validator == "minItems":
            self._add(node, "the list is empty; it needs at least one entry", path)
        elif error.validator == "maxItems":
            self._add(node, f"the list takes at most {schema['maxItems']} entries", path)
        elif error.validator in ("not", None):  # None: the schema is `false`
            self._add(node, "this is not allowed here", path, hint="remove it")
        elif error.validator in _OF_VALUES:
            self._value(schema, node, path)
        else:  # only a third party's backend can get here
            self._add(node, error.message[:120], path)

    def _add(
        self,
        spot: Node | Key,
        message: str,
        path: Path,
        *,
        hint: str | None = None,
        length: int | None = None,
    ) -> None:
        if (path, message) not in self._seen:
            self._seen.add((path, message))
            self.problems.append(problem_at(spot, message, path=path, hint=hint, length=length))

    def _value(self, schema: Schema, node: Node, path: Path) -> None:
        """One problem for a value, whatever else it is not; a backend's reason is one more."""
        why = "errorMessage" in schema
        if path in self.told and (not why or (path, "why") in self._seen):
            return
        self.told.add(path)
        if why:
            self._seen.add((path, "why"))
        self.problems.append(explain_value(schema, node, path))

    def _alternatives(self, error: ValidationError, node: Node, path: Path, base: Path) -> None:
        schema: Any = error.schema
        if not is_union(schema):
            self._untagged(schema, node, path)
            return
        chosen = branch_for(schema["anyOf"], node)
        if chosen is None:
            self._value({**schema, "anyOf": flat(schema["anyOf"])}, node, path)
            return
        self.take((e for e in error.context or () if e.relative_schema_path[0] == chosen), base)

    def _untagged(self, schema: Schema, node: Node, path: Path) -> None:
        """A mapping without any key that tells its type: as the type it seems to mean."""
        part = part_for(schema, node)
        if part is not None:
            self.take(self.validator.errors_as(part, node.plain()), path)
            return
        tags = schema["x-one-of"]
        wanted = ", ".join(f"`{tag}`" for tag in tags[:-1]) + f" or `{tags[-1]}`"
        self._add(node, f"one of the keys {wanted} is missing", path, length=1)

    def _too_many(self, schema: Schema, node: Node, path: Path) -> None:
        assert node.keys is not None
        keys = node.keys
        present = tags_in(schema, node)
        second = max(present, key=lambda tag: keys[tag].start)
        others = " and ".join(f"`{tag}`" for tag in present if tag != second)
        message = f"`{second}` cannot stand beside {others}"
        self._add(keys[second], message, path, hint="write an entry for each")
        self._closed.add(path)

    def _name(self, schema: Schema, node: Node, key: str, path: Path) -> None:
        assert node.keys is not None
        message, hint = f"`{shown(key)}` is not {expected(schema)}", hint_of(schema)
        if is_template(key):
            message, hint = "a template has no place in a key", "write the key itself"
        self._add(node.keys[key], message, (*path, key), hint=hint)

    def _missing(self, schema: Schema, node: Node, path: Path) -> None:
        properties = schema.get("properties") or self.validator.schema["properties"]
        # A key that is there with a slip is told of as unknown.
        meant = {closest(key, properties) for key in node.entries or () if key not in properties}
        if not path and "extends" in meant:
            return
        for key in schema["required"]:
            if key in (node.entries or ()) or key in meant:
                continue
            part = properties.get(key, {})
            example = next((e for e in part.get("examples", ()) if isinstance(e, str | int)), None)
            if key == "version":
                example = 1
            hint = f"add `{key}: {example}`" if example is not None else None
            where = "" if path else " from the recipe"
            message = f"the key `{key}` is missing{where}"
            self._add(node, message, path, hint=hint, length=1)

    def _unknown(self, schema: Schema, node: Node, path: Path) -> None:
        assert node.keys is not None
        known = list(schema.get("properties", {}))
        free = schema.get("patternProperties", {})
        present = [name for name in known if name in node.keys]
        absent = [name for name in known if name not in node.keys]
        for key in node.keys:
            if len(self.problems) >= MAX_PROBLEMS:
                return
            if key in present or any(re.search(pattern, key) for pattern in free):
                continue
            message = f"unknown key `{shown(key)}`"
            hint = did_you_mean(key, absent, otherwise="")
            if not hint:
                home = self._home_of(key, path)
                hint = f"`{key}` belongs {home}" if home else did_you_mean(key, known)
            if is_template(key):
                message, hint = "a template has no place in a key", "write the key itself"
            self._add(node.keys[key], message, (*path, key), hint=hint)

    def _home_of(self, key: str, path: Path) -> str | None:
        """Where else in the language a key stands."""
        homes = self.places.get(key, ())
        backends = [h.removeprefix("backend_") for h in homes if h.startswith("backend_")]
        own = next((_HOMES[home] for home in homes if home in _HOMES), None)
        if backends and (own is None or path[:1] == ("backend",)):
            return "to the backend " + " or ".join(f"`{name}`" for name in backends)
        return own
