"""Sandboxes for the tests of the workspace."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.unit.workspace.boxes import USERLANDS, Box, new_box

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=USERLANDS)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    """A sandbox, in every userland."""
    return new_box(request.param, tmp_path)


@pytest.fixture
def full(tmp_path: Path) -> Box:
    """A sandbox that has everything."""
    return new_box("full", tmp_path)


@pytest.fixture
def slim(tmp_path: Path) -> Box:
    """A sandbox without git."""
    return new_box("slim", tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The folder of a recipe."""
    folder = tmp_path / "host"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves in the temporary directory goes with the test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))  # where tempfile keeps TMPDIR once read
