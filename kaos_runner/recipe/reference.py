"""`docs/recipe.md`: the reference of the recipe language, written from its schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.filters import FILTERS, TESTS

if TYPE_CHECKING:
    from collections.abc import Iterator

type Schema = dict[str, Any]

_HEAD = """\
# The recipe, field by field

<!-- Written by `make schemas` from the types; do not edit. -->

A recipe is one YAML file that says everything about an agent run. `kaos-runner init` writes one to
start from, `kaos-runner validate` checks it, `kaos-runner explain` shows what it would do.

## In an editor

Put this first in the file, and any editor with the YAML language server completes and checks it:

```yaml
# yaml-language-server: $schema=../schemas/recipe.schema.json
```

`kaos-runner schema > recipe.schema.json` writes the schema, third parties' backends included. For a
catalogue such as SchemaStore, or an editor's own settings, this `fileMatch` fits:

```json
{"fileMatch": ["recipes/*.yaml", "recipes/*.yml", "*.recipe.yaml", "*.recipe.yml"]}
```

## Rules of the language

- Scalars follow the YAML 1.2 core schema: `on`, `yes` and `1:30` are text, `010` is ten.
- Unknown keys are errors; keys that begin with `x-` are free, at every depth.
- Durations are written `90s`, `15m`, `2h`; sizes `512MiB`, `8GiB`; counts `80`, `400k`, `2m`.
- Ids and parameter names are lower-case letters, digits and `_`, beginning with a letter.
- Host paths are relative to the file that names them, and must stay inside its git work tree, or
  its folder where there is none; `--allow-path DIR` opens another. Sandbox paths are relative to
  the workdir and must not leave it.
- `extends: other.yaml` lays the recipe over another: mappings merge, lists and everything else
  replace.

## Templates

Leaf strings are templates in Jinja's syntax. A value never changes the document's structure, and
is never read as a template again. Literal fields, keys among them, hold no template; a field that
is no free text takes one whole expression and keeps its type: `steps: "{{ params.depth * 10 }}"`.
Quote a value that begins with `{{`: YAML takes it for a mapping.

| name | what |
|---|---|
| `params.NAME` | a parameter |
| `run.id`, `run.started_at`, `run.attempt` | this run |
| `recipe.name`, `recipe.dir` | this recipe |
| `prompts[0]`, `prompts.ID` | an earlier prompt: `.final_message`, `.output`, `.status` |

`prompts` is known in a later prompt's text and checks, and in the recipe's checks and artifacts.
`true`, `false`, lists and mappings are put out as YAML and JSON write them; a value that is missing
is an error, unless `default` gives another. `{% if %}`, `{% for %}` and `{% set %}` work; calls,
imports and macros do not exist, and size and steps are bounded.

In shell text, put parameters through `sh`, which quotes: `cat {{ params.path | sh }}`.

"""


def reference(schema: Schema) -> str:
    """The whole page."""
    writer = _Writer(schema)
    lines = [
        _HEAD.rstrip("\n"),
        "",
        f"Filters: {_codes([name for name in FILTERS if name != 'd'])}.",
        "",
        f"Tests: {_codes(TESTS)}.",
        "",
        "They do what Jinja's documentation says; `sh`, and `split` at a separator, are our own.",
        "",
        "## Fields",
        "",
        *writer.table(schema),
        *writer.types(),
        *writer.backends(),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _codes(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


class _Writer:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.definitions: dict[str, Schema] = schema["$defs"]

    def table(self, schema: Schema) -> list[str]:
        """The fields of a mapping as a table."""
        required = {*schema.get("required", ()), *schema.get("then", {}).get("required", ())}
        rows = ["| field | type | default | what |", "|---|---|---|---|"]
        for name, part in schema.get("properties", {}).items():
            default = "**required**" if name in required else _default(part)
            rows.append(f"| `{name}` | {self._type(part)} | {default} | {self._words(part)} |")
        return [*rows, ""]

    def types(self) -> Iterator[str]:
        """Every named mapping of the language itself."""
        for name, part in self.definitions.items():
            if "properties" in part and not name.startswith("backend_") and "_" not in name:
                yield from [f"### {name}", "", part.get("description", ""), "", *self.table(part)]

    def backends(self) -> Iterator[str]:
        """Every backend with its defaults and its own fields."""
        yield from ["## Backends", ""]
        yield from self._defaults()
        for name in self.schema["x-backends"]:
            part = self.definitions[f"backend_{name}"]
            yield from [f"### {name}", "", part.get("description", ""), "", *self.table(part)]
            own = [n for n in self.definitions if n.startswith(f"{name}_")]
            for each in own:
                inner = self.definitions[each]
                if "properties" in inner:
                    title = each.partition("_")[2]
                    yield from [f"#### {title}", "", inner.get("description", ""), ""]
                    yield from self.table(inner)
            yield from self._features(name)

    def _defaults(self) -> list[str]:
        rows = ["| backend | workdir | image | cleanup |", "|---|---|---|---|"]
        for name, facts in self.schema["x-backends"].items():
            given = facts["defaults"]
            workdir = f"`{given['workdir']}`" if given["workdir"] else "a new directory"
            image = f"`{given['image']}`" if given["image"] else "none"
            rows.append(f"| `{name}` | {workdir} | {image} | `{given['cleanup']}` |")
        return [*rows, ""]

    def _features(self, name: str) -> list[str]:
        features = self.schema["x-backends"][name]["features"]
        if not features:
            return []
        rows = ["| field of the recipe | this backend | |", "|---|---|---|"]
        rows += [f"| `{f}` | {v['support']} it | {v['reason']} |" for f, v in features.items()]
        return [*rows, ""]

    def _type(self, part: Schema) -> str:
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            target = self.definitions[name]
            if name == "Expression":
                return ""
            return _link(name, target) if "properties" in target else self._type(target)
        if "x-one-of" in part:
            return " or ".join(self._type(branch["then"]) for branch in part["allOf"])
        if "anyOf" in part:
            kinds = [self._type(branch) for branch in part["anyOf"]]
            return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
        return self._plain(part)

    def _plain(self, part: Schema) -> str:
        if part.get("title") in ("Duration", "Size", "Count"):
            return str(part["title"]).lower()
        if "enum" in part:
            return " \\| ".join(f"`{value}`" for value in part["enum"])
        if "const" in part:
            return f"`{part['const']}`"
        kind = part.get("type")
        if kind == "array":
            return f"list of {self._type(part.get('items', {})) or 'anything'}"
        if kind == "object":
            more = part.get("additionalProperties")
            return f"mapping of {self._type(more)}" if isinstance(more, dict) else "mapping"
        words = {"string": "text", "integer": "whole number", "null": "`null`", None: "anything"}
        return words.get(kind, str(kind))

    def _words(self, part: Schema) -> str:
        words = str(part.get("description", ""))
        if not words and "$ref" in part:
            words = str(self._words(self.definitions[part["$ref"].rpartition("/")[2]]))
        examples = part.get("examples", [])[:2]
        if examples:
            words += " For example " + ", ".join(f"`{_value(each)}`" for each in examples) + "."
        return words.replace("|", "\\|")


def _default(part: Schema) -> str:
    if "default" not in part or part["default"] in ("", [], {}):
        return ""
    return f"`{_value(part['default'])}`".replace("|", "\\|")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _link(name: str, target: Schema) -> str:
    title = name.partition("_")[2] or name
    return f"[{target.get('title', title)}](#{title.lower()})"
