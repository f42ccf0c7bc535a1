"""One typed stream: every sink and every record is fed by these events.

An event is a frozen pydantic model with a literal `type`. `Bus.emit` stamps it (`run_id`, `seq`,
`at`), masks every
string in it once, and hands the `Record` to each sink in turn. Sinks never see an unmasked value.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_origin

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA: Literal["kaos-runner/event/1"] = "kaos-runner/event/1"

Phase = Literal[
    "prepare", "sandbox", "workspace", "session", "prompts", "checks", "artifacts", "cleanup"
]
Status = Literal[
    "succeeded",  # 0
    "failed",  # 1: a check, an output schema or a required artifact
    "invalid",  # 2
    "unmet",  # 3: a prerequisite
    "sandbox_failed",  # 4
    "agent_failed",  # 5
    "limit_reached",  # 6
    "cleanup_failed",  # 7
    "error",  # 70
    "timed_out",  # 124
    "interrupted",  # 130, 143
]


class Event(BaseModel):
    """Base of all events."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunStarted(Event):
    """The plan is made and nothing has been started."""

    type: Literal["run_started"] = "run_started"
    recipe: str
    recipe_file: str
    recipe_digest: str
    backend: str
    isolation: str | None = Field(description="local only: what was asked for.")
    workdir: str | None
    model: str
    replay: bool = Field(description="The model's turns come from a cassette.")
    prompts: int
    run_dir: str


class PhaseStarted(Event):
    """A phase of the lifecycle begins."""

    type: Literal["phase_started"] = "phase_started"
    phase: Phase


class PhaseFinished(Event):
    """A phase of the lifecycle has ended, well or not."""

    type: Literal["phase_finished"] = "phase_finished"
    phase: Phase
    seconds: float
    ok: bool


class Notice(Event):
    """Something that the user should know, such as a missing isolation or a kept sandbox."""

    type: Literal["notice"] = "notice"
    level: Literal["info", "warning", "error"]
    message: str
    hint: str | None = None


class Retry(Event):
    """A transient failure is tried again."""

    type: Literal["retry"] = "retry"
    operation: str
    attempt: int = Field(description="The attempt that failed, from 1.")
    reason: str
    wait_seconds: float


class SandboxReady(Event):
    """The sandbox exists and answers."""

    type: Literal["sandbox_ready"] = "sandbox_ready"
    backend: str
    sandbox_id: str
    created: bool = Field(description="False: connected to, and so never deleted.")
    workdir: str
    isolation: str | None = Field(
        default=None, description="local only: what was used, `bubblewrap` or `none`."
    )
    remove: str | None = Field(
        default=None, description="How to remove it by hand, should the run be killed."
    )


class SandboxEnded(Event):
    """What became of the sandbox."""

    type: Literal["sandbox_ended"] = "sandbox_ended"
    sandbox_id: str
    end: Literal["deleted", "kept", "paused", "left", "failed"] = Field(
        description="`left`: connected to, so not ours. `failed`: could not be cleaned up."
    )
    reason: str
    command: str | None = Field(
        default=None, description="How to come back to it, or to remove it."
    )


class SetupFinished(Event):
    """One line of `setup` has run."""

    type: Literal["setup_finished"] = "setup_finished"
    command: str
    exit_code: int
    output: str = Field(description="The end of stdout and stderr together.")
    seconds: float


class TurnStarted(Event):
    """A prompt, or a retry of it, is given to the agent."""

    type: Literal["turn_started"] = "turn_started"
    prompt: int
    prompt_id: str | None
    attempt: int = Field(description="1 for the prompt itself, then one more for each retry.")
    text: str


class StepStarted(Event):
    """One model call begins."""

    type: Literal["step_started"] = "step_started"
    step: int = Field(description="Counts over the whole run, subagents included, from 1.")
    subagent: bool = False


class Text(Event):
    """A piece of the model's text."""

    type: Literal["text"] = "text"
    text: str
    subagent: bool = False


class Think(Event):
    """A piece of the model's thinking."""

    type: Literal["think"] = "think"
    text: str
    subagent: bool = False


class ToolCall(Event):
    """The model calls a tool. `call` is unique within the run; the provider's own id need not
    be."""

    type: Literal["tool_call"] = "tool_call"
    call: int
    tool: str
    arguments: dict[str, Any] | str = Field(
        description="Parsed; the raw text where it is not JSON."
    )
    subagent: bool = False


class ToolResult(Event):
    """A tool call has ended; results arrive in the order of completion."""

    type: Literal["tool_result"] = "tool_result"
    call: int
    tool: str
    ok: bool
    output: str
    seconds: float
    subagent: bool = False


class Approval(Event):
    """A tool call was decided by a rule, by a person, or by the default."""

    type: Literal["approval"] = "approval"
    call: int
    tool: str
    decision: Literal["allow", "deny"]
    by: Literal["rule", "person", "no_terminal"]
    rule: str | None = None


class Usage(Event):
    """Tokens of one model call."""

    type: Literal["usage"] = "usage"
    input: int = Field(description="All input tokens, cache reads and writes included.")
    output: int
    cache_read: int
    cache_write: int
    subagent: bool = False


class TurnFinished(Event):
    """The agent's turn is over."""

    type: Literal["turn_finished"] = "turn_finished"
    prompt: int
    prompt_id: str | None
    attempt: int
    final_message: str
    steps: int
    tool_calls: int


class PromptFinished(Event):
    """A prompt, its checks and its retries are over."""

    type: Literal["prompt_finished"] = "prompt_finished"
    prompt: int
    prompt_id: str | None
    status: Literal["succeeded", "failed"]
    attempts: int
    final_message: str
    output: Any = Field(default=None, description="Parsed, where the prompt has an output schema.")


class CheckFinished(Event):
    """A check, or an output schema, was tried."""

    type: Literal["check_finished"] = "check_finished"
    name: str
    kind: Literal["run", "file", "changed", "output"]
    prompt: int | None = Field(description="None: a check of the recipe.")
    attempt: int = 1
    ok: bool
    detail: str
    seconds: float
    file: str | None = Field(default=None, description="The recipe file that declares it.")
    line: int | None = None
    column: int | None = None


class ArtifactCollected(Event):
    """An artifact came home, or did not."""

    type: Literal["artifact"] = "artifact"
    name: str = Field(description="Relative to the run's `artifacts/`.")
    kind: Literal["path", "patch"]
    ok: bool
    required: bool
    size: int | None = Field(default=None, description="Bytes.")
    sha256: str | None = None
    detail: str = Field(default="", description="For a patch its stat; for a failure its reason.")


class RunFinished(Event):
    """The last event: what became of the run."""

    type: Literal["run_finished"] = "run_finished"
    status: Status
    exit_code: int
    message: str
    hint: str | None = None
    seconds: float
    steps: int
    input_tokens: int
    output_tokens: int


AnyEvent = Annotated[
    RunStarted
    | PhaseStarted
    | PhaseFinished
    | Notice
    | Retry
    | SandboxReady
    | SandboxEnded
    | SetupFinished
    | TurnStarted
    | StepStarted
    | Text
    | Think
    | ToolCall
    | ToolResult
    | Approval
    | Usage
    | TurnFinished
    | PromptFinished
    | CheckFinished
    | ArtifactCollected
    | RunFinished,
    Field(discriminator="type"),
]


class Record(BaseModel):
    """An event as it is written: one line of `events.jsonl` and of `--output stream-json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["kaos-runner/event/1"] = Field(default=SCHEMA, alias="schema")
    run_id: str
    seq: int = Field(description="From 1, without gaps.")
    at: datetime = Field(description="UTC.")
    event: AnyEvent

    def line(self) -> str:
        """The record as one line of JSON, without the line end."""
        return self.model_dump_json(by_alias=True)


class Sink(Protocol):
    """Something that takes records; it never raises for what is in them."""

    def handle(self, record: Record) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """The stream is over; idempotent."""
        ...


class Bus:
    """Stamps, masks and fans out."""

    def __init__(self, run_id: str, mask: Callable[[str], str]) -> None:
        self.run_id = run_id
        self._mask = mask
        self._sinks: list[Sink] = []
        self._seq = 0

    def attach(self, sink: Sink) -> None:
        """Give every later record to `sink` too."""
        self._sinks.append(sink)

    def emit(self, event: AnyEvent) -> None:
        """Stamp, mask and hand on one event."""
        self._seq += 1
        record = Record(
            run_id=self.run_id,
            seq=self._seq,
            at=datetime.now(UTC),
            event=_masked_event(event, self._mask),
        )
        for sink in self._sinks:
            sink.handle(record)

    def notice(self, level: str, message: str, hint: str | None = None) -> None:
        """Tell the user something; any level but `warning` and `error` is `info`."""
        if level == "warning":
            self.emit(Notice(level="warning", message=message, hint=hint))
        elif level == "error":
            self.emit(Notice(level="error", message=message, hint=hint))
        else:
            self.emit(Notice(level="info", message=message, hint=hint))

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Tell when a phase begins and ends."""
        started = time.monotonic()
        self.emit(PhaseStarted(phase=name))
        ok = False
        try:
            yield
            ok = True
        finally:
            self.emit(PhaseFinished(phase=name, seconds=time.monotonic() - started, ok=ok))

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()


def _masked_event(event: AnyEvent, mask: Callable[[str], str]) -> AnyEvent:
    """Mask every free string; a literal, such as `type`, cannot hold a secret."""
    free = {
        name: getattr(event, name)
        for name, info in type(event).model_fields.items()
        if get_origin(info.annotation) is not Literal
    }
    return event.model_copy(update=masked(free, mask))


def masked(value: Any, mask: Callable[[str], str]) -> Any:
    """The same JSON-like value with every string in it masked, keys included."""
    if isinstance(value, str):
        # Bytes of a name that are no UTF-8 arrive as lone surrogates, which no JSON can hold.
        return mask(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {masked(k, mask): masked(v, mask) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [masked(v, mask) for v in value]
    return value
