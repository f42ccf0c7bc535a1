"""What a session is opened with, and what a turn of it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from kaos import Kaos

    from kaos_runner.events import AnyEvent
    from kaos_runner.recipe.model import Agent, ApprovalRule, Limits

BASE_URLS = {
    "kimi": "https://api.moonshot.ai/v1",
    "openai_legacy": "https://api.openai.com/v1",
    "openai_responses": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google_genai": "https://generativelanguage.googleapis.com",
}
"""Where each provider answers unless the recipe or a variable says otherwise."""

DEFAULT_CONTEXT = 128_000
"""Tokens; the SDK compacts a conversation that comes within 50 000 of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Which model answers, resolved: no variable is read after this."""

    type: str = "kimi"
    base_url: str | None = None
    """None: the provider's own."""
    api_key: str = ""
    model: str = ""
    max_context: int | None = None
    api_key_env: str = "KIMI_API_KEY"
    """The variable that the key came from, for the hint when it is refused."""

    @property
    def url(self) -> str:
        """Where the model is asked."""
        return self.base_url or BASE_URLS[self.type]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalQuestion:
    """A tool call that a person is asked about."""

    call: int
    tool: str
    subject: str
    """The command, or the path."""
    arguments: Mapping[str, Any] | str
    rule: ApprovalRule


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """Everything that a session needs."""

    agent: Agent
    provider: Provider
    kaos: Kaos
    backend: str
    isolation: str | None
    """What separates it from the host: `bubblewrap`, `none`; None where the provider does."""
    workdir: str
    limits: Limits
    emit: Callable[[AnyEvent], None]
    mask: Callable[[str], str]
    """Applied to a tool's result before the model sees it, and to all that a cassette records."""
    ask: Callable[[ApprovalQuestion], Awaitable[bool]] | None = None
    """None: there is nobody to ask, and `ask` is `deny`."""
    session_dir: Path
    """The run's `session/`: holds the conversation, and so must be private."""
    replay: Path | None = None
    record: Path | None = None
    resume: str | None = None
    """The id of the session that `session_dir` holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What came of one turn."""

    final_message: str
    steps: int
    tool_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a session has used so far, subagents included.

    `input` counts every input token; `cache_read` and `cache_write` are parts of it.
    """

    steps: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    tool_calls: int = 0
