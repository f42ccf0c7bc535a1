"""Counts what a session uses, and stops it at the recipe's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos_runner.agent.spec import Totals
from kaos_runner.errors import LimitReachedError

if TYPE_CHECKING:
    from kaos_runner.recipe.model import Limits


class Meter:
    """Running totals over the root agent and its subagents."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.steps = 0
        self.input = 0
        self.output = 0
        self.cache_read = 0
        self.cache_write = 0
        self.tool_calls = 0

    @property
    def totals(self) -> Totals:
        """The totals as they are now."""
        return Totals(
            steps=self.steps,
            input=self.input,
            output=self.output,
            cache_read=self.cache_read,
            cache_write=self.cache_write,
            tool_calls=self.tool_calls,
        )

    @property
    def limits_tokens(self) -> bool:
        """Whether the recipe limits tokens."""
        return self._limits.tokens is not None

    def begin_step(self) -> int:
        """The number of the model call that may begin now.

        Raises:
            LimitReachedError: there may be no other.
        """
        limit = self._limits.steps
        if limit is not None and self.steps >= limit:
            msg = f"the limit of {limit} steps was reached"
            raise LimitReachedError(msg, hint="raise `limits.steps` in the recipe")
        self._check_tokens(spent=True)
        self.steps += 1
        return self.steps

    def add(self, *, fresh: int, output: int, cache_read: int, cache_write: int) -> None:
        """Count the tokens of one model call; `fresh` is input that no cache held or took.

        Raises:
            LimitReachedError: it used more than was left.
        """
        self.input += fresh + cache_read + cache_write
        self.output += output
        self.cache_read += cache_read
        self.cache_write += cache_write
        self._check_tokens(spent=False)

    def _check_tokens(self, *, spent: bool) -> None:
        limit, used = self._limits.tokens, self.input + self.output
        if limit is not None and (used > limit or (spent and used == limit)):
            msg = f"the limit of {limit} tokens was reached: {used} are used"
            raise LimitReachedError(msg, hint="raise `limits.tokens` in the recipe")
