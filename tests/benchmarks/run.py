"""What a run costs besides the agent: the runner's own share of the demo, and of each further
concurrent run.

The share is the wall time of the run less what is not ours: the SDK's import and session creation
(`session`), the
replayed model and the tools (`prompts`), and the commands of checks.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kaos_runner.agent.environment import claim
from kaos_runner.agent.preload import preload
from kaos_runner.events import Bus
from kaos_runner.ledger import Ledger
from kaos_runner.plan import Options, make_plan
from kaos_runner.record import ResultSink, RunDirectory, new_run_id
from kaos_runner.runner import Run

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "quickstart.yaml"
ROUNDS = 5
CONCURRENT = 20


def main() -> None:
    """Print both."""
    share()
    concurrency()


def share() -> None:
    """Whole processes of the demo, phase by phase."""
    ours, walls = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "kaos_runner", RECIPE, "--run-dir", folder, "-q"],
                check=True,
                capture_output=True,
            )
            walls.append(time.perf_counter() - begun)
            (file,) = Path(folder).glob("runs/*/result.json")
            result = json.loads(file.read_text())
        phases = result["phases"]
        checks = sum(check["seconds"] for check in result["checks"])
        # `sandbox` awaits the SDK's import, which runs beside it.
        ours.append(result["seconds"] - phases["session"] - phases["prompts"] - phases["sandbox"])
        print(
            f"  wall {walls[-1]:.2f} s; "
            + ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in phases.items())
            + f" ms (checks {checks * 1000:.0f} ms of it)"
        )
    print(
        f"runner's own share (workspace, artifacts, cleanup, record): "
        f"median {statistics.median(ours) * 1000:.0f} ms of {statistics.median(walls):.2f} s"
    )


def concurrency() -> None:
    """Runs in one process, and what one more of them costs in memory."""
    claim(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_together(Path(folder), 2))
        few = _peak()
        begun = time.perf_counter()
        codes = asyncio.run(_together(Path(folder), CONCURRENT))
        seconds = time.perf_counter() - begun
        more = _peak()
    print(f"{CONCURRENT} concurrent runs: {codes.count(0)} right, {seconds:.1f} s")
    print(f"one more concurrent run: {(more - few) / (CONCURRENT - 2) / 2**20:.2f} MiB")


async def _together(folder: Path, count: int) -> list[int]:
    await preload()
    return list(await asyncio.gather(*(_run(folder) for _ in range(count))))


async def _run(folder: Path) -> int:
    plan = make_plan(Options(recipe=RECIPE), dict(os.environ), new_run_id())
    directory = RunDirectory.create(folder, plan.run_id)
    bus = Bus(plan.run_id, plan.mask)
    bus.attach(ResultSink(directory))
    code = await Run(plan, bus, directory, Ledger(folder)).perform()
    return code if (directory.artifacts / "fix.patch").stat().st_size else -1


def _peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
