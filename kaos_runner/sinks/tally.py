"""What a stream of records adds up to; every summary is written from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kaos_runner import events as ev

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(slots=True)
class Tokens:
    """The tokens of all model calls. `input` includes what came from a cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output


@dataclass(slots=True)
class Tally:
    """Sums and last words of a run, grown record by record."""

    run_id: str = ""
    began: datetime | None = None
    latest: datetime | None = None
    started: ev.RunStarted | None = None
    finished: ev.RunFinished | None = None
    phase: ev.PhaseStarted | None = None
    phases: list[ev.PhaseFinished] = field(default_factory=list)
    notices: list[ev.Notice] = field(default_factory=list)
    setup: list[ev.SetupFinished] = field(default_factory=list)
    begun: list[ev.TurnStarted] = field(default_factory=list)
    turns: list[ev.TurnFinished] = field(default_factory=list)
    prompts: list[ev.PromptFinished] = field(default_factory=list)
    steps: int = 0
    calls: int = 0
    running: dict[int, ev.ToolCall] = field(default_factory=dict)
    tokens: Tokens = field(default_factory=Tokens)
    tried: list[ev.CheckFinished] = field(default_factory=list)
    artifacts: list[ev.ArtifactCollected] = field(default_factory=list)
    sandbox: ev.SandboxReady | None = None
    ended: ev.SandboxEnded | None = None

    def add(self, record: ev.Record) -> None:
        """Take one record into account."""
        self.run_id = record.run_id
        self.began = self.began or record.at
        self.latest = record.at
        self._take(record.event)

    def _take(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.RunStarted():
                self.started = event
            case ev.RunFinished():
                self.finished = event
            case ev.PhaseStarted():
                self.phase = event
            case ev.PhaseFinished():
                self.phases.append(event)
            case ev.Notice():
                self.notices.append(event)
            case ev.SetupFinished():
                self.setup.append(event)
            case ev.SandboxReady():
                self.sandbox = event
            case ev.SandboxEnded():
                self.ended = event
            case ev.CheckFinished():
                self.tried.append(event)
            case ev.ArtifactCollected():
                self.artifacts.append(event)
            case _:
                self._take_turn(event)

    def _take_turn(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.TurnStarted():
                self.begun.append(event)
                self.running.clear()
            case ev.TurnFinished():
                self.turns.append(event)
                self.running.clear()
            case ev.PromptFinished():
                self.prompts.append(event)
            case ev.StepStarted():
                self.steps += 1
            case ev.ToolCall():
                self.calls += 1
                self.running[event.call] = event
            case ev.ToolResult():
                self.running.pop(event.call, None)
            case ev.Usage():
                self.tokens.input += event.input
                self.tokens.output += event.output
                self.tokens.cache_read += event.cache_read

    @property
    def turn(self) -> ev.TurnStarted | None:
        """The turn that began last."""
        return self.begun[-1] if self.begun else None

    @property
    def checks(self) -> list[ev.CheckFinished]:
        """The last attempt of every check, in the order in which they were first tried."""
        last = {(c.prompt, c.kind, c.name, c.line, c.column): c for c in self.tried}
        return list(last.values())

    @property
    def final_message(self) -> str:
        """The last message that the agent gave, empty where no turn ended."""
        return self.turns[-1].final_message if self.turns else ""

    @property
    def patch(self) -> ev.ArtifactCollected | None:
        """The first patch that came home."""
        return next((a for a in self.artifacts if a.ok and a.kind == "patch"), None)

    @property
    def isolated(self) -> bool:
        """False where the run says that nothing separates it from the host."""
        said = [part.isolation for part in (self.started, self.sandbox) if part is not None]
        return "none" not in said

    @property
    def outcome(self) -> Literal["unfinished"] | ev.Status:
        """How the run ended, as far as the records tell."""
        return self.finished.status if self.finished else "unfinished"
