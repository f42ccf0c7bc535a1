"""Requests for local sandboxes, as the runner would make them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest

from kaos_runner.backends.base import Labels, SandboxRequest
from kaos_runner.backends.local import LocalConfig
from kaos_runner.recipe.model import Network, Prompt, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator


def labels(run_id: str = "run-1") -> Labels:
    """The labels of a run."""
    return Labels(run_id=run_id, recipe="test", digest="0" * 64, version="0")


def request(
    *,
    isolation: Any = None,
    config: Literal["auto", "bubblewrap"] = "auto",
    network: Literal["allow", "deny"] = "allow",
    workdir: str | None = None,
    env: dict[str, str] | None = None,
    **fields: Any,
) -> SandboxRequest:
    """A request for a recipe with these fields."""
    recipe = Recipe(
        version=1,
        name="test",
        backend=LocalConfig(isolation=config),
        workdir=workdir,
        env=env or {},
        network=Network(default=network),
        prompts=(Prompt(text="x"),),
    )
    return SandboxRequest(recipe=recipe, environ={}, isolation=isolation, **fields)


@contextmanager
def temporary_files_in(directory: str) -> Iterator[None]:
    """Have sandboxes made in a directory."""
    before = tempfile.tempdir
    tempfile.tempdir = directory
    try:
        yield
    finally:
        tempfile.tempdir = before


def bubblewrap_works() -> bool:
    """Whether a sandbox can be isolated here."""
    command = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "true"]
    return shutil.which("bwrap") is not None and (
        subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


requires_bubblewrap = pytest.mark.skipif(
    not os.environ.get("CI") and not bubblewrap_works(),
    reason="needs the Debian package bubblewrap, and user namespaces",
)
"""Skips at a desk; fails in CI."""
