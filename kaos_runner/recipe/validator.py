"""The recipe's JSON schema as the `jsonschema` library runs it, with our own `x-` keywords."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.words import within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import ValidationError

type Schema = dict[str, Any]

_UNSAID = frozenset({"description", "default", "patternErrorMessage", "$defs"})
"""What neither the library nor a message needs; each keyword costs at each visit."""
_BY_NAME = frozenset({"properties", "patternProperties"})
_PLAIN = frozenset({"const", "enum", "examples", "required", "x-backends", "x-one-of"})


class Validator:
    """A schema, ready to validate many documents and parts of them."""

    def __init__(self, schema: Schema) -> None:
        self.schema = inlined(schema)
        self._class = _extended()
        self._ready: dict[int, Any] = {}

    def errors(self, value: Any, schema: Schema | None = None) -> Iterator[ValidationError]:
        """What is wrong with a value, found while it is asked for; `schema` is a part of ours."""
        found: Iterator[ValidationError] = self._for(schema).iter_errors(value)
        return found

    def accepts(self, value: Any, schema: Schema) -> bool:
        """Whether a part of the schema takes a value."""
        return bool(self._for(schema).is_valid(value))

    def _for(self, schema: Schema | None) -> Any:
        part = self.schema if schema is None else schema
        known = self._ready.get(id(part))
        if known is None:
            known = self._ready[id(part)] = self._class(part)
        return known


@cache
def _extended() -> Any:
    """The library's class; imported here, where the first recipe is checked."""
    from jsonschema.validators import Draft202012Validator, extend

    return extend(
        Draft202012Validator,
        {"x-minimum": _minimum, "x-maximum": _maximum, "x-one-of": _one_of},
    )


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
    return _Inliner(schema.get("$defs", {})).part(schema)


class _Inliner:
    def __init__(self, definitions: Schema) -> None:
        self.definitions = definitions
        self.done: dict[str, Schema] = {}

    def part(self, part: Any) -> Any:
        """A part of a schema, which may be `true` or `false`."""
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
        if key in _PLAIN:
            return value
        if key == "pattern":
            # `$` in JSON schema is the very end; Python's also matches before a last line end.
            return re.sub(r"\$$", r"\\Z", value)
        if key in _BY_NAME:
            return {name: self.part(each) for name, each in value.items()}
        if key == "allOf":
            return [self.part(each) for each in value if each.get("then") != {"properties": {}}]
        return [self.part(each) for each in value] if isinstance(value, list) else self.part(value)


def _in_order(part: Schema) -> list[str]:
    """The keywords, those first whose errors make the rest needless."""
    first = [key for key in ("x-one-of", "type") if key in part]
    return [*first, *(key for key in part if key not in _UNSAID and key not in first)]
