from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from kaos_runner.errors import SandboxError
from kaos_runner.workspace import Baseline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.workspace.boxes import Box


def test_a_prompts_own_changes_count_from_its_mark(box: Box) -> None:
    box.write("a", "one")
    box.write("b", "one")
    box.write("d/c", "one")

    async def main() -> None:
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        assert await baseline.changed() == []
        box.write("a", "two")
        first = await baseline.mark()
        (box.workdir / "b").unlink()
        box.write("e/ü\nx", "new")
        second = await baseline.mark()
        (box.workdir / "d" / "c").chmod(0o755)
        assert await baseline.changed() == ["a", "b", "d/c", "e/ü\nx"]
        assert await baseline.changed(first) == ["b", "d/c", "e/ü\nx"]
        assert await baseline.changed(second) == ["d/c"]
        box.write("a", "one")
        assert await baseline.changed() == ["b", "d/c", "e/ü\nx"]
        await baseline.remove()

    asyncio.run(main())


def test_a_change_of_the_same_size_and_time_is_seen(box: Box) -> None:
    path = box.write("a", "one")
    os.utime(path, (1_000_000, 1_000_000))

    async def main() -> list[str]:
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        await asyncio.sleep(1.1)  # git looks at a file's ctime, in seconds
        box.write("a", "two")
        os.utime(path, (1_000_000, 1_000_000))
        return await baseline.changed()

    assert asyncio.run(main()) == ["a"]


def test_names_of_any_bytes(box: Box) -> None:
    async def main() -> list[str]:
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        (box.workdir / os.fsdecode(b"\xff\x1b[2J\r\\")).write_text("x")
        return await baseline.changed()

    assert asyncio.run(main()) == ["\udcff\x1b[2J\r\\"]


def test_a_new_empty_directory_is_no_change(box: Box) -> None:
    async def main() -> list[str]:
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        (box.workdir / "empty").mkdir()
        return await baseline.changed()

    assert asyncio.run(main()) == []


def test_changes_in_repositories_below(box: Box) -> None:
    box.write("repo/a", "one")
    box.git("init", "-q", at="repo")
    box.write("repo/inner/a", "one")
    box.git("init", "-q", at="repo/inner")

    async def main() -> list[str]:
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        box.write("repo/a", "two")
        box.write("repo/inner/a", "two")
        box.write("fresh/a", "new")
        box.git("init", "-q", at="fresh")
        return await baseline.changed()

    assert asyncio.run(main()) == ["fresh/a", "repo/a", "repo/inner/a"]


@pytest.mark.parametrize(
    ("userland", "counts"),
    [("full", [1, 1, 1, 1, 1]), ("slim", [2, 1, 1, 2, 0])],
)
def test_the_number_of_operations(
    request: pytest.FixtureRequest, userland: str, counts: list[int]
) -> None:
    box: Box = request.getfixturevalue(userland)
    box.write("a", "one")
    found = []

    def counted(first: int = 0) -> None:
        found.append(box.kaos.operations - first)
        box.kaos.operations = 0

    async def main() -> None:
        # Without git: the question for it, the listing, the contents.
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        counted(0 if userland == "full" else 1)
        box.write("a", "two")
        await baseline.mark()
        counted()
        await baseline.changed()
        counted()
        await baseline.patch(".", _ignore)
        counted()
        await baseline.remove()
        counted()

    asyncio.run(main())
    assert found == counts


def test_nothing_is_left_in_the_workdir_or_after_remove(box: Box) -> None:
    box.write("a", "one")
    box.git("init", "-q")
    before = sorted(str(p) for p in box.workdir.rglob("*"))

    async def main() -> None:
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        await baseline.changed()
        assert sorted(str(p) for p in box.workdir.rglob("*")) == before
        assert bool(list(box.home.iterdir())) == box.has_git
        await baseline.remove()
        await baseline.remove()
        assert list(box.home.iterdir()) == []

    asyncio.run(main())


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_packed_objects_are_shared_where_they_can_be(full: Box, form: str) -> None:
    full.write("a", "one")
    full.git("init", "-q", f"--object-format={form}")
    full.git("add", "-A")
    full.git("commit", "-qm", "start")
    full.git("gc", "-q")

    async def main() -> None:
        baseline = await Baseline.take(full.kaos, str(full.workdir))
        (store,) = full.home.iterdir()
        assert bool(list(store.glob("objects/pack/*.pack"))) is (form == "sha1")
        full.write("a", "two")
        assert await baseline.changed() == ["a"]
        await baseline.remove()

    asyncio.run(main())


def test_a_destroyed_baseline_is_told(full: Box) -> None:
    full.write("a", "one")

    async def main() -> None:
        baseline = await Baseline.take(full.kaos, str(full.workdir))
        (store,) = full.home.iterdir()
        shutil.rmtree(store)
        with pytest.raises(SandboxError, match="was destroyed") as caught:
            await baseline.changed()
        assert caught.value.hint
        with pytest.raises(SandboxError, match="was destroyed"):
            await baseline.patch(".", _ignore)

    asyncio.run(main())


def test_lost_objects_are_told(full: Box) -> None:
    full.write("a", "one")

    async def main() -> None:
        baseline = await Baseline.take(full.kaos, str(full.workdir))
        (store,) = full.home.iterdir()
        shutil.rmtree(store / "objects")
        (store / "objects").mkdir()
        full.write("a", "two")
        with pytest.raises(SandboxError, match=r"was destroyed|could not be compared"):
            await baseline.patch(".", _ignore)

    asyncio.run(main())


def test_a_workdir_that_is_gone_is_told(box: Box) -> None:
    async def main() -> None:
        baseline = await Baseline.take(box.kaos, str(box.workdir))
        box.workdir.rmdir()
        with pytest.raises(SandboxError, match="workdir"):
            await baseline.changed()

    asyncio.run(main())


def test_the_store_avoids_a_workdir_that_holds_tmp(full: Box) -> None:
    inner = full.workdir / "tmp"
    inner.mkdir()
    full.kaos.env["TMPDIR"] = str(inner)

    async def main() -> list[str]:
        baseline = await Baseline.take(full.kaos, str(full.workdir))
        assert list(inner.iterdir()) == []
        full.write("a", "new")
        changed = await baseline.changed()
        await baseline.remove()
        return changed

    assert asyncio.run(main()) == ["a"]


def test_another_owner_is_no_obstacle(full: Box) -> None:
    if os.getuid() != 0:
        return  # only root can give files away
    full.write("a", "one")
    full.git("init", "-q")
    full.git("add", "-A")
    for path in [full.workdir, *full.workdir.rglob("*")]:
        os.chown(path, 65534, 65534)

    async def main() -> list[str]:
        baseline = await Baseline.take(full.kaos, str(full.workdir))
        full.write("a", "two")
        return await baseline.changed()

    assert asyncio.run(main()) == ["a"]


def test_without_any_git_all_changes_count(
    slim: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    slim.write(".gitignore", "*.log\n")

    async def main() -> list[str]:
        baseline = await Baseline.take(slim.kaos, str(slim.workdir), ())
        slim.write("a.log", "x")
        return await baseline.changed()

    assert asyncio.run(main()) == ["a.log"]


async def _ignore(_chunk: bytes) -> None:
    pass
