"""Parameters: declared types, given values, and where each value came from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos_runner.errors import Problem, RecipeError, UsageError
from kaos_runner.recipe.compose import compose
from kaos_runner.recipe.patterns import PatternError, compile_pattern, mismatch
from kaos_runner.recipe.source import UnreadableError, read_source
from kaos_runner.recipe.suggest import did_you_mean
from kaos_runner.recipe.words import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "KAOS_RUNNER_PARAM_"
_TRUTHS = {"true": True, "yes": True, "1": True, "on": True}
_FALSEHOODS = {"false": False, "no": False, "0": False, "off": False}


@dataclass(frozen=True, slots=True)
class ParamValue:
    """A parameter's value, and where it came from: `-p`, `--params-file`, a variable, `default`."""

    value: Any
    origin: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """A parameter as the recipe declares it."""

    name: str
    type: str = "string"
    default: Any = None
    has_default: bool = False
    required: bool | None = None
    env: str | None = None
    enum: tuple[Any, ...] | None = None
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None

    def pattern_fault(self) -> str | None:
        """What is wrong with the pattern."""
        if self.pattern is None:
            return None
        try:
            compile_pattern(self.pattern)
        except PatternError as error:
            return str(error)
        return None

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value of the recipe itself, which has its type already."""
        return _type_fault(self.type, value) or _rule_fault(self, value)

    @property
    def needed(self) -> bool:
        """Whether a value must be given."""
        return not self.has_default if self.required is None else self.required

    @classmethod
    def read(cls, name: str, fields: Mapping[str, Any]) -> Declared:
        """From the plain mapping of the recipe."""
        known = {
            k: fields[k]
            for k in ("default", "required", "env", "pattern", "minimum", "maximum")
            if k in fields
        }
        enum = fields.get("enum")
        return cls(
            name=name,
            type=fields.get("type", "string"),
            has_default="default" in fields and fields["default"] is not None,
            enum=tuple(enum) if isinstance(enum, list) else None,
            **known,
        )


def gather(
    declared: Mapping[str, Declared],
    flags: Sequence[str],
    file: Path | None,
    environ: Mapping[str, str],
) -> dict[str, ParamValue]:
    """What the user gives, not yet checked: `-p` over `KAOS_RUNNER_PARAM_NAME` over the file.

    Raises:
        UsageError: a flag or the file cannot be read.
    """
    given = {name: ParamValue(value, "--params-file") for name, value in _from_file(file).items()}
    for name in declared:
        variable = PREFIX + name.upper()
        if variable in environ:
            given[name] = ParamValue(environ[variable], variable)
    for flag in flags:
        name, value = _from_flag(flag)
        given[name] = ParamValue(value, "-p")
    return given


def _from_flag(flag: str) -> tuple[str, str]:
    name, equals, value = flag.partition("=")
    if not equals or not name:
        msg = f"-p {shown(flag)} is not NAME=VALUE"
        raise UsageError(msg, hint="write `-p NAME=VALUE`, or `-p NAME=@FILE`")
    name = name.strip().replace("-", "_")
    if not value.startswith("@"):
        return name, value
    try:
        return name, read_source(Path(value[1:]), value[1:]).text
    except UnreadableError as error:
        msg = f"-p {name}: {value[1:]} {error.message}"
        raise UsageError(msg, hint=error.hint) from None


def _from_file(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        document, problems = compose(read_source(file, str(file)))
    except UnreadableError as error:
        msg = f"--params-file {file} {error.message}"
        raise UsageError(msg, hint=error.hint) from None
    if problems or document is None:
        raise RecipeError(problems)
    if document.entries is None:
        msg = f"--params-file {file} is not a mapping of names to values"
        raise UsageError(msg)
    return {name: node.plain() for name, node in document.entries.items()}


def settle(
    declared: Mapping[str, Declared],
    given: Mapping[str, ParamValue | object],
    environ: Mapping[str, str],
) -> tuple[dict[str, ParamValue], list[Problem]]:
    """Every parameter's checked value: given, else the variable of its `env`, else its default."""
    values: dict[str, ParamValue] = {}
    problems = [
        Problem(
            message=f"the recipe has no parameter `{shown(name)}`",
            hint=did_you_mean(
                name, declared, otherwise="it declares none" if not declared else None
            ),
            path=f"params.{name}",
        )
        for name in given
        if name not in declared
    ]
    for name, param in declared.items():
        found = _find(param, given.get(name), environ)
        if found is None:
            if param.needed:
                problems.append(_needs_value(param))
            continue
        value, wrong = convert(param, found.value)
        if wrong:
            message = f"the parameter `{name}` from {found.origin}: {wrong}"
            problems.append(Problem(message=message, path=f"params.{name}"))
        else:
            values[name] = ParamValue(value, found.origin, name)
    return values, problems


def _needs_value(param: Declared) -> Problem:
    hint = f"give it with `-p {param.name}=VALUE`"
    if param.env:
        hint += f", or set {param.env}"
    message = f"the parameter `{param.name}` needs a value"
    return Problem(message=message, hint=hint, path=f"params.{param.name}")


def _find(param: Declared, given: Any, environ: Mapping[str, str]) -> ParamValue | None:
    if given is not None:
        return given if isinstance(given, ParamValue) else ParamValue(given, "-p")
    if param.env and param.env in environ:
        return ParamValue(environ[param.env], param.env)
    if param.has_default:
        return ParamValue(param.default, "default")
    return None


def convert(param: Declared, value: Any) -> tuple[Any, str | None]:
    """The value as its declared type, or what is wrong with it."""
    if isinstance(value, str) and param.type != "string":
        value, wrong = _read_text(param.type, value)
        if wrong:
            return None, wrong
    wrong = _type_fault(param.type, value) or _rule_fault(param, value)
    return (None, wrong) if wrong else (value, None)


def _read_text(kind: str, text: str) -> tuple[Any, str | None]:
    try:
        if kind == "integer":
            return int(text.replace("_", "")), None
        if kind == "number":
            number = float(text)
            return (number, None) if math.isfinite(number) else (None, f"`{text}` is not a number")
    except ValueError:
        return (
            None,
            f"`{shown(text)}` is not {'a whole number' if kind == 'integer' else 'a number'}",
        )
    if kind == "boolean":
        value = {**_TRUTHS, **_FALSEHOODS}.get(text.strip().lower())
        return value, None if value is not None else f"`{shown(text)}` is neither true nor false"
    if text.lstrip().startswith("["):
        try:
            return json.loads(text), None
        except ValueError:
            return None, f"`{shown(text)}` is not a JSON list"
    return [part.strip() for part in text.split(",") if part.strip()], None


_CLASSES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "list": list,
}  # fmt: skip
_NOUNS = {
    "string": "text", "integer": "a whole number", "number": "a number",
    "boolean": "`true` or `false`", "list": "a list",
}  # fmt: skip


def _type_fault(kind: str, value: Any) -> str | None:
    fits = isinstance(value, _CLASSES.get(kind, object))
    if isinstance(value, bool) and kind in ("integer", "number"):
        fits = False
    return None if fits else f"`{shown(value)}` is not {_NOUNS[kind]}"


def _rule_fault(param: Declared, value: Any) -> str | None:
    if param.enum is not None and value not in param.enum:
        wanted = ", ".join(f"`{shown(each)}`" for each in param.enum)
        return f"`{shown(value)}` is not one of {wanted}"
    if param.pattern is not None and isinstance(value, str):
        wrong = mismatch(param.pattern, value)
        if wrong:
            return wrong
    if isinstance(value, int | float) and not isinstance(value, bool):
        if param.minimum is not None and value < param.minimum:
            return f"`{shown(value)}` is below the minimum {shown(param.minimum)}"
        if param.maximum is not None and value > param.maximum:
            return f"`{shown(value)}` is above the maximum {shown(param.maximum)}"
    return None
