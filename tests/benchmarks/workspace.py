"""How files in, baseline, changes, patch and artifacts grow with the number of files."""

from __future__ import annotations

import asyncio
import resource
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.recipe.model import PatchArtifact, PathArtifact, PathFile
from kaos_runner.workspace import Baseline, collect, upload
from tests.unit.workspace.boxes import new_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.recipe.model import Artifact
    from tests.unit.workspace.boxes import Box

SIZES = (100, 1000, 10_000)
CONTENT = "a line of some forty characters or so\n" * 50
CHANGED = 10
"""One file in this many changes."""


def main() -> None:
    """Print seconds and operations of each step, with git in the sandbox and without."""
    for userland in ("full", "slim"):
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                print(f"{size} files, {'with' if userland == 'full' else 'without'} git")
                asyncio.run(_measure(userland, size, Path(folder)))


async def _measure(userland: str, size: int, folder: Path) -> None:
    box = new_box(userland, folder)
    tree = folder / "tree"
    for number in range(size):
        path = tree / str(number % 50) / f"file {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n{CONTENT}")
    workdir = str(box.workdir)
    with _timed(box, "upload"):
        await upload(box.kaos, [PathFile(from_="tree")], recipe_dir=folder, workdir=workdir)
    with _timed(box, "baseline"):
        baseline = await Baseline.take(box.kaos, workdir)
    with _timed(box, "mark"):
        since = await baseline.mark()
    for number in range(0, size, CHANGED):
        path = box.workdir / str(number % 50) / f"file {number}.txt"
        path.write_text(f"{CONTENT}{number}\n")
    with _timed(box, "changed"):
        await baseline.changed(since)
    wanted: dict[str, Artifact] = {
        "patch": PatchArtifact(patch="."),
        "collect": PathArtifact(path="."),
    }
    for name, artifact in wanted.items():
        with _timed(box, name):
            await collect(
                box.kaos,
                [artifact],
                workdir=workdir,
                baseline=baseline,
                into=folder / "home",
            )
    await baseline.remove()
    await box.kaos.end()
    shutil.rmtree(tree)


@contextmanager
def _timed(box: Box, name: str) -> Iterator[None]:
    box.kaos.operations = 0
    begun, worked = time.perf_counter(), _cpu()
    yield
    seconds, work = time.perf_counter() - begun, _cpu() - worked
    print(f"  {name:<9}{seconds:8.3f} s {work:8.3f} s CPU  {box.kaos.operations} operations")


def _cpu() -> float:
    """Seconds that this process and those it waited for have worked."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
