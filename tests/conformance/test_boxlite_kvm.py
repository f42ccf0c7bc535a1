"""The conformance suite in a real micro-VM of this machine: `make test-kvm`.

Whether one boots is found out by booting it; where none does, the cases are skipped and say why.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from kaos_runner.backends.boxlite import BoxliteBackend
from kaos_runner.backends.boxlite_config import BoxliteConfig
from kaos_runner.backends.boxlite_layout import write_layout
from kaos_runner.errors import PrerequisiteError, SandboxError
from kaos_runner.testing.kaos_suite import KaosConformance
from tests.conformance.test_boxlite import make_box, request_for
from tests.debian import need
from tests.emulators.boxlite_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kaos import Kaos


def write_busybox(directory: Path) -> None:
    """An image with nothing but busybox."""
    program = shutil.which("busybox")
    assert program is not None
    listing = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    applets = set(listing.stdout.split()) - {"busybox"}
    links = {f"bin/{name}": "busybox" for name in applets} | {"usr/bin": "../bin"}
    files = {
        "bin/busybox": Path(program).read_bytes(),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        "root/.keep": b"",
    }
    write_layout(directory, files, links=links)


@pytest.mark.live
class TestMicroVM(KaosConformance):
    config: ClassVar[BoxliteConfig]
    box: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _machine(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[None]:
        need(missing_packages("busybox"))
        directory = tmp_path_factory.mktemp("boxlite")
        write_busybox(directory / "image")
        cls.config = BoxliteConfig(rootfs=str(directory / "image"), home=str(directory / "home"))
        try:
            cls.box = asyncio.run(make_box(cls.config))
        except (PrerequisiteError, SandboxError) as error:
            reason = f"did not run, since no micro-VM boots on this machine: {error.message}"
            capture = request.config.pluginmanager.getplugin("capturemanager")
            assert capture is not None
            with capture.global_and_fixture_disabled():
                print(f"\n{reason}")  # once; the summary would say it for each case
            pytest.skip(reason)
        yield
        asyncio.run(cls._remove())

    @classmethod
    async def _remove(cls) -> None:
        sandbox = await BoxliteBackend().connect(request_for(cls.config), cls.box)
        await sandbox.destroy()

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        sandbox = await BoxliteBackend().connect(request_for(self.config), self.box)
        try:
            yield sandbox.kaos
        finally:
            await sandbox.detach()
