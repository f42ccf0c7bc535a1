"""The conformance suite for a backend: create, connect, keep, destroy, and what is left behind."""

from __future__ import annotations

from kaos_runner.testing.case import Suite


class BackendConformance(Suite):
    """Cases for a backend; see the methods without a body."""
