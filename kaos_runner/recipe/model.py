"""The recipe's types: what a recipe is once it is composed, validated and rendered.

They are the one source of `schemas/recipe.schema.json` and `docs/recipe.md`: titles, descriptions,
examples and defaults stand here and nowhere else. Units are parsed on the way in: durations become
seconds (float), sizes bytes (int), counts int.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializeAsAny,
)

from kaos_runner.recipe.names import DEFAULT_TOOLS, HOST_TOOLS, Cleanup, ToolName
from kaos_runner.recipe.quantities import (
    COUNT_PATTERN,
    DURATION_PATTERN,
    SIZE_PATTERN,
    parse_count,
    parse_duration,
    parse_size,
)
from kaos_runner.recipe.units import Count, Duration, Size

__all__ = [
    "COUNT_PATTERN", "DEFAULT_TOOLS", "DURATION_PATTERN", "HOST_TOOLS", "ID_PATTERN",
    "SIZE_PATTERN", "Agent", "ApprovalRule", "Artifact", "BackendConfig", "ChangedCheck", "Check",
    "Cleanup", "Count", "Duration", "FileCheck", "Frozen", "GitFile", "HostVariable", "Limits",
    "Model", "Network", "Output", "Param", "PatchArtifact", "PathArtifact", "PathFile", "Prompt",
    "Recipe", "RunCheck", "Size", "TextFile", "ToolName", "parse_count", "parse_duration",
    "parse_size",
]  # fmt: skip

ID_PATTERN = r"^[a-z][a-z0-9_]*$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"

LITERAL: dict[str, JsonValue] = {"x-literal": True}
"""Marks a field that may hold no template."""
HOST_PATH: dict[str, JsonValue] = {"x-path": "host"}
"""Marks a path on the host, relative to the recipe; it must stay inside the recipe's work tree."""
WORK_PATH: dict[str, JsonValue] = {"x-path": "work"}
"""Marks a path in the sandbox, relative to the workdir; it must not leave it."""
SHELL: dict[str, JsonValue] = {"x-shell": True}
"""Marks shell text: a parameter in it should pass through the filter `sh`."""

type HostVariable = Annotated[
    str,
    Field(
        pattern=VARIABLE_PATTERN,
        description="The name of a host variable, never its value.",
        json_schema_extra=LITERAL
        | {
            "title": "Host variable",
            "examples": ["MY_TOKEN"],
            "patternErrorMessage": "name a host variable, such as MY_TOKEN",
        },
    ),
]
type Variable = Annotated[
    str,
    Field(
        pattern=VARIABLE_PATTERN,
        description="Letters, digits and `_`; does not begin with a digit.",
        json_schema_extra={"title": "Variable", "examples": ["LANG"]},
    ),
]
type Id = Annotated[
    str,
    Field(
        pattern=ID_PATTERN,
        description="Lower-case letters, digits and `_`; begins with a letter.",
        json_schema_extra=LITERAL
        | {
            "title": "Id",
            "examples": ["apply"],
            "patternErrorMessage": "write lower-case letters, digits and _, a letter first",
        },
    ),
]
type Text = Annotated[str, Field(min_length=1)]
type Host = Annotated[
    str, Field(min_length=1, examples=["pypi.org", "*.githubusercontent.com"], title="Host")
]


class Frozen(BaseModel):
    """Base of the recipe's types: immutable, unknown keys refused, docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )


class BackendConfig(Frozen):
    """Base of every backend's own fields, told apart by `type`."""

    type: str


class Param(Frozen):
    """A typed input of the recipe."""

    model_config = ConfigDict(json_schema_extra=LITERAL)

    type: Literal["string", "integer", "number", "boolean", "list"] = "string"
    """What the value must be. Text from the command line is read as this type."""
    description: str = Field("", examples=["The package to refactor"])
    """What the parameter is for; `explain` shows it."""
    default: Any = None
    """Used when no value is given. Without a default, a parameter is required."""
    required: bool | None = None
    """Whether a value must be given. Defaults to true where there is no `default`."""
    env: HostVariable | None = None
    """A host variable that gives the value when it is set."""
    enum: list[Any] | None = Field(None, min_length=1, examples=[["fast", "thorough"]])
    """The only values that are allowed."""
    pattern: str | None = Field(None, min_length=1, examples=["[a-z]+"])
    """A regular expression that the whole string must match."""
    minimum: float | None = Field(None, examples=[1])
    """The smallest number that is allowed."""
    maximum: float | None = Field(None, examples=[100])
    """The largest number that is allowed."""


class Network(Frozen):
    """What the sandbox may reach."""

    default: Literal["allow", "deny"] = "allow"
    """What holds for hosts that are not listed."""
    allow: tuple[Host, ...] = ()
    """Hosts that are reachable although the default is deny."""
    deny: tuple[Host, ...] = ()
    """Hosts that are not reachable although the default is allow."""


class PathFile(Frozen):
    """A file or directory of the host, copied into the sandbox before `setup`."""

    from_: Text = Field(alias="from", examples=["./fixtures/shapes"], json_schema_extra=HOST_PATH)
    """The host's file or directory, relative to the recipe."""
    to: Text = Field(".", examples=["src"], json_schema_extra=WORK_PATH)
    """Relative to the workdir. A directory's contents go into it; a file is put there, or under a
    name that ends it."""


class GitFile(Frozen):
    """A git work tree of the host, as one bundle: without ignored files, hooks, remotes or
    credentials."""

    git: Text = Field(examples=["."], json_schema_extra=HOST_PATH)
    """The work tree, relative to the recipe."""
    to: Text = Field(".", examples=["repo"], json_schema_extra=WORK_PATH)
    """A directory relative to the workdir."""
    ref: Text = Field("HEAD", examples=["HEAD", "main"])
    """What is checked out. With `HEAD`, uncommitted changes are not taken along."""


class TextFile(Frozen):
    """A long text in a file of its own: a template with its own positions."""

    file: Text = Field(
        examples=["prompts/plan.md"], json_schema_extra=LITERAL | HOST_PATH | {"x-text": True}
    )
    """The file, relative to the recipe."""


class Model(Frozen):
    """Which model answers, and how it is reached."""

    name: Text | None = Field(None, examples=["kimi-k2-thinking-turbo"])
    """The provider's name for the model. Defaults to `KIMI_MODEL_NAME`."""
    provider: Literal["kimi", "openai_legacy", "openai_responses", "anthropic", "google_genai"] = (
        "kimi"
    )
    """The protocol that the server speaks."""
    base_url: Text | None = Field(None, examples=["https://api.moonshot.ai/v1"])
    """The server. Defaults to `KIMI_BASE_URL`, then to the provider's own."""
    api_key_env: HostVariable = Field("KIMI_API_KEY", examples=["KIMI_API_KEY"])
    """The name of the host variable that holds the key."""
    max_context: Count | None = Field(None, examples=["256k"])
    """The model's context window in tokens."""
    replay: Text | None = Field(
        None, examples=["cassettes/quickstart.yaml"], json_schema_extra=HOST_PATH
    )
    """A cassette, relative to the recipe: the model's turns are played from it, with no key and no
    network."""


class ApprovalRule(Frozen):
    """Decides tool calls; the first rule that matches wins, and what no rule matches is allowed."""

    tool: ToolName | Literal["*"] = "*"
    """The tool that the rule is about; `*` is every tool."""
    match: Text = Field("*", examples=["rm *", "src/**"])
    """A shell-style pattern over the command (shell) or the path (file tools)."""
    action: Literal["allow", "deny", "ask"]
    """`ask` without a terminal is `deny`. A denial reaches the agent as a tool error, and the turn
    goes on."""


class Agent(Frozen):
    """The agent and its tools."""

    model: Text | Model = Field(default_factory=Model, examples=["kimi-k2-thinking-turbo"])
    """The model's name, or a mapping."""
    tools: tuple[ToolName, ...] = DEFAULT_TOOLS
    """What the agent may use. All but `fetch` act inside the sandbox only."""
    approvals: tuple[ApprovalRule, ...] = ()
    """Which tool calls are allowed, denied or asked for."""

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
    tokens: Count | None = Field(None, examples=["400k"])
    """Input and output tokens, cache reads included."""


class RunCheck(Frozen):
    """A shell command in the workdir that must exit with 0."""

    run: Text = Field(examples=["python3 -m unittest -q"], json_schema_extra=SHELL)
    """The command."""
    name: Text | None = Field(None, examples=["tests"])
    """What the check is called in the report. Defaults to the command."""
    timeout: Duration = 600.0
    """How long the command may take."""


class FileCheck(Frozen):
    """A file that must exist, relative to the workdir."""

    file: Text = Field(examples=["PLAN.md"], json_schema_extra=WORK_PATH)
    """The file, relative to the workdir."""
    name: Text | None = Field(None, examples=["plan"])
    """What the check is called in the report. Defaults to the path."""


class ChangedCheck(Frozen):
    """A glob, relative to the workdir: at least one file that it matches must have changed."""

    changed: Text = Field(examples=["**/*.py"], json_schema_extra=WORK_PATH)
    """The glob; `**` stands for any directories."""
    name: Text | None = Field(None, examples=["code"])
    """What the check is called in the report. Defaults to the glob."""


Check = RunCheck | FileCheck | ChangedCheck


class Output(Frozen):
    """What the final message must be."""

    schema_: dict[str, Any] = Field(
        alias="schema",
        examples=[{"type": "object", "required": ["title"]}],
        json_schema_extra=LITERAL,
    )
    """A JSON schema: the final message must be JSON that is valid against it."""


class Prompt(Frozen):
    """One turn of the agent, and what must hold after it."""

    text: Text | TextFile = Field(examples=["Fix the failing test."])
    """What the agent is told, or the file that holds it."""
    id: Id | None = None
    """The name by which later templates refer to it."""
    checks: tuple[Check, ...] = ()
    """What must hold after this prompt."""
    retry: int = Field(default=0, ge=0, le=20)
    """How many further turns may be used when a check fails: same session, same sandbox, the
    failing output fed back."""
    output: Output | None = None
    """What the final message must be."""


class PathArtifact(Frozen):
    """Files that come home into the run's `artifacts/`."""

    path: Text = Field(examples=["PLAN.md", "reports/**"], json_schema_extra=WORK_PATH)
    """A file, a directory or a glob, relative to the workdir."""
    to: Text | None = Field(None, examples=["plan.md"], json_schema_extra=WORK_PATH)
    """The name at home. Defaults to the path itself."""
    optional: bool = False
    """Whether it may be missing."""


class PatchArtifact(Frozen):
    """Everything that changed since the baseline, as one patch that `git apply` takes."""

    patch: Text = Field(examples=["."], json_schema_extra=WORK_PATH)
    """A directory, relative to the workdir."""
    to: Text = Field("change.patch", json_schema_extra=WORK_PATH)
    """The name at home."""
    optional: bool = False
    """Whether it may be empty."""


Artifact = PathArtifact | PatchArtifact


def _as_prompt(value: Any) -> Any:
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, dict) and "file" in value and "text" not in value:
        return {"text": value}
    return value


def _as_backend(value: Any) -> Any:
    from kaos_runner.recipe.registry import backend_classes

    fields = {"type": value} if isinstance(value, str) else value
    if not isinstance(fields, dict):
        return value
    name = fields.get("type")
    known = backend_classes()
    if name not in known:
        msg = f"unknown backend `{name}`"
        raise ValueError(msg)
    return known[name].config.model_validate(fields)


class Recipe(Frozen):
    """One agent run: which sandbox, which prompts, what must hold afterwards, what comes home."""

    version: Literal[1] = Field(json_schema_extra=LITERAL)
    """The version of the recipe language."""
    name: str = Field(pattern=NAME_PATTERN, examples=["quickstart"], json_schema_extra=LITERAL)
    """The recipe's name: letters, digits, `.`, `_` and `-`; at most 63."""
    description: str = Field("", examples=["Fix the failing test and bring home a patch."])
    """What the recipe is for."""
    params: dict[Id, Param] = Field(default_factory=dict, json_schema_extra=LITERAL)
    """Typed inputs, used in templates as `{{ params.NAME }}` and set with `-p NAME=VALUE`."""
    backend: Annotated[SerializeAsAny[BackendConfig], BeforeValidator(_as_backend)]
    """Where the sandbox runs: a backend's name, or a mapping with its `type` and its own fields."""
    image: Text | None = Field(None, examples=["python:3.12-slim"])
    """What the sandbox is made from: an OCI image, or a provider's template. Defaults to the
    backend's own."""
    workdir: Text | None = Field(None, examples=["/home/user/kimi-workdir"])
    """The sandbox directory that the agent works in. Defaults to the backend's own."""
    env: dict[Variable, str] = Field(
        default_factory=dict, examples=[{"PYTHONDONTWRITEBYTECODE": "1"}]
    )
    """The sandbox's environment variables."""
    secrets: tuple[HostVariable, ...] = ()
    """Names of host variables that are handed to the sandbox, and masked everywhere else."""
    network: Network = Field(default_factory=Network)
    """What the sandbox may reach."""
    files: tuple[PathFile | GitFile, ...] = ()
    """What is brought into the sandbox before `setup`."""
    setup: tuple[Annotated[Text, Field(json_schema_extra=SHELL)], ...] = Field(
        (), examples=[["python3 -m pip install -q pytest"]]
    )
    """Shell commands in the workdir; the first that fails ends the run."""
    agent: Agent = Field(default_factory=Agent)
    """The agent: its model, its tools, its approvals."""
    limits: Limits = Field(default_factory=Limits)
    """What the run may use at most."""
    prompts: tuple[
        Annotated[
            Prompt, BeforeValidator(_as_prompt, json_schema_input_type=Text | Prompt | TextFile)
        ],
        ...,
    ] = Field(min_length=1)
    """The agent's turns, in order, in one session; a plain string is a prompt with that text."""
    checks: tuple[Check, ...] = ()
    """What must hold after the last prompt."""
    artifacts: tuple[Artifact, ...] = ()
    """What comes home, also after a failure."""
    cleanup: Cleanup | None = None
    """What becomes of the sandbox. Defaults to the backend's own: `always`, but `never` on
    Sprites."""
