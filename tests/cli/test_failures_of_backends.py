"""A third party's backend that misbehaves: the exit code and the words stay truthful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import CommandLine, says

if TYPE_CHECKING:
    from pathlib import Path

MODULE = """
from typing import ClassVar, Literal
from kaos_runner.backends.base import Defaults
from kaos_runner.backends.local import LocalBackend, LocalConfig
from kaos_runner.errors import SandboxError
from kaos_runner.recipe.model import BackendConfig

class BrokenConfig(LocalConfig):
    type: Literal["broken"] = "broken"
    fault: Literal["destroy", "destroy-bug", "create", "create-bug"]

class BrokenBackend(LocalBackend):
    name: ClassVar[str] = "broken"
    config: ClassVar[type[BackendConfig]] = BrokenConfig

    async def create(self, request, labels):
        fault = request.recipe.backend.fault
        if fault == "create":
            raise SandboxError("the provider is out of machines", hint="try another region")
        if fault == "create-bug":
            raise KeyError("surprise")
        sandbox = await super().create(request, labels)
        if fault.startswith("destroy"):
            inner = sandbox.destroy
            async def destroy():
                await inner()
                if fault == "destroy":
                    raise SandboxError("the provider refused")
                raise ValueError("surprise")
            sandbox.destroy = destroy
        return sandbox
"""


@pytest.fixture
def broken(cli: CommandLine, tmp_path: Path) -> CommandLine:
    """A command line that knows the backend `broken`."""
    site = tmp_path / "site"
    info = site / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "broken_backend.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[kaos_runner.backends]\nbroken = broken_backend:BrokenBackend\n"
    )
    cli.environ["PYTHONPATH"] = str(site)
    return cli


def recipe(cli: CommandLine, fault: str, **fields: Any) -> Path:
    return cli.recipe([says("fine")], backend={"type": "broken", "fault": fault}, **fields)


@pytest.mark.parametrize("fault", ["destroy", "destroy-bug"])
def test_a_failed_cleanup_is_7_and_names_the_command(broken: CommandLine, fault: str) -> None:
    done = broken.run(recipe(broken, fault))

    assert done.code == 7, done.err
    sandbox = done.result["sandbox"]
    assert sandbox["end"] == "failed"
    assert sandbox["id"] in done.err
    assert sandbox["command"] in done.err


def test_a_failed_cleanup_leaves_the_primary_failure_its_code(broken: CommandLine) -> None:
    done = broken.run(recipe(broken, "destroy", checks=[{"file": "absent"}]))

    assert done.code == 1
    assert "the provider refused" in done.err


def test_a_failed_create_is_4(broken: CommandLine) -> None:
    done = broken.run(recipe(broken, "create"))

    assert done.code == 4
    assert "out of machines" in done.err
    assert "try another region" in done.err
    assert done.result["sandbox"] is None


def test_a_bug_is_70_with_a_log_and_no_traceback(broken: CommandLine) -> None:
    done = broken.run(recipe(broken, "create-bug"))

    assert done.code == 70
    assert "Traceback" not in done.err
    assert "bug.log" in done.err
    assert "surprise" in (done.run_dir / "bug.log").read_text()
