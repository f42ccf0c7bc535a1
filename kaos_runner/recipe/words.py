"""Words for what a schema expects and what stands there instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kaos_runner.recipe.nodes import problem_at
from kaos_runner.recipe.quantities import (
    parse_duration,
    parse_size,
    write_duration,
    write_size,
)
from kaos_runner.recipe.suggest import closest, did_you_mean

if TYPE_CHECKING:
    from kaos_runner.errors import Problem
    from kaos_runner.recipe.nodes import Node, Path

type Schema = dict[str, Any]

_KINDS = {
    "object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number",
    "number": "a number", "boolean": "`true` or `false`", "null": "`null`",
}  # fmt: skip
_TRUTHS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_SECRET_TITLE = "Host variable"
MAX_SHOWN = 40


def shown(value: Any) -> str:
    """A value as it can stand in a message: one line, not long."""
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    text = " ".join(str(value).split()) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def expected(schema: Schema) -> str:
    """What a schema asks for, as a noun with its article."""
    if "anyOf" in schema and "x-one-of" not in schema:
        parts = [expected(b) for b in schema["anyOf"] if b.get("title") != "Expression"]
        return " or ".join(dict.fromkeys(parts))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{shown(each)}`" for each in schema["enum"])
    if schema.get("title") == "Count" or ("pattern" in schema and "title" in schema):
        title = str(schema["title"])
        return {
            "Duration": "a duration", "Size": "a size", "Id": "an id", "Name": "a recipe's name",
            "Count": "a count", "Variable": "a variable's name",
            _SECRET_TITLE: "the name of a host variable",
        }.get(title, f"a valid {title.lower()}")  # fmt: skip
    return _KINDS.get(schema.get("type", ""), "something else")


_HINTS = {
    "Id": "lower-case letters, digits and `_`, beginning with a letter",
    "Name": "letters, digits, `.`, `_` and `-`, at most 63, beginning with a letter or digit",
    "Variable": "letters, digits and `_`, not beginning with a digit",
}


def hint_of(schema: Schema) -> str | None:
    """How a value of a schema is written, where that has words of its own."""
    return _HINTS.get(str(schema.get("title")))


def explain_value(schema: Schema, node: Node, path: Path) -> Problem:
    """The problem of a value that its schema does not take."""
    branches = [schema]
    if "anyOf" in schema and "x-one-of" not in schema:
        branches = [b for b in schema["anyOf"] if b.get("title") != "Expression"]
    hint: str | None
    titled = schema if "examples" in schema or "title" in schema else branches[0]
    if "errorMessage" in schema:
        message, hint = str(schema["errorMessage"]), "remove it"
    elif _names_a_variable(branches, path) and isinstance(node.value, str):
        message = "this is not the name of a host variable"
        hint = "name the variable, such as `MY_TOKEN`"
    else:
        message, hint = _in_words(schema, branches, titled, node)
    problem = problem_at(node, message, hint=hint, path=path)
    if _names_a_variable(branches, path) and node.kind == "scalar":
        # Somebody may have put the secret itself where its variable's name belongs.
        from dataclasses import replace

        return replace(problem, source=None)
    return problem


def _names_a_variable(branches: list[Schema], path: Path) -> bool:
    titled = any(branch.get("title") == _SECRET_TITLE for branch in branches)
    return titled or (bool(path) and str(path[-1]).endswith("_env"))


def _in_words(
    schema: Schema, branches: list[Schema], titled: Schema, node: Node
) -> tuple[str, str | None]:
    value = node.value
    if node.kind == "scalar" and value is None:
        return f"expected {expected(schema)}, found nothing", "give it a value, or remove the key"
    units = next((b for b in branches if b.get("title") in ("Duration", "Size")), None)
    if units and isinstance(value, int | float) and not isinstance(value, bool):
        unit = "s" if units["title"] == "Duration" else "MiB"
        return f"`{shown(value)}` has no unit", f"write it like `{shown(value)}{unit}`"
    fitting = [b for b in branches if _kind_fits(b, node)]
    if isinstance(value, str) and "{{" in value:
        hint = 'write "{{ … }}" and nothing around it'
        return "a template here must be the whole value", hint
    if not fitting:
        found = _found(branches, node)
        return f"expected {expected(schema)}, found {found}", _kind_hint(branches, node)
    return _value_words(fitting, schema, titled, node)


def _value_words(
    fitting: list[Schema], schema: Schema, titled: Schema, node: Node
) -> tuple[str, str | None]:
    value, text = node.value, shown(node.value)
    first = fitting[0]
    if value == "" or (isinstance(value, str) and not value and "minLength" in first):
        return "the text is empty", "give it a value, or remove the key"
    choices = [c for b in fitting for c in b.get("enum", [b["const"]] if "const" in b else [])]
    if choices:
        known = [str(choice) for choice in choices]
        hint = did_you_mean(text, known, otherwise="")
        wanted = ", ".join(f"`{each}`" for each in known)
        if len(known) == 1:
            return f"expected `{known[0]}`, found `{text}`", hint or None
        return f"`{text}` is not one of {wanted}", hint or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _range_words(first, text)
    wrong = _bound_words(schema, first, value)
    if wrong:
        return wrong, None
    examples = [
        e for e in first.get("examples") or titled.get("examples") or () if isinstance(e, str)
    ]
    hint = "write it like " + ", ".join(f"`{e}`" for e in examples[:3]) if examples else None
    hint = hint_of(schema) or hint_of(first) or hint
    return f"`{text}` is not {expected(schema)}", hint


def _bound_words(schema: Schema, branch: Schema, value: Any) -> str | None:
    """What is wrong with a well-written quantity: it is out of its field's bounds."""
    write = write_size if branch.get("title") == "Size" else write_duration
    for bound, words in (("x-minimum", "below the minimum"), ("x-maximum", "above the maximum")):
        for part in (schema, branch):
            if bound in part and not within({bound: part[bound]}, branch, value):
                return f"`{shown(value)}` is {words} {write(part[bound])}"
    return None


def within(bounds: Schema, unit: Schema, value: str) -> bool:
    """Whether a written quantity is inside the bounds of its field."""
    try:
        number = (parse_size if unit.get("title") == "Size" else parse_duration)(value)
    except ValueError:
        return True  # the pattern says what is wrong
    return bool(bounds.get("x-minimum", number) <= number <= bounds.get("x-maximum", number))


def _range_words(schema: Schema, text: str) -> tuple[str, str | None]:
    if "exclusiveMinimum" in schema:
        return f"`{text}` is not above {schema['exclusiveMinimum']}", None
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"`{text}` is not between {low} and {high}", None
    return f"`{text}` is out of range", None


def _kind_fits(schema: Schema, node: Node) -> bool:
    kind = schema.get("type")
    if node.kind != "scalar":
        return kind == {"mapping": "object", "sequence": "array"}[node.kind]
    if isinstance(node.value, str):
        return kind in ("string", None)
    if isinstance(node.value, bool):
        return kind in ("boolean", None)
    return kind in ("integer", "number", None) and (
        kind != "integer" or isinstance(node.value, int) or float(node.value or 0).is_integer()
    )


def _kind_hint(branches: list[Schema], node: Node) -> str | None:
    kinds = {b.get("type") for b in branches}
    value, text = node.value, shown(node.value)
    if isinstance(value, str):
        if "boolean" in kinds:
            truth = _TRUTHS.get(value.lower()) or closest(value, ["true", "false"])
            return f"write `{truth}`" if truth else "write `true` or `false`"
        if kinds & {"integer", "number"} and node.style in ("'", '"') and _is_number(value):
            return f"remove the quotes: `{text}`"
        if "array" in kinds:
            return "write it as a list, each entry after `- `"
        tags = next((b["x-one-of"] for b in branches if "x-one-of" in b), None)
        if tags:
            return f"write it as `{tags[0]}: …`"
        if "object" in kinds:
            return "write `key: value` pairs, indented below"
    elif node.kind == "scalar" and "string" in kinds:
        written = node.source.text[node.start : node.end] if node.source.quotable else text
        return f'quote it: "{shown(written)}"'
    elif node.kind == "mapping" and "array" in kinds:
        return "begin each entry with `- `"
    elif node.kind == "sequence" and "string" in kinds:
        return "it takes one value, not a list"
    elif node.kind == "sequence" and "object" in kinds:
        return "remove the `- `: it is a mapping"
    return None


def _found(branches: list[Schema], node: Node) -> str:
    """What stands there: a short scalar itself where a scalar was expected, else its kind."""
    scalar = any(b.get("type") not in ("array", "object") for b in branches)
    if node.kind != "scalar" or not scalar or isinstance(node.value, bool):
        return node.described
    quote = '"' if node.style in ("'", '"') else ""
    return f"`{quote}{shown(node.value)}{quote}`"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
