"""The JSON schema of a recipe as it is written, from the types and the registered backends."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.quantities import (
    COUNT_PATTERN,
    DURATION_PATTERN,
    SIZE_PATTERN,
    write_duration,
    write_size,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILTIN_BACKENDS = ("boxlite", "e2b", "local", "sprites")
"""Ours: what the committed schema holds. A third party's are added where they are installed."""

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
EXPRESSION = {
    "title": "Expression",
    "description": "One whole template expression, whose value keeps its type.",
    "type": "string",
    "pattern": r"^\s*\{\{[\s\S]*\}\}\s*$",
}
EXTENDS = {
    "title": "Extends",
    "description": "Another recipe, relative to this one, that this one is laid over: "
    "mappings merge, lists and everything else replace.",
    "type": "string",
    "minLength": 1,
    "examples": ["base.yaml"],
    "x-literal": True,
    "x-path": "host",
}
FREE_KEYS = {"^x-": {"description": "Free for your own use."}}

type Schema = dict[str, Any]


def data_folder(name: str) -> Path:
    """Where `schemas` or `recipes` lie: in the wheel, or beside the package in a checkout."""
    packaged = Path(__file__).parent.parent / "_data" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / name


@cache
def committed_schema() -> Schema:
    """The schema that ships with us: recipes on our own backends need no other."""
    text = (data_folder("schemas") / "recipe.schema.json").read_text(encoding="utf-8")
    schema: Schema = json.loads(text)
    return schema


@cache
def installed_schema() -> Schema:
    """The schema with every backend that is installed here, third parties' included."""
    from kaos_runner.recipe.registry import backend_classes

    return recipe_schema(backend_classes())


def recipe_schema(backends: Mapping[str, Any]) -> Schema:
    """The whole schema, with the given backends' own fields under their tags."""
    from kaos_runner.recipe.model import Recipe

    raw = Recipe.model_json_schema(by_alias=True)
    definitions: Schema = raw.pop("$defs")
    del definitions["BackendConfig"]
    for name, backend in backends.items():
        definitions |= _backend_definitions(name, backend)
    used: Schema = {"Expression": EXPRESSION}
    used |= {name: _definition(part) for name, part in definitions.items() if name not in _UNITS}
    body = _definition(raw)
    return _ordered(body, used, backends)


def _ordered(body: Schema, definitions: Schema, backends: Mapping[str, Any]) -> Schema:
    properties = body["properties"]
    properties = {
        "version": properties.pop("version"),
        "name": properties.pop("name"),
        "extends": EXTENDS,
        **properties,
    }
    properties["backend"] = _backend_property(properties["backend"], backends)
    return {
        "$schema": SCHEMA_ID,
        "title": "kaos-runner recipe",
        "description": body["description"],
        "type": "object",
        "properties": properties,
        "patternProperties": FREE_KEYS,
        "additionalProperties": False,
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": body["required"]},
        "allOf": [_per_backend(name, backend) for name, backend in backends.items()],
        "x-backends": {name: _facts(backend) for name, backend in backends.items()},
        "$defs": dict(sorted(definitions.items())),
    }


def _facts(backend: Any) -> Schema:
    """What the loader must know of a backend without importing it."""
    return {
        "defaults": {
            "workdir": backend.defaults.workdir,
            "image": backend.defaults.image,
            "has_image": backend.defaults.has_image,
            "cleanup": backend.defaults.cleanup,
        },
        "features": {
            path: {"support": feature.support, "reason": feature.reason}
            for path, feature in backend.features.items()
        },
    }


def _backend_definitions(name: str, backend: Any) -> Schema:
    """A backend's own types; their names are prefixed, so that two backends never collide."""
    raw = backend.config.model_json_schema(by_alias=True)
    own = raw.pop("$defs", {})
    shared = {"Count", "Duration", "Size", "HostVariable", "Id", "Text"}
    renamed = {old: old if old in shared else f"{name}_{old}" for old in own}

    def rename(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                key: f"#/$defs/{renamed[value.rpartition('/')[2]]}"
                if key == "$ref"
                else rename(value)
                for key, value in part.items()
            }
        return [rename(item) for item in part] if isinstance(part, list) else part

    found = {renamed[old]: rename(part) for old, part in own.items()}
    found[f"backend_{name}"] = rename(raw)
    tag = found[f"backend_{name}"]["properties"]["type"]
    tag |= {"x-literal": True, "description": "The backend's name."}
    tag.pop("default", None)
    found[f"backend_{name}"]["required"] = sorted(
        {"type", *found[f"backend_{name}"].get("required", ())}
    )
    return found


def _backend_property(raw: Schema, backends: Mapping[str, Any]) -> Schema:
    names = list(backends)
    name = {"type": "string", "enum": names, "x-literal": True}
    mapping = {
        "type": "object",
        "properties": {"type": {**name, "description": "The backend's name."}},
        "required": ["type"],
        "allOf": [
            {
                "if": {"properties": {"type": {"const": each}}, "required": ["type"]},
                "then": {"$ref": f"#/$defs/backend_{each}"},
            }
            for each in names
        ],
    }
    return {
        "title": "Backend",
        "description": raw["description"],
        "anyOf": [name, mapping],
        "examples": [names[0] if "local" not in names else "local"],
    }


def _per_backend(name: str, backend: Any) -> Schema:
    """What a recipe may not say at the top when it runs on this backend."""
    is_this = {
        "anyOf": [
            {"const": name},
            {"type": "object", "properties": {"type": {"const": name}}, "required": ["type"]},
        ]
    }
    refused: Schema = {}
    if not backend.defaults.has_image:
        told = backend.features.get("image")
        problem = f"the backend `{name}` has no image"
        problem += f": {told.reason}" if told and told.reason else ""
        refused["image"] = {"type": "null", "errorMessage": problem}
    return {
        "if": {"properties": {"backend": is_this}, "required": ["backend"]},
        "then": {"properties": refused},
    }


def _definition(part: Schema) -> Schema:
    """One type's schema: free keys allowed, typed leaves open for expressions."""
    part = _tidy(deepcopy(part))
    if part.get("additionalProperties") is False:
        part["patternProperties"] = {**part.get("patternProperties", {}), **FREE_KEYS}
    return part


def _tidy(part: Any, *, literal: bool = False) -> Any:
    if isinstance(part, list):
        return [_tidy(item, literal=literal) for item in part]
    if not isinstance(part, dict):
        return part
    literal = literal or bool(part.get("x-literal"))
    if "description" in part and isinstance(part["description"], str):
        part["description"] = " ".join(part["description"].split())
    part = _written_default(_without_null(part))
    for key in ("properties", "patternProperties"):
        if key in part:
            part[key] = {name: _tidy(p, literal=literal) for name, p in part[key].items()}
    if "patternProperties" in part and "additionalProperties" not in part:
        part["additionalProperties"] = False
    for key in ("items", "anyOf", "additionalProperties"):
        if key in part:
            part[key] = _tidy(part[key], literal=literal)
    part = _union(part)
    return part if literal else _open_for_expression(part)


def _written_default(part: Schema) -> Schema:
    """A quantity's default and bound as they are written; the types hold seconds and bytes."""
    branches = [part, *part.get("anyOf", ())]
    named = {branch.get("$ref", "").rpartition("/")[2] for branch in branches}
    default = part.get("default")
    if isinstance(default, float | int) and not isinstance(default, bool):
        if "Duration" in named:
            part["default"] = write_duration(default)
        elif "Size" in named:
            part["default"] = write_size(default)
    for bound, name in (("ge", "x-minimum"), ("le", "x-maximum")):
        if bound in part and named & _UNITS:
            part[name] = part.pop(bound)
    return part


def _without_null(part: Schema) -> Schema:
    """A key that may be left out is left out, not written as null; except where null says more."""
    if "default" in part and part["default"] is None:
        del part["default"]
        branches = [b for b in part.get("anyOf", ()) if b != {"type": "null"}]
        if branches:
            del part["anyOf"]
            part = {**branches[0], **part} if len(branches) == 1 else {**part, "anyOf": branches}
    return part


_TAGS = {
    "RunCheck": "run", "FileCheck": "file", "ChangedCheck": "changed",
    "PathFile": "from", "GitFile": "git",
    "PathArtifact": "path", "PatchArtifact": "patch",
    "Prompt": "text", "TextFile": "file",
}  # fmt: skip
"""The key that tells each type of a union from the others."""


def _union(part: Schema) -> Schema:
    """Mappings of a union become `if` their key is there, `then` that type."""
    branches = part.get("anyOf", [])
    names = [branch.get("$ref", "").rpartition("/")[2] for branch in branches]
    tagged = [name for name in names if name in _TAGS]
    if len(tagged) < 2:
        return part
    keys = [_TAGS[name] for name in tagged]
    union = {
        "type": "object",
        "anyOf": [{"required": [key]} for key in keys],
        "allOf": [
            {"if": {"required": [key]}, "then": {"$ref": f"#/$defs/{name}"}}
            for key, name in zip(keys, tagged, strict=True)
        ],
        "x-one-of": keys,
    }
    others = [b for b, name in zip(branches, names, strict=True) if name not in _TAGS]
    rest = {key: value for key, value in part.items() if key != "anyOf"}
    return {**rest, "anyOf": [*others, union]} if others else {**rest, **union}


_TYPED = {"integer", "number", "boolean"}
_UNITS = {"Duration", "Size", "Count"}
"""Types that are written out, and opened for expressions, where they are used."""


def _open_for_expression(part: Schema) -> Schema:
    """A leaf that is not free text also takes one whole expression."""
    reference = {"$ref": "#/$defs/Expression"}
    named = part.get("$ref", "").rpartition("/")[2] in _UNITS
    typed = part.get("type") in _TYPED or "enum" in part or "const" in part
    unions = "anyOf" in part and all("enum" in b or "const" in b for b in _flat(part["anyOf"]))
    if unions:
        values = [v for b in _flat(part["anyOf"]) for v in b.get("enum", [b.get("const")])]
        rest = {key: value for key, value in part.items() if key != "anyOf"}
        return {**rest, "anyOf": [{"type": "string", "enum": values}, reference]}
    if not (typed or named):
        return part
    notes = {"title", "description", "examples", "default", "deprecated"}
    outside = {key: value for key, value in part.items() if key in notes}
    inside = {key: value for key, value in part.items() if key not in notes}
    if named:
        # Written out, so that an editor shows the field's own words, not those of the unit.
        unit = deepcopy(units()[part["$ref"].rpartition("/")[2]])
        inside = {**unit, **{key: value for key, value in inside.items() if key != "$ref"}}
    return {**outside, "anyOf": [inside, reference]}


def units() -> dict[str, Schema]:
    """How durations, sizes and counts are written."""
    return {
        "Duration": {
            "title": "Duration",
            "type": "string",
            "pattern": DURATION_PATTERN,
            "patternErrorMessage": "write a duration like 90s, 15m or 2h",
            "examples": ["90s", "15m", "2h"],
        },
        "Size": {
            "title": "Size",
            "type": "string",
            "pattern": SIZE_PATTERN,
            "patternErrorMessage": "write a size like 512MiB or 8GiB",
            "examples": ["512MiB", "8GiB"],
        },
        "Count": {
            "anyOf": [
                {
                    "title": "Count",
                    "type": "integer",
                    "exclusiveMinimum": 0,
                    "maximum": 10**15,
                    "examples": [80],
                },
                {
                    "title": "Count",
                    "examples": ["400k", "2m"],
                    "type": "string",
                    "pattern": COUNT_PATTERN,
                    "patternErrorMessage": "write a count like 80, 400k or 2m",
                },
            ]
        },
    }


def _flat(branches: list[Schema]) -> list[Schema]:
    """The branches of a union whose own branches were opened for expressions already."""
    found: list[Schema] = []
    for branch in branches:
        inner = branch.get("anyOf", [branch])
        found += [each for each in inner if each != {"$ref": "#/$defs/Expression"}]
    return found
