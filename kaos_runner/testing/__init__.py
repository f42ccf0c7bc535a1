"""Conformance suites for a Kaos and for a backend of your own; they need pytest.

class TestMyKaos(KaosConformance):
    @asynccontextmanager
    async def kaos(self):
        yield MyKaos(...)   # a fresh one, in an empty directory that can be written to
"""

from __future__ import annotations

from kaos_runner.testing.backend_suite import BackendConformance
from kaos_runner.testing.kaos_suite import KaosConformance

__all__ = ["BackendConformance", "KaosConformance"]
