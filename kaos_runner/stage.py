"""The workspace as the lifecycle sees it: files in, setup, baseline, checks, artifacts out, each
told as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from kaos_runner import events, workspace
from kaos_runner.errors import RecipeError, SandboxError
from kaos_runner.recipe.model import ChangedCheck, FileCheck, PatchArtifact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kaos import Kaos

    from kaos_runner.events import Bus
    from kaos_runner.plan import Plan
    from kaos_runner.recipe.model import Check
    from kaos_runner.recipe.render import PromptOutcome
    from kaos_runner.workspace import ArtifactOutcome, Baseline, Mark

SHOWN = 4000
"""Characters of a setup command's output that are told."""


class Place(TypedDict):
    """Where a recipe declares something."""

    file: str | None
    line: int | None
    column: int | None


class Stage:
    """One run's workspace in one sandbox."""

    def __init__(self, plan: Plan, bus: Bus, kaos: Kaos) -> None:
        self.plan = plan
        self.bus = bus
        self.kaos = kaos
        self.workdir = str(kaos.getcwd())
        self.baseline: Baseline | None = None
        self.since: Mark | None = None

    @staticmethod
    async def examine(plan: Plan) -> None:
        """Look at the host's side of `files` before there is a sandbox.

        Raises:
            RecipeError: something of it cannot be taken; names every fault with its place.
        """
        found = await workspace.upload_problems(plan.recipe.files, recipe_dir=plan.rendered.dir)
        if found:
            raise RecipeError([plan.placed(problem) for problem in found])

    async def prepare(self) -> None:
        """Bring in `files`, run `setup`, and take the baseline if anything is measured against it.

        Raises:
            UsageError: a file of the host cannot be taken.
            SandboxError: a setup command failed, or the sandbox did.
        """
        recipe = self.plan.recipe
        await workspace.upload(
            self.kaos,
            recipe.files,
            recipe_dir=self.plan.rendered.dir,
            workdir=self.workdir,
            notify=self.bus.notice,
        )
        for command in recipe.setup:
            await self._setup(command)
        if self._measures:
            patches = [a.patch for a in recipe.artifacts if isinstance(a, PatchArtifact)]
            # A directory that only the run can name is somewhere in the workdir.
            roots = ["." if "{{" in patch else patch for patch in patches]
            self.baseline = await workspace.Baseline.take(self.kaos, self.workdir, roots)

    @property
    def _measures(self) -> bool:
        recipe = self.plan.recipe
        checks = [*recipe.checks, *(check for p in recipe.prompts for check in p.checks)]
        return any(isinstance(c, ChangedCheck) for c in checks) or any(
            isinstance(a, PatchArtifact) for a in recipe.artifacts
        )

    async def _setup(self, command: str) -> None:
        done = await workspace.run_setup(self.kaos, command, workdir=self.workdir)
        code = done.exit_code if done.exit_code is not None else -1
        self.bus.emit(
            events.SetupFinished(
                command=command, exit_code=code, output=done.output[-SHOWN:], seconds=done.seconds
            )
        )
        if code != 0:
            how = "did not end in time" if done.exit_code is None else f"exit code {code}"
            last = (done.output.strip().splitlines() or [""])[-1]
            msg = f"setup failed ({how}): {command.strip().splitlines()[0]}"
            raise SandboxError(msg, hint=f"its last line: {last}" if last else None)

    async def mark(self) -> None:
        """Let the next prompt's own `changed` count from now."""
        if self.baseline:
            self.since = await self.baseline.mark()

    async def check(
        self, check: Check, where: tuple[str | int, ...], *, prompt: int | None, attempt: int
    ) -> events.CheckFinished:
        """Try one check; a recipe's own counts from the baseline, a prompt's from its beginning."""
        done = await workspace.run_check(
            self.kaos,
            check,
            workdir=self.workdir,
            baseline=self.baseline,
            since=None if prompt is None else self.since,
        )
        result = events.CheckFinished(
            name=check.name or _described(check),
            kind=_kind(check),
            prompt=prompt,
            attempt=attempt,
            ok=done.ok,
            detail=done.detail,
            seconds=done.seconds,
            **self.place(where),
        )
        self.bus.emit(result)
        return result

    def place(self, where: tuple[str | int, ...]) -> Place:
        """Where the recipe declares what stands at a path."""
        file, line, column = self.plan.rendered.place(where)
        return {"file": file, "line": line, "column": column}

    async def bring_home(self, outcomes: Sequence[PromptOutcome], into: Path) -> list[str]:
        """Collect the artifacts into a directory; gives the names of required ones that did not
        come."""
        artifacts = self.plan.rendered.artifacts(outcomes)
        collected: list[ArtifactOutcome] = await workspace.collect(
            self.kaos,
            artifacts,
            workdir=self.workdir,
            baseline=self.baseline,
            into=into,
            scan=self.plan.mask.scan,
        )
        for artifact in collected:
            self.bus.emit(
                events.ArtifactCollected(
                    name=artifact.name,
                    kind=artifact.kind,
                    ok=artifact.ok,
                    required=artifact.required,
                    size=artifact.size,
                    sha256=artifact.sha256,
                    detail=artifact.detail,
                )
            )
        return [a.name for a in collected if a.required and not a.ok]

    async def leave(self) -> None:
        """Remove from the sandbox what was kept there to measure changes."""
        if self.baseline:
            await self.baseline.remove()


def _kind(check: Check) -> str:
    if isinstance(check, FileCheck):
        return "file"
    return "changed" if isinstance(check, ChangedCheck) else "run"


def _described(check: Check) -> str:
    """A check's name where the recipe gives none."""
    if isinstance(check, FileCheck):
        return f"file {check.file}"
    if isinstance(check, ChangedCheck):
        return f"changed {check.changed}"
    return check.run.strip().partition("\n")[0]
