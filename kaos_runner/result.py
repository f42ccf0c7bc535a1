"""`result.json`: what became of a run, in one document, made from the run's events."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kaos_runner import events

if TYPE_CHECKING:
    from kaos_runner.events import Record


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Usage(_Part):
    """Model calls and tokens of the whole run, subagents included."""

    steps: int = 0
    tool_calls: int = 0
    input: int = Field(default=0, description="Tokens, cache reads and writes included.")
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost: Literal["unpriced"] = Field(
        default="unpriced", description="No provider tells a price; none is made up."
    )


class SandboxResult(_Part):
    """Which sandbox it was, and what became of it."""

    id: str
    created: bool
    workdir: str
    end: str | None = None
    reason: str | None = None
    command: str | None = Field(default=None, description="How to come back to it or remove it.")


class PromptResult(_Part):
    """One prompt with its retries."""

    index: int
    id: str | None
    status: Literal["succeeded", "failed", "not_finished"] = "not_finished"
    attempts: int = 0
    final_message: str = ""
    output: Any = None


class CheckResult(_Part):
    """One check, tried once; a retried prompt has several."""

    name: str
    kind: str
    prompt: int | None
    attempt: int
    ok: bool
    detail: str
    seconds: float
    file: str | None = None
    line: int | None = None
    column: int | None = None


class ArtifactResult(_Part):
    """One artifact, at home or not."""

    name: str
    kind: str
    ok: bool
    required: bool
    size: int | None = Field(default=None, description="Bytes.")
    sha256: str | None = None
    detail: str = ""


class Result(_Part):
    """What became of a run."""

    schema_: Literal["kaos-runner/result/1"] = Field(default="kaos-runner/result/1", alias="schema")
    run_id: str
    recipe: str = ""
    recipe_file: str = ""
    recipe_digest: str = ""
    run_dir: str = ""
    backend: str = ""
    isolation: str | None = None
    model: str = ""
    replay: bool = False
    status: events.Status = "error"
    exit_code: int = 70
    message: str = "the run did not come to its end"
    hint: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float = 0
    phases: dict[str, float] = Field(default_factory=dict, description="Seconds by phase.")
    usage: Usage = Field(default_factory=Usage)
    sandbox: SandboxResult | None = None
    prompts: list[PromptResult] = Field(default_factory=list)
    checks: list[CheckResult] = Field(default_factory=list)
    artifacts: list[ArtifactResult] = Field(default_factory=list)
    problems: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Why nothing was started: an invalid recipe, a missing key.",
    )
    notices: list[str] = Field(default_factory=list, description="Warnings and errors told.")

    @property
    def final_message(self) -> str:
        """The last message that the agent gave."""
        said = [prompt.final_message for prompt in self.prompts if prompt.final_message]
        return said[-1] if said else ""


def absorb(result: Result, record: Record) -> None:
    """Take one record into the result; the records of a run, in order, give its result."""
    match record.event:
        case events.RunStarted() as event:
            result.started_at = record.at
            result.prompts = [PromptResult(index=i, id=None) for i in range(event.prompts)]
            for name in ("recipe", "recipe_file", "recipe_digest", "run_dir", "backend"):
                setattr(result, name, getattr(event, name))
            result.isolation, result.model = event.isolation, event.model
            result.replay = event.replay
        case events.PhaseFinished() as event:
            result.phases[event.phase] = result.phases.get(event.phase, 0) + event.seconds
        case events.Notice(level="warning" | "error") as event:
            result.notices.append(event.message)
        case events.SandboxReady() as event:
            result.isolation = event.isolation
            result.sandbox = SandboxResult(
                id=event.sandbox_id,
                created=event.created,
                workdir=event.workdir,
                command=event.remove,
            )
        case events.SandboxEnded() as event if result.sandbox:
            result.sandbox.end, result.sandbox.reason = event.end, event.reason
            result.sandbox.command = event.command
        case events.CheckFinished() as event:
            result.checks.append(CheckResult(**event.model_dump(exclude={"type"})))
        case events.ArtifactCollected() as event:
            result.artifacts.append(ArtifactResult(**event.model_dump(exclude={"type"})))
        case events.RunFinished() as event:
            result.status, result.exit_code = event.status, event.exit_code
            result.message, result.hint = event.message, event.hint
            result.seconds, result.finished_at = event.seconds, record.at
        case _:
            _absorb_turn(result, record.event)


def _absorb_turn(result: Result, event: events.AnyEvent) -> None:
    usage = result.usage
    match event:
        case events.StepStarted():
            usage.steps += 1
        case events.ToolCall():
            usage.tool_calls += 1
        case events.Usage():
            usage.input += event.input
            usage.output += event.output
            usage.cache_read += event.cache_read
            usage.cache_write += event.cache_write
        case events.TurnStarted():
            prompt = result.prompts[event.prompt]
            prompt.id, prompt.attempts = event.prompt_id, event.attempt
        case events.TurnFinished():
            result.prompts[event.prompt].final_message = event.final_message
        case events.PromptFinished():
            prompt = result.prompts[event.prompt]
            prompt.status, prompt.output = event.status, event.output
            prompt.final_message, prompt.attempts = event.final_message, event.attempts
        case _:
            pass
