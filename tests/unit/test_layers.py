"""Imports point one way, and heavy SDKs are imported where they are chosen."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kaos_runner"

# What each layer may import of ours, besides itself. The order is the design's:
# cli -> runner -> {agent, backends -> kaos} -> recipe -> errors; sinks know events only.
BASE = {"errors"}
ALLOWED = {
    "errors": set(),
    "events": set(),
    "recipe": BASE,
    "secrets": BASE,
    "kaos": BASE | {"recipe", "backends.base"},
    "backends": BASE | {"recipe", "kaos"},
    "agent": BASE | {"recipe", "events", "kaos"},
    "workspace": BASE | {"recipe"},
    "sinks": {"events"},
    "result": {"events"},
    "ledger": {"backends.base"},
    "testing": BASE | {"recipe", "backends", "kaos"},
}
GENERATORS = {"recipe/generate.py"}
"""Run by hand: they may look at every type to write it down."""


def imports(file: Path) -> set[str]:
    """The modules of ours that a file imports, without `kaos_runner.`; type checking included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
            found |= set(names) if node.module == "kaos_runner" else {node.module}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    ours = {name.removeprefix("kaos_runner.") for name in found if name.startswith("kaos_runner.")}
    return {name for name in ours if not name.startswith("__")}


def layer_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_imports_point_one_way(layer: str) -> None:
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        if layer_of(file) != layer or str(file.relative_to(PACKAGE)) in GENERATORS:
            continue
        for name in imports(file):
            allowed = ALLOWED[layer] | {layer}
            if not any(name == a or name.startswith(f"{a}.") for a in allowed):
                wrong.append(f"{file.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_only_the_agent_imports_the_agents_sdk() -> None:
    wrong = [
        str(file)
        for file in PACKAGE.rglob("*.py")
        if layer_of(file) != "agent"
        and any(word in file.read_text() for word in ("import kimi_", "from kimi_", "from kosong"))
    ]
    assert wrong == []


def test_importing_the_package_loads_no_heavy_sdk() -> None:
    script = (
        "import sys, importlib\n"
        "for m in ('agent', 'backends.local', 'runner', 'plan', 'cli', 'conversation'):\n"
        "    importlib.import_module('kaos_runner.' + m)\n"
        "heavy = {'kimi_agent_sdk', 'kimi_cli', 'kosong', 'fastmcp', 'openai', 'e2b', 'sprites',"
        " 'boxlite'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
