"""The recipe's types: what a recipe is once it is composed, validated and rendered.

They are the one source of `schemas/recipe.schema.json` and `docs/recipe.md`: titles, descriptions,
examples and
defaults stand here and nowhere else. Units are parsed on the way in: durations become seconds
(float), sizes bytes
(int), counts int.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Cleanup = Literal["always", "on_success", "never"]
ToolName = Literal["shell", "read", "write", "edit", "glob", "grep", "todo", "task", "fetch"]
DEFAULT_TOOLS: tuple[ToolName, ...] = (
    "shell", "read", "write", "edit", "glob", "grep", "todo", "task",
)  # fmt: skip
HOST_TOOLS: frozenset[ToolName] = frozenset({"fetch"})
"""Tools that act on the host or from its network; opt-in."""

ID_PATTERN = r"^[a-z][a-z0-9_]*$"

_DURATION = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_COUNT = {"": 1, "k": 1000, "m": 1_000_000}

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)$"
COUNT_PATTERN = r"^[0-9]+(\.[0-9]+)?[km]?$"


def _unit(value: Any, pattern: str, units: dict[str, Any], example: str) -> Any:
    if not isinstance(value, str):
        return value
    if not re.match(pattern, value):
        msg = f"{value!r} has no known unit; write it like {example}"
        raise ValueError(msg)
    number = re.match(r"[0-9.]+", value)
    assert number is not None  # the pattern begins with a number
    return float(number.group()) * units[value[number.end() :]]


def parse_duration(value: Any) -> Any:
    """Seconds from `90s`, `15m`, `2h`; a number is taken as it is (the schema refuses it)."""
    return _unit(value, DURATION_PATTERN, _DURATION, "90s, 15m or 2h")


def parse_size(value: Any) -> Any:
    """Bytes from `512MiB`, `8GiB`; an int is bytes."""
    number = _unit(value, SIZE_PATTERN, _SIZE, "512MiB or 8GiB")
    return int(number) if isinstance(number, float) else number


def parse_count(value: Any) -> Any:
    """An int from `400k`, `2m` or a plain int."""
    number = _unit(value, COUNT_PATTERN, _COUNT, "400k")
    return int(number) if isinstance(number, float) else number


Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    Field(gt=0, json_schema_extra={"pattern": DURATION_PATTERN, "examples": ["90s", "15m", "2h"]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size, json_schema_input_type=str),
    Field(gt=0, json_schema_extra={"pattern": SIZE_PATTERN, "examples": ["512MiB", "8GiB"]}),
]
Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | str), Field(gt=0)]


class Frozen(BaseModel):
    """Base of the recipe's types: immutable, unknown keys refused, field docstrings as
    descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )


class BackendConfig(Frozen):
    """Base of every backend's own fields, told apart by `type`."""

    type: str


class Param(Frozen):
    """A typed input of the recipe."""

    type: Literal["string", "integer", "number", "boolean", "list"] = "string"
    description: str = ""
    default: Any = None
    """Used when no value is given. Without a default, a parameter is required."""
    required: bool | None = None
    """Defaults to true where there is no `default`."""
    env: str | None = None
    """A host variable that gives the value when it is set."""
    enum: list[Any] | None = None
    pattern: str | None = None
    """A regular expression that the whole string must match."""
    minimum: float | None = None
    maximum: float | None = None


class Network(Frozen):
    """What the sandbox may reach."""

    default: Literal["allow", "deny"] = "allow"
    allow: tuple[str, ...] = ()
    """Hosts that are reachable although the default is deny."""
    deny: tuple[str, ...] = ()
    """Hosts that are not reachable although the default is allow."""


class PathFile(Frozen):
    """A file or directory of the host, copied into the sandbox before `setup`."""

    from_: str = Field(alias="from")
    """Relative to the recipe."""
    to: str = "."
    """Relative to the workdir. A directory's contents go into it; a file is put there, or under a
    name that ends it."""


class GitFile(Frozen):
    """A git work tree of the host, as one bundle: without ignored files, hooks, remotes or
    credentials."""

    git: str
    """The work tree, relative to the recipe."""
    to: str = "."
    """A directory relative to the workdir."""
    ref: str = "HEAD"
    """What is checked out. With `HEAD`, uncommitted changes of the work tree are not taken
    along."""


class TextFile(Frozen):
    """A long text in a file of its own: a template with its own positions."""

    file: str
    """Relative to the recipe."""


class Model(Frozen):
    """Which model answers, and how it is reached."""

    name: str | None = None
    """The provider's name for the model. Defaults to `KIMI_MODEL_NAME`."""
    provider: Literal["kimi", "openai_legacy", "openai_responses", "anthropic", "google_genai"] = (
        "kimi"
    )
    base_url: str | None = None
    """Defaults to `KIMI_BASE_URL`, then to the provider's own."""
    api_key_env: str = "KIMI_API_KEY"
    """The name of the host variable that holds the key."""
    max_context: Count | None = None
    """The model's context window in tokens."""
    replay: str | None = None
    """A cassette, relative to the recipe: the model's turns are played from it, with no key and no
    network."""


class ApprovalRule(Frozen):
    """Decides tool calls; the first rule that matches wins, and what no rule matches is allowed."""

    tool: ToolName | Literal["*"] = "*"
    match: str = "*"
    """A shell-style pattern over the command (shell) or the path (file tools)."""
    action: Literal["allow", "deny", "ask"]
    """`ask` without a terminal is `deny`. A denial reaches the agent as a tool error, and the turn
    goes on."""


class Agent(Frozen):
    """The agent and its tools."""

    model: str | Model = Field(default_factory=Model)
    """The model's name, or a mapping."""
    tools: tuple[ToolName, ...] = DEFAULT_TOOLS
    """All but `fetch` act inside the sandbox only."""
    approvals: tuple[ApprovalRule, ...] = ()

    @property
    def settings(self) -> Model:
        """The model as a mapping, however it was written."""
        return Model(name=self.model) if isinstance(self.model, str) else self.model


class Limits(Frozen):
    """What the run may use at most, subagents included."""

    wall: Duration = 3600.0
    """Wall clock time of the whole run, from create to the last check."""
    steps: Count | None = 200
    """Model calls."""
    tokens: Count | None = None
    """Input and output tokens, cache reads included."""


class RunCheck(Frozen):
    """A shell command in the workdir that must exit with 0."""

    run: str
    name: str | None = None
    timeout: Duration = 600.0


class FileCheck(Frozen):
    """A file that must exist, relative to the workdir."""

    file: str
    name: str | None = None


class ChangedCheck(Frozen):
    """A glob, relative to the workdir: at least one file that it matches must have changed."""

    changed: str
    name: str | None = None


Check = RunCheck | FileCheck | ChangedCheck


class Output(Frozen):
    """What the final message must be."""

    schema_: dict[str, Any] = Field(alias="schema")
    """A JSON schema: the final message must be JSON that is valid against it."""


class Prompt(Frozen):
    """One turn of the agent, and what must hold after it."""

    text: str | TextFile
    id: str | None = Field(default=None, pattern=ID_PATTERN)
    """The name by which later templates refer to it."""
    checks: tuple[Check, ...] = ()
    retry: int = Field(default=0, ge=0, le=20)
    """How many further turns may be used when a check fails: same session, same sandbox, the
    failing output fed back."""
    output: Output | None = None


class PathArtifact(Frozen):
    """Files that come home into the run's `artifacts/`."""

    path: str
    """A file, a directory or a glob, relative to the workdir."""
    to: str | None = None
    """The name at home. Defaults to the path itself."""
    optional: bool = False


class PatchArtifact(Frozen):
    """Everything that changed since the baseline, as one patch that `git apply` takes."""

    patch: str
    """A directory, relative to the workdir."""
    to: str = "change.patch"
    optional: bool = False
    """Whether it may be empty."""


Artifact = PathArtifact | PatchArtifact


class Recipe(Frozen):
    """One agent run: which sandbox, which prompts, what must hold afterwards, what comes home."""

    version: Literal[1]
    name: str
    description: str = ""
    params: dict[str, Param] = Field(default_factory=dict)
    backend: BackendConfig
    image: str | None = None
    workdir: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    """The sandbox's environment variables."""
    secrets: tuple[str, ...] = ()
    """Names of host variables that are handed to the sandbox, and masked everywhere else."""
    network: Network = Field(default_factory=Network)
    files: tuple[PathFile | GitFile, ...] = ()
    setup: tuple[str, ...] = ()
    """Shell commands in the workdir; the first that fails ends the run."""
    agent: Agent = Field(default_factory=Agent)
    limits: Limits = Field(default_factory=Limits)
    prompts: tuple[Prompt, ...] = Field(min_length=1)
    """At least one; a plain string is a prompt with that text."""
    checks: tuple[Check, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    cleanup: Cleanup | None = None
    """Defaults to the backend's own: `always`, but `never` on Sprites."""
