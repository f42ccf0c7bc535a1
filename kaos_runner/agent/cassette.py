"""A cassette: the model's turns of one session, in YAML that people read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kaos_runner.agent.journal import NAMES
from kaos_runner.errors import Problem, RecipeError
from kaos_runner.recipe.compose import compose
from kaos_runner.recipe.nodes import problem_at
from kaos_runner.recipe.source import UnreadableError, read_source
from kaos_runner.recipe.suggest import closest, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path as FilePath

    from pydantic_core import ErrorDetails

    from kaos_runner.recipe.nodes import Node, Path


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Expect(_Part):
    """What a tool call must give; anything else is drift."""

    ok: bool | None = None
    """Whether it succeeds."""
    text: str | None = None
    """Its whole output, without white space at the ends."""
    contains: str | None = None
    """A part of its output."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """The digest of its whole output, without white space at the ends."""


class Call(_Part):
    """A tool call of the model."""

    tool: str
    """A tool of the recipe, such as `shell`; another name needs `expect: {ok: false}`."""
    args: dict[str, Any] | str = Field(default_factory=dict)
    """The tool's arguments. A string is given as it is, even when it is not JSON."""
    expect: Expect | None = None
    turns: tuple[ModelTurn, ...] = ()
    """Of a `task`: the subagent's own turns."""


class Usage(_Part):
    """Tokens of one turn; `cache_read` is a part of `input`."""

    input: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0)
    cache_read: int = Field(default=0, ge=0)


class ModelTurn(_Part):
    """One answer of the model."""

    think: str | None = None
    text: str | None = None
    tools: tuple[Call, ...] = ()
    """Called at the same time."""
    usage: Usage | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.think or self.text or self.tools):
            msg = "a turn needs `text`, `tools` or `think`"
            raise ValueError(msg)
        return self


class Cassette(_Part):
    """The turns of the main agent, in order; a subagent's stand under the call that starts it."""

    cassette: Literal[1]
    """The version of this format."""
    description: str = ""
    model: str | None = None
    """The model that was recorded."""
    turns: tuple[ModelTurn, ...] = Field(min_length=1)


_KEYS = {
    "Cassette": tuple(Cassette.model_fields),
    "ModelTurn": tuple(ModelTurn.model_fields),
    "Call": tuple(Call.model_fields),
    "Expect": tuple(Expect.model_fields),
    "Usage": tuple(Usage.model_fields),
}


def load(path: FilePath, label: str | None = None) -> Cassette:
    """Read a cassette.

    Raises:
        RecipeError: it is none; names every fault with its line and column.
    """
    name = label or str(path)
    try:
        # Its lines are not quoted: a path that leads to another file must not give that away.
        source = read_source(path, name, quotable=False)
    except UnreadableError as error:
        problem = Problem(
            message=f"the cassette {error.message}",
            file=name,
            line=error.line,
            column=error.column,
            hint=error.hint,
        )
        raise RecipeError([problem]) from None
    node, problems = compose(source)
    if node is None or problems:
        raise RecipeError(problems)
    try:
        cassette = Cassette.model_validate(node.plain())
    except ValidationError as error:
        raise RecipeError([_problem(node, fault) for fault in error.errors()]) from None
    if unknown := [_unknown_tool(node, *place) for place in _unknown_tools(cassette.turns)]:
        raise RecipeError(unknown)
    return cassette


def _unknown_tools(
    turns: Sequence[ModelTurn], path: Path = ("turns",)
) -> Iterator[tuple[Path, str]]:
    """Tools that are not there, unless the cassette says that the call fails."""
    for i, turn in enumerate(turns):
        for j, call in enumerate(turn.tools):
            here = (*path, i, "tools", j)
            fails = call.expect is not None and call.expect.ok is False
            if call.tool not in NAMES.values() and call.tool not in NAMES and not fails:
                yield (*here, "tool"), call.tool
            yield from _unknown_tools(call.turns, (*here, "turns"))


def _unknown_tool(root: Node, path: Path, tool: str) -> Problem:
    otherwise = "a model may call a tool that is not there: then give it `expect: {ok: false}`"
    best = closest(tool, NAMES.values())
    hint = f"did you mean `{best}`?" if best else otherwise
    return problem_at(root.nearest(path), f"unknown tool `{tool}`", hint=hint, path=path)


def _problem(root: Node, fault: ErrorDetails) -> Problem:
    path = _place(root, fault["loc"])
    if fault["type"] == "extra_forbidden":
        return _unknown_key(root, path)
    message, hint = fault["msg"].removeprefix("Value error, "), None
    if fault["type"] == "missing":
        message = f"the key `{path[-1]}` is missing"
        hint = "the first line of a cassette is `cassette: 1`" if path == ("cassette",) else None
    return problem_at(root.nearest(path), message, hint=hint, path=path)


def _place(root: Node, loc: tuple[int | str, ...]) -> Path:
    """The document's path of a fault; pydantic puts the tried member of a union into its own."""
    path: list[str | int] = []
    for i, step in enumerate(loc):
        here = root.find(tuple(path))
        last = i == len(loc) - 1
        if here is not None and (here.child(step) is not None or (last and here.kind == "mapping")):
            path.append(step)
    return tuple(path)


def _unknown_key(root: Node, path: Path) -> Problem:
    owner = root.find(path[:-1])
    key = str(path[-1])
    spot = owner.keys[key] if owner is not None and owner.keys and key in owner.keys else root
    kind = _kind(path[:-1])
    return problem_at(spot, f"unknown key `{key}`", hint=did_you_mean(key, _KEYS[kind]), path=path)


def _kind(path: Path) -> str:
    names = {"turns": "ModelTurn", "tools": "Call", "expect": "Expect", "usage": "Usage"}
    for step in reversed(path):
        if isinstance(step, str) and step in names:
            return names[step]
    return "Cassette"
