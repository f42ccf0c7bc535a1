"""What the runner does in a sandbox around the agent: files in, checks, changes, artifacts out."""

from __future__ import annotations

from kaos_runner.workspace.artifacts import collect
from kaos_runner.workspace.baseline import Baseline, Mark
from kaos_runner.workspace.changes import PatchStat
from kaos_runner.workspace.checks import (
    CheckOutcome,
    CommandOutcome,
    run_check,
    run_command,
    run_setup,
)
from kaos_runner.workspace.delivery import ArtifactOutcome
from kaos_runner.workspace.upload import upload, upload_problems

__all__ = [
    "ArtifactOutcome",
    "Baseline",
    "CheckOutcome",
    "CommandOutcome",
    "Mark",
    "PatchStat",
    "collect",
    "run_check",
    "run_command",
    "run_setup",
    "upload",
    "upload_problems",
]
