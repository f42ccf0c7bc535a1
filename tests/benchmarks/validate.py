"""What `validate` costs: one recipe as a whole process, and a thousand in one call."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPE = "recipes/quickstart.yaml"
SCHEMA = "schemas/recipe.schema.json"
PAIRS = 9
MANY = 1000


def main() -> None:
    """Print both."""
    whole_process()
    thousand_in_one_call()


def whole_process() -> None:
    """One recipe, against check-jsonschema on the same file and schema, pair by pair."""
    tools = Path(sys.executable).parent
    ours = [str(tools / "kaos-runner"), "validate", RECIPE]
    theirs = [str(tools / "check-jsonschema"), "--schemafile", SCHEMA, RECIPE]
    _seconds(ours), _seconds(theirs)  # the first run of each compiles and fills caches
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(PAIRS)]
    ratios = sorted(one / other for one, other in pairs)
    print(
        f"validate, whole process: {statistics.median(one for one, _ in pairs) * 1000:.0f} ms,"
        f" check-jsonschema {statistics.median(other for _, other in pairs) * 1000:.0f} ms;"
        f" ratio {statistics.median(ratios):.2f}x (pairs: {ratios[0]:.2f}-{ratios[-1]:.2f}),"
        " target 1.0x, aim 0.7x"
    )


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def thousand_in_one_call() -> None:
    """A thousand recipes of every field, each with texts of its own, on one core."""
    text = (ROOT / "tests/recipes/valid/everything.yaml").read_text(encoding="utf-8")
    small = (ROOT / RECIPE).read_text(encoding="utf-8")
    small = small.replace("fixtures/quickstart", "parts").replace("cassettes/quickstart.yaml", "c")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "parts").mkdir()
        (folder / "c").write_text("")
        (folder / "parts" / "title.md").write_text("{{ params.mode }} {{ params.ratio }}\n")
        for kind, source in (("quickstart", small), ("every field", text)):
            _thousand(folder, kind, source)


def _thousand(folder: Path, kind: str, text: str) -> None:
    names = [f"{number}.yaml" for number in range(MANY)]
    for number, name in enumerate(names):
        # A text of its own in every template: nothing is parsed once and found again.
        own = text.replace(" {{", f" {number} {{{{", 3).replace("mend it", f"mend it {number}")
        (folder / name).write_text(own, encoding="utf-8")
    command = [sys.executable, "-m", "kaos_runner", "validate", "-q", *names]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun, before = time.perf_counter(), os.times()
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - begun, os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    outcome = "all valid" if done.returncode == 0 else done.stdout.splitlines()[0]
    print(
        f"validate, {MANY} recipes in one call ({kind}): {MANY / wall:.0f} a second of wall time,"
        f" {MANY / cpu:.0f} a second of CPU time, aim 300; {outcome}"
    )


if __name__ == "__main__":
    main()
