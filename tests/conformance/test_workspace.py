"""What the runner does in a sandbox, over every Kaos of ours, from `files` to artifacts."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

import pytest

from kaos_runner.backends.base import Labels, SandboxRequest
from kaos_runner.backends.boxlite import BoxliteBackend
from kaos_runner.backends.boxlite_config import BoxliteConfig
from kaos_runner.backends.e2b import E2bBackend, E2bConfig
from kaos_runner.backends.local import LocalBackend, LocalConfig
from kaos_runner.backends.sprites import SpritesBackend
from kaos_runner.backends.sprites_config import SpritesConfig
from kaos_runner.recipe.model import (
    ChangedCheck,
    FileCheck,
    GitFile,
    PatchArtifact,
    PathArtifact,
    PathFile,
    Prompt,
    Recipe,
    RunCheck,
)
from kaos_runner.workspace import Baseline, collect, run_check, run_command, upload
from tests.debian import need
from tests.emulators import boxlite_box, e2b_box, sprites_machine
from tests.emulators.boxlite import Emulator
from tests.emulators.e2b import running
from tests.emulators.sprites import SpritesEmulator
from tests.unit.backends.local_requests import requires_bubblewrap
from tests.unit.workspace.boxes import git

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from kaos import Kaos

    from kaos_runner.backends.base import Backend
    from kaos_runner.recipe.model import BackendConfig
    from tests.emulators.boxlite_box import Userland

LARGE = os.urandom(3_000_001)
LABELS = Labels(run_id="20261123-090000-abcdef", recipe="journey", digest="0" * 64, version="0")


class _Journey:
    """A subclass gives the Kaos; its working directory is empty."""

    def kaos(self) -> AbstractAsyncContextManager[Kaos]:
        raise NotImplementedError

    def test_from_files_to_artifacts(self, tmp_path: Path) -> None:
        host = _host(tmp_path)
        asyncio.run(self._journey(host, tmp_path / "home"))
        patch = (tmp_path / "home" / "change.patch").read_bytes()
        subprocess.run(["git", "apply", "-"], cwd=host / "tree", input=patch, check=True)
        assert (host / "tree" / "a b.py").read_text() == "two\n"
        assert (host / "tree" / "new" / "ünï\ncode").read_bytes() == b"\0\xff"
        assert (tmp_path / "home" / "large").read_bytes() == LARGE
        assert (tmp_path / "home" / "repo" / "new" / "ünï%0Acode").read_bytes() == b"\0\xff"

    async def _journey(self, host: Path, home: Path) -> None:
        async with self.kaos() as kaos:
            workdir = str(kaos.getcwd())
            files: list[PathFile | GitFile] = [
                PathFile(from_="large"),
                GitFile(git="tree", to="repo"),
            ]
            await upload(kaos, files, recipe_dir=host, workdir=workdir)
            baseline = await Baseline.take(kaos, workdir, ("repo",))
            since = await baseline.mark()
            change = r"printf 'two\n' >'repo/a b.py'; mkdir repo/new; cd repo/new; "
            change += r"printf '\0\377' >\"$(printf 'ünï\ncode')\"".replace('\\"', '"')
            done = await run_command(kaos, change, workdir=workdir, timeout=60)
            assert (done.exit_code, done.output) == (0, "")
            for check in (
                RunCheck(run="test -s large"),
                FileCheck(file="repo/a b.py"),
                ChangedCheck(changed="repo/**/*.py"),
            ):
                outcome = await run_check(
                    kaos, check, workdir=workdir, baseline=baseline, since=since
                )
                assert outcome.ok, outcome.detail
            outcomes = await collect(
                kaos,
                [PatchArtifact(patch="repo"), PathArtifact(path="large"), _NEW],
                workdir=workdir,
                baseline=baseline,
                into=home,
            )
            assert [(o.ok, o.detail) for o in outcomes] == [
                (True, "2 files changed, 1 insertion(+), 1 deletion(-)"),
                (True, ""),
                (True, ""),
            ]
            await baseline.remove()

    def test_a_command_that_takes_too_long_leaves_nothing(self) -> None:
        async def main() -> None:
            async with self.kaos() as kaos:
                workdir = str(kaos.getcwd())
                command = "echo begun; (sleep 2; touch late) & sleep 60"
                done = await run_command(kaos, command, workdir=workdir, timeout=0.5)
                assert (done.exit_code, done.output) == (None, "begun\n")
                await asyncio.sleep(2.5)
                outcome = await run_check(
                    kaos, FileCheck(file="late"), workdir=workdir, baseline=None
                )
                assert not outcome.ok

        asyncio.run(main())

    def test_much_output_and_its_exit_code(self) -> None:
        async def main() -> None:
            async with self.kaos() as kaos:
                command = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 5"
                done = await run_command(kaos, command, workdir=str(kaos.getcwd()), timeout=120)
                assert done.exit_code == 5
                assert done.output.endswith("x\nthe end\n")

        asyncio.run(main())


_NEW = PathArtifact(path="repo/new/*")


def _host(tmp_path: Path) -> Path:
    host = tmp_path / "host"
    (host / "tree").mkdir(parents=True)
    (host / "large").write_bytes(LARGE)
    git(host / "tree", "init", "-q")
    (host / "tree" / "a b.py").write_text("one\n")
    git(host / "tree", "add", "-A")
    git(host / "tree", "commit", "-qm", "start")
    return host


class _OfBackend(_Journey):
    """A sandbox of its own for each case, as a run would make it."""

    backend: ClassVar[type[Backend]]
    config: ClassVar[BackendConfig]
    environ: ClassVar[Mapping[str, str]] = {}
    isolation: ClassVar[Literal["bubblewrap", "none"] | None] = None

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        recipe = Recipe(
            version=1, name="journey", backend=self.config, prompts=(Prompt(text="unused"),)
        )
        request = SandboxRequest(recipe=recipe, environ=self.environ, isolation=self.isolation)
        sandbox = await self.backend().create(request, LABELS)
        try:
            yield sandbox.kaos
        finally:
            await sandbox.destroy()


@requires_bubblewrap
class TestBubblewrap(_OfBackend):
    backend = LocalBackend
    config = LocalConfig()
    isolation = "bubblewrap"


class TestUnisolated(_OfBackend):
    backend = LocalBackend
    config = LocalConfig()
    isolation = "none"


class TestE2b(_OfBackend):
    backend = E2bBackend
    config = E2bConfig()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        need(e2b_box.missing_packages())
        with running() as emulator:
            cls.environ = emulator.environ()
            yield


class TestSprites(_OfBackend):
    backend = SpritesBackend
    config = SpritesConfig()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        need(sprites_machine.missing_packages())
        with SpritesEmulator() as emulator:
            cls.environ = emulator.environ
            yield


class _Boxlite(_OfBackend):
    backend = BoxliteBackend
    environ: ClassVar[Mapping[str, str]] = {"BOXLITE_API_KEY": "k"}
    userland: ClassVar[Userland]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _service(cls) -> Iterator[None]:
        need(boxlite_box.missing_packages(cls.userland))
        with Emulator(key="k", userland=cls.userland) as emulator:
            cls.config = BoxliteConfig(url=emulator.url)
            yield


class TestBoxliteGnu(_Boxlite):
    userland = "gnu"


class TestBoxliteBusybox(_Boxlite):
    userland = "busybox"
