"""The recipe's JSON schema as the `jsonschema` library runs it, with our own `x-` keywords."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.words import within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import ValidationError

type Schema = dict[str, Any]

_UNSAID = frozenset({"description", "default", "patternErrorMessage", "$defs"})
"""What neither the library nor a message needs; each keyword costs at each visit."""
_BY_NAME = frozenset({"properties", "patternProperties", "dependentSchemas"})
_PLAIN = frozenset({"const", "enum", "examples", "required", "dependentRequired"})
"""Their values hold no schemas; nor do those of `x-` keywords."""


class Validator:
    """A schema, ready to validate many documents and parts of them."""

    def __init__(self, schema: Schema) -> None:
        self.schema = inlined(schema)
        self._sound: dict[tuple[int, int], Any] = {}
        self._root = _extended(self._sound)(self.schema)

    def errors(self, document: Any) -> Iterator[ValidationError]:
        """What is wrong with a document, found while it is asked for."""
        self._sound.clear()
        found: Iterator[ValidationError] = self._root.iter_errors(document)
        return found

    def errors_as(self, schema: Schema, value: Any) -> Iterator[ValidationError]:
        """What is wrong with a value for a part of the schema."""
        found: Iterator[ValidationError] = self._root.evolve(schema=schema).iter_errors(value)
        return found

    def accepts(self, value: Any, schema: Schema) -> bool:
        """Whether a part of the schema takes a value."""
        return bool(self._root.evolve(schema=schema).is_valid(value))


def _extended(sound: dict[tuple[int, int], Any]) -> Any:
    """The library's class with our keywords; imported here, where a recipe is checked.

    `sound` keeps the mappings and lists that are found to be right for a part of the schema: an
    alias is judged once, however often it is used. Holding them keeps their ids their own.
    """
    from jsonschema.validators import Draft202012Validator, extend

    own = {"x-minimum": _minimum, "x-maximum": _maximum, "x-one-of": _one_of}
    extended: Any = extend(Draft202012Validator, own)  # type: ignore[no-untyped-call]
    evolve, descend = extended.evolve, extended.descend
    made: dict[int, Any] = {}

    def evolve_once(self: Any, **changes: Any) -> Any:
        """A part's validator, made once: making them is what takes the library longest."""
        part = changes.get("schema", self.schema)
        if id(part) not in made:  # which holds the part
            made[id(part)] = evolve(self, **changes)
        return made[id(part)]

    def descend_once(self: Any, instance: Any, schema: Any, **place: Any) -> Any:
        if not isinstance(instance, dict | list):
            return descend(self, instance, schema, **place)
        if (id(instance), id(schema)) in sound:
            return ()
        return judged(instance, schema, descend(self, instance, schema, **place))

    def judged(value: Any, schema: Any, errors: Any) -> Iterator[ValidationError]:
        right = True
        for error in errors:
            right = False
            yield error
        if right:
            sound[id(value), id(schema)] = value

    extended.evolve, extended.descend = evolve_once, descend_once
    return extended


def _minimum(_: Any, bound: float, value: Any, schema: Schema) -> Iterator[ValidationError]:
    return _bounded({"x-minimum": bound}, value, schema)


def _maximum(_: Any, bound: float, value: Any, schema: Schema) -> Iterator[ValidationError]:
    return _bounded({"x-maximum": bound}, value, schema)


def _bounded(bounds: Schema, value: Any, schema: Schema) -> Iterator[ValidationError]:
    """The bounds of a quantity that is written with its unit."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not within(bounds, schema, value):
        yield ValidationError("out of bounds")


def _one_of(_: Any, tags: list[str], value: Any, __: Schema) -> Iterator[ValidationError]:
    """The keys that tell the types of a union apart exclude each other."""
    from jsonschema import ValidationError

    if isinstance(value, dict) and sum(tag in value for tag in tags) > 1:
        yield ValidationError("more than one type")


def inlined(schema: Schema) -> Schema:
    """The schema with each definition in the place of its references.

    The library looks up a reference at every visit; without any, it runs a third faster. A type
    that holds itself becomes a cycle.
    """
    whole: Schema = _Inliner(schema.get("$defs", {})).part(schema)
    return whole


class _Inliner:
    def __init__(self, definitions: Schema) -> None:
        self.definitions = definitions
        self.done: dict[str, Schema] = {}

    def part(self, part: Any) -> Any:
        """A part of a schema, which may be `true` or `false`."""
        if part is False:
            return {"not": {}}  # the same, but the library tells its errors with their place
        if not isinstance(part, dict):
            return part
        own = {key: self._keyword(key, part[key]) for key in _in_order(part)}
        if "$ref" not in part:
            return own
        target = self._definition(part["$ref"].rpartition("/")[2])
        del own["$ref"]
        if not own:
            return target
        notes = all(key in ("title", "examples") or key.startswith("x-") for key in own)
        # Rules of its own stand beside those of the definition, and do not replace them.
        return {**target, **own} if notes and target else {"allOf": [target], **own}

    def _definition(self, name: str) -> Schema:
        if name not in self.done:
            target = self.done[name] = {}
            target.update(self.part(self.definitions[name]))
        return self.done[name]

    def _keyword(self, key: str, value: Any) -> Any:
        if key in _PLAIN or key.startswith("x-"):
            return value
        if key == "pattern":
            # `$` in JSON schema is the very end; Python's also matches before a last line end.
            return re.sub(r"\$$", r"\\Z", value)
        if key in _BY_NAME:
            return {name: self.part(each) for name, each in value.items()}
        if key == "allOf":
            return [self.part(each) for each in value if each.get("then") != {"properties": {}}]
        if isinstance(value, list):
            return [self.part(each) for each in value]
        return self.part(value) if isinstance(value, dict) else value


def _in_order(part: Schema) -> list[str]:
    """The keywords, those first whose errors make the rest needless."""
    first = [key for key in ("x-one-of", "type") if key in part]
    return [*first, *(key for key in part if key not in _UNSAID and key not in first)]
