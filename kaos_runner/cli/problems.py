"""How an error is told: as a compiler would, on standard error, never as a traceback."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.errors import ExitCode, KaosRunnerError, PrerequisiteError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kaos_runner.errors import Problem


def tell(error: KaosRunnerError) -> int:
    """Write an expected error to standard error, and give its exit code."""
    problems = error.problems if isinstance(error, RecipeError | PrerequisiteError) else ()
    if problems:
        tell_problems(problems)
    else:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
    return error.code


def tell_problems(problems: Sequence[Problem]) -> None:
    """Write problems to standard error with their source lines."""
    from kaos_runner.recipe.report import as_text

    print(as_text(problems), file=sys.stderr)


def tell_bug(error: Exception) -> int:
    """Write a bug's traceback to a file of its own, and say where and what to report."""
    text = "".join(traceback.format_exception(error))
    fd, name = tempfile.mkstemp(prefix="kaos-runner-bug-", suffix=".log")
    with os.fdopen(fd, "w") as log:
        log.write(text)
    print(f"error: a bug in kaos-runner: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"  log: {Path(name)}", file=sys.stderr)
    print("  please report it with that log; read it first, it can quote values", file=sys.stderr)
    return int(ExitCode.BUG)
