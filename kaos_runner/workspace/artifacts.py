"""What a recipe wants brought home, also after a failure: files, directories, globs and patches."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from kaos_runner.errors import KaosRunnerError
from kaos_runner.recipe.model import PatchArtifact
from kaos_runner.workspace.delivery import ArtifactOutcome, Delivery
from kaos_runner.workspace.fetch import fetch
from kaos_runner.workspace.intake import Declined, Intake
from kaos_runner.workspace.listing import list_files
from kaos_runner.workspace.names import below, shown
from kaos_runner.workspace.unloading import Unloading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kaos import Kaos

    from kaos_runner.recipe.model import Artifact
    from kaos_runner.workspace.baseline import Baseline
    from kaos_runner.workspace.intake import NewScan

MAX_BYTES = 2**30
MAX_FILES = 10_000


async def collect(
    kaos: Kaos,
    artifacts: Sequence[Artifact],
    *,
    workdir: str,
    baseline: Baseline | None,
    into: Path,
    scan: NewScan = lambda: lambda _chunk: False,
    max_bytes: int = MAX_BYTES,
    max_files: int = MAX_FILES,
) -> list[ArtifactOutcome]:
    """Bring the artifacts into the folder `into`; an outcome for each, in their order.

    Two operations for all paths together, and what `Baseline.patch` takes for each patch. `scan`
    makes a search for the run's secrets over the chunks of one file. Expected failures are told
    in the outcomes, a sandbox that went away included; none is raised.
    """
    intake = Intake(into, scan, max_bytes=max_bytes, max_files=max_files)
    paths = [Delivery(a) for a in artifacts if not isinstance(a, PatchArtifact)]
    patches = [
        await _patch(artifact, baseline, intake)
        for artifact in artifacts
        if isinstance(artifact, PatchArtifact)
    ]
    if paths:
        await _deliver(kaos, workdir, paths, intake)
    outcomes = {True: iter(patches), False: (p.outcome(into) for p in paths)}
    return [next(outcomes[isinstance(a, PatchArtifact)]) for a in artifacts]


async def _patch(
    artifact: PatchArtifact, baseline: Baseline | None, intake: Intake
) -> ArtifactOutcome:
    name = shown(artifact.to)
    required = not artifact.optional
    failed = ArtifactOutcome(name, "patch", ok=False, required=required)
    if baseline is None:
        return replace(failed, detail="there is no baseline to compare with")
    try:
        place = below(artifact.to, "`to`")
        incoming = await asyncio.to_thread(intake.incoming, prefixed=True)
    except KaosRunnerError as error:
        return replace(failed, detail=shown(error.message))
    try:
        stat = await baseline.patch(
            artifact.patch, lambda chunk: asyncio.to_thread(incoming.feed, chunk)
        )
        if not stat.files:
            return replace(failed, detail="nothing changed")
        stored = await asyncio.to_thread(incoming.store, place)
    except KaosRunnerError as error:
        return replace(failed, detail=shown(error.message))
    finally:
        incoming.discard()
    if isinstance(stored, Declined):
        required = required or stored.secret
        return ArtifactOutcome(name, "patch", ok=False, required=required, detail=stored.reason)
    return ArtifactOutcome(
        name, "patch", ok=True, required=required, size=stored.size, sha256=stored.sha256,
        detail=str(stat), path=stored.path, files=(stored,),
    )  # fmt: skip


async def _deliver(
    kaos: Kaos, workdir: str, deliveries: Sequence[Delivery], intake: Intake
) -> None:
    """List what is wanted, then fetch it; what goes wrong is noted in the deliveries."""
    sound = [d for d in deliveries if d.wanted]
    try:
        found = await list_files(
            kaos, workdir, [d.wanted for d in sound if d.wanted], max_files=intake.max_files
        )
        for delivery, listed in zip(sound, found, strict=True):
            delivery.expect(listed)
        names = sorted({name for delivery in sound for name in delivery.places})
        if names:
            await _fetch(kaos, workdir, names, sound, intake)
    except KaosRunnerError as error:
        for delivery in sound:
            delivery.interrupted(shown(error.message))


async def _fetch(
    kaos: Kaos,
    workdir: str,
    names: Sequence[str],
    deliveries: Sequence[Delivery],
    intake: Intake,
) -> None:
    unloading = Unloading(deliveries, intake)
    try:
        ended = await fetch(kaos, workdir, names, unloading)
    finally:
        unloading.close()
    if ended.exit_code:
        for delivery in deliveries:
            delivery.complained(shown(ended.complaint))
