"""Every error that a user can meet, with its exit code and a hint.

    KaosRunnerError
    ├── DemandsUnmetError       1    it ran, and a check, an output schema or an artifact failed
    ├── UsageError              2    wrong usage
    │   └── RecipeError         2    an invalid recipe: carries its problems
    ├── PrerequisiteError       3    something needed is missing, found before create
    ├── SandboxError            4    the sandbox failed: create, connect, setup
    │   └── SandboxLostError    4    it went away in the middle
    ├── AgentError              5    the provider refused, an empty answer, a stream cut short
    │   └── CassetteDriftError  5    the run left the path that its cassette holds
    ├── LimitReachedError       6    steps, tokens, cost
    ├── CleanupError            7    all went well, but the sandbox could not be cleaned up
    ├── WallLimitError        124
    └── InterruptedRunError   130 (SIGINT), 143 (SIGTERM)

Anything else that reaches the command line is a bug of ours (exit code 70).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExitCode(IntEnum):
    """What the process ends with; the contract with scripts and CI."""

    OK = 0
    DEMANDS_UNMET = 1
    USAGE = 2
    PREREQUISITE = 3
    SANDBOX = 4
    AGENT = 5
    LIMIT = 6
    CLEANUP = 7
    BUG = 70
    WALL = 124
    SIGINT = 130
    SIGTERM = 143


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault of a recipe, or of what it needs, at a place.

    `line` and `column` count from 1, in characters; None where no place is known. `path` is the
    place in the
    document, such as `prompts[1].checks[0].run`. `source` is the faulty line for the caret; it is
    None where quoting
    the file could give away something that is not a recipe.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: str = ""
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"
    source: str | None = None
    length: int = 1

    def as_error(self) -> Problem:
        """The same problem as an error: what `--strict` makes of a warning."""
        return replace(self, severity="error")

    def __str__(self) -> str:
        place = ":".join(str(p) for p in (self.file, self.line, self.column) if p is not None)
        return f"{place}: {self.message}" if place else self.message


class KaosRunnerError(Exception):
    """Base of all expected errors: a sentence for the user, and the next step."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def code(self) -> int:
        """The exit code of this instance."""
        return int(self.exit_code)


class UsageError(KaosRunnerError):
    """The command line asks for something that makes no sense."""

    exit_code = ExitCode.USAGE


class RecipeError(UsageError):
    """The recipe is invalid; `problems` names every fault."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        errors = [p for p in self.problems if p.severity == "error"]
        super().__init__(str(errors[0]) if errors else "the recipe is invalid")


class DemandsUnmetError(KaosRunnerError):
    """The run came to its end, and something that the recipe demands does not hold."""

    exit_code = ExitCode.DEMANDS_UNMET


class PrerequisiteError(KaosRunnerError):
    """Something needed is missing: a key, a secret, a package, a device, a server."""

    exit_code = ExitCode.PREREQUISITE

    def __init__(
        self, message: str, *, hint: str | None = None, problems: Sequence[Problem] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class SandboxError(KaosRunnerError):
    """The sandbox failed: create, connect, setup."""

    exit_code = ExitCode.SANDBOX


class SandboxLostError(SandboxError):
    """The sandbox went away, expired or became unreachable in the middle of a run."""


class AgentError(KaosRunnerError):
    """The agent failed: the provider refused, an empty answer, a stream cut short."""

    exit_code = ExitCode.AGENT


class CassetteDriftError(AgentError):
    """The run left the path that its cassette holds; names the turn and the difference."""


class LimitReachedError(KaosRunnerError):
    """A limit of the recipe was reached: steps, tokens or cost."""

    exit_code = ExitCode.LIMIT


class CleanupError(KaosRunnerError):
    """The sandbox could not be cleaned up; `sandbox_id` and `command` say what is left and how to
    remove it."""

    exit_code = ExitCode.CLEANUP

    def __init__(self, message: str, *, sandbox_id: str, command: str) -> None:
        super().__init__(message, hint=f"remove it with: {command}")
        self.sandbox_id = sandbox_id
        self.command = command


class WallLimitError(KaosRunnerError):
    """The recipe's wall clock limit was reached."""

    exit_code = ExitCode.WALL


class InterruptedRunError(KaosRunnerError):
    """A signal ended the run; cleanup was done."""

    exit_code = ExitCode.SIGINT

    def __init__(self, signal_name: Literal["SIGINT", "SIGTERM"]) -> None:
        super().__init__(f"interrupted by {signal_name}")
        self.signal_name = signal_name

    @property
    def code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM."""
        return int(ExitCode.SIGINT if self.signal_name == "SIGINT" else ExitCode.SIGTERM)
