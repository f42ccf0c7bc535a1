"""Debian packages that a test needs: without one it skips on a desk, and fails in CI."""

from __future__ import annotations

import os

import pytest


def need(missing: list[str]) -> None:
    """Go on only if nothing is missing."""
    if not missing:
        return
    reason = f"Debian packages are missing: {' '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; they stand in .ci/apt.txt")
    pytest.skip(reason)
