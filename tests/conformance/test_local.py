"""The suites over local sandboxes, with and without bubblewrap, and over pykaos' own LocalKaos."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from kaos_runner.testing import BackendConformance, KaosConformance
from kaos_runner.testing.backend_suite import World
from tests.unit.backends.local_requests import (
    labels,
    request,
    requires_bubblewrap,
    temporary_files_in,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from kaos import Kaos


class _Local(KaosConformance):
    isolation: ClassVar[str]

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        from kaos_runner.backends.local import LocalBackend

        sandbox = await LocalBackend().create(request(isolation=self.isolation), labels())
        try:
            yield sandbox.kaos
        finally:
            await sandbox.destroy()


@requires_bubblewrap
class TestBubblewrap(_Local):
    isolation = "bubblewrap"


class TestUnisolated(_Local):
    isolation = "none"


class _LocalBackend(BackendConformance):
    isolation: ClassVar[str]

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        from kaos_runner.backends.local import LocalBackend

        with tempfile.TemporaryDirectory() as directory, temporary_files_in(directory):
            yield World(LocalBackend(), request(isolation=self.isolation))


@requires_bubblewrap
class TestBubblewrapBackend(_LocalBackend):
    isolation = "bubblewrap"


class TestUnisolatedBackend(_LocalBackend):
    isolation = "none"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestPykaosLocalKaos(KaosConformance):
    patience = 10.0
    known_failures: ClassVar[Mapping[str, str]] = {
        "test_chdir_leaves_the_host_alone": "chdir is os.chdir, for the whole process",
        "test_the_hosts_environment_stays_out": "the host's environment is handed to processes",
        "test_long_lines": "asyncio's StreamReader has a limit of 64 KiB",
        "test_output_that_nobody_reads": "wait() waits for the pipes, which nobody reads",
        "test_kill_reaches_grandchildren": "kill() ends the leader only",
        "test_kill_reaches_other_sessions": "kill() ends the leader only",
        "test_wait_does_not_wait_for_background_children": "wait() waits for whoever has the pipes",
    }

    @pytest.fixture(autouse=True)
    def _collect(self) -> Iterator[None]:
        """Have what LocalKaos leaves open found here, and not in the next test."""
        yield
        gc.collect()

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        from kaos.local import LocalKaos

        before = Path.cwd()
        with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
            yield LocalKaos()
        os.chdir(before)
