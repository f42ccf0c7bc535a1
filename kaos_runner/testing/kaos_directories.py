"""Cases about paths, stat, and directories."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from kaos_runner.testing.case import KaosSuite, case, names, sh, without_permissions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kaos import Kaos
    from kaos.path import KaosPath


class Paths(KaosSuite):
    """pathclass, normpath, gethome, getcwd, chdir."""

    @case
    async def test_path_class(self, k: Kaos) -> None:
        assert issubclass(k.pathclass(), PurePosixPath)

    @case
    async def test_normpath(self, k: Kaos) -> None:
        assert str(k.normpath("/a//b/./c/../d/")) == "/a/b/d"
        assert str(k.normpath("../a/..")) == ".."

    @case
    async def test_home_and_working_directory_exist(self, k: Kaos) -> None:
        for path in (k.gethome(), k.getcwd()):
            assert path.is_absolute()
            assert stat.S_ISDIR((await k.stat(path)).st_mode)
        assert await names(k) == []

    @case
    async def test_chdir(self, k: Kaos) -> None:
        top = k.getcwd()
        await k.mkdir("a/b", parents=True)
        await k.chdir("a/b")
        assert k.getcwd() == top / "a" / "b"
        assert (await sh(k, "pwd -P")).strip() == str(k.getcwd()).encode()
        await k.chdir("..")
        assert await names(k) == ["b"]
        await k.chdir(top)
        assert await names(k) == ["a"]

    @case
    async def test_chdir_resolves_symlinks(self, k: Kaos) -> None:
        top = k.getcwd()
        await sh(k, "mkdir a; ln -s a link")
        await k.chdir("link")
        assert k.getcwd() == top / "a"

    @case
    async def test_chdir_errors(self, k: Kaos) -> None:
        top = k.getcwd()
        await k.writebytes("f", b"")
        with pytest.raises(FileNotFoundError):
            await k.chdir("nothing")
        with pytest.raises(NotADirectoryError):
            await k.chdir("f")
        assert k.getcwd() == top

    @case
    async def test_chdir_leaves_the_host_alone(self, k: Kaos) -> None:
        before = Path.cwd()
        await k.mkdir("a")
        await k.chdir("a")
        try:
            assert Path.cwd() == before
        finally:
            os.chdir(before)


class Stats(KaosSuite):
    """stat."""

    @case
    async def test_stat_of_a_file(self, k: Kaos) -> None:
        await sh(k, "printf 12345 >f; chmod 640 f; ln f g")
        found = await k.stat("f")
        assert stat.S_ISREG(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o640
        assert (found.st_size, found.st_nlink) == (5, 2)
        same = await k.stat("g")
        assert (same.st_ino, same.st_dev) == (found.st_ino, found.st_dev)

    @case
    async def test_stat_of_a_directory_with_entries(self, k: Kaos) -> None:
        await sh(k, "mkdir d; echo >d/f; chmod 750 d")
        found = await k.stat("d")
        assert stat.S_ISDIR(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o750

    @case
    async def test_stat_has_the_owner(self, k: Kaos) -> None:
        await k.writebytes("f", b"")
        found = await k.stat("f")
        assert f"{found.st_uid} {found.st_gid}".encode() == await sh(
            k, 'printf "$(id -u) $(id -g)"'
        )

    @case
    async def test_stat_has_times(self, k: Kaos) -> None:
        await sh(k, "TZ=UTC touch -m -t 202001020304.05 f; TZ=UTC touch -a -t 196912312359.58 f")
        found = await k.stat("f")
        assert (found.st_mtime, found.st_atime) == (1577934245.0, -2.0)
        assert found.st_ctime > found.st_mtime

    @case
    async def test_stat_of_symlinks(self, k: Kaos) -> None:
        await sh(k, "printf 12345 >f; ln -s f link; mkdir d; ln -s d to")
        assert (await k.stat("link")).st_size == 5
        assert stat.S_ISDIR((await k.stat("to")).st_mode)
        for path, size in (("link", 1), ("to", 1)):
            found = await k.stat(path, follow_symlinks=False)
            assert stat.S_ISLNK(found.st_mode)
            assert found.st_size == size
        assert stat.S_ISREG((await k.stat("f", follow_symlinks=False)).st_mode)

    @case
    async def test_stat_of_symlinks_that_lead_nowhere(self, k: Kaos) -> None:
        await sh(k, "ln -s nowhere broken; ln -s loop loop; echo >f; ln -s f/below notdir")
        for path in ("broken", "loop", "notdir"):
            assert stat.S_ISLNK((await k.stat(path, follow_symlinks=False)).st_mode)
        with pytest.raises(FileNotFoundError):
            await k.stat("broken")
        with pytest.raises(OSError, match="Too many levels"):
            await k.stat("loop")
        with pytest.raises(OSError, match=r"."):
            await k.stat("notdir")

    @case
    async def test_stat_errors(self, k: Kaos) -> None:
        await k.writebytes("f", b"")
        for follow in (True, False):
            for path in ("nothing", "nothing/below"):
                with pytest.raises(FileNotFoundError):
                    await k.stat(path, follow_symlinks=follow)
            with pytest.raises(NotADirectoryError):
                await k.stat("f/below", follow_symlinks=follow)

    @case
    async def test_stat_without_permission(self, k: Kaos) -> None:
        await without_permissions(k)
        await sh(k, "mkdir d; echo >d/f; chmod 0 d")
        with pytest.raises(PermissionError):
            await k.stat("d/f")
        assert stat.S_ISDIR((await k.stat("d")).st_mode)
        await sh(k, "chmod 700 d")

    @case
    async def test_stat_of_other_kinds(self, k: Kaos) -> None:
        await sh(k, "mkfifo p")
        assert stat.S_ISFIFO((await k.stat("p")).st_mode)
        assert stat.S_ISCHR((await k.stat("/dev/null")).st_mode)
        assert stat.S_ISDIR((await k.stat("/")).st_mode)

    @case
    async def test_kaos_path_questions(self, k: Kaos) -> None:
        await sh(k, "echo >f; mkdir d; ln -s nowhere broken")
        here = k.getcwd()
        assert [await (here / p).exists() for p in ("f", "d", "broken", "f/x")] == [
            True, True, False, False
        ]  # fmt: skip
        assert await (here / "broken").exists(follow_symlinks=False)
        assert await (here / "f").is_file()
        assert not await (here / "f").is_dir()


class Directories(KaosSuite):
    """iterdir and mkdir."""

    @case
    async def test_entries(self, k: Kaos) -> None:
        await sh(
            k, "echo >f; mkdir d; echo >d/below; echo >.hidden; ln -s nowhere broken; mkfifo p"
        )
        assert await names(k) == [".hidden", "broken", "d", "f", "p"]

    @case
    async def test_entries_have_the_path_of_their_directory(self, k: Kaos) -> None:
        await k.mkdir("d")
        await k.writebytes("d/f", b"")
        assert [str(p) async for p in k.iterdir("d")] == ["d/f"]
        assert [str(p) async for p in k.iterdir(".")] == ["d"]
        here = k.getcwd()
        assert [p async for p in k.iterdir(here / "d")] == [here / "d" / "f"]

    @case
    async def test_an_empty_directory(self, k: Kaos) -> None:
        await k.mkdir("d")
        assert await names(k, "d") == []

    @case
    async def test_entries_through_a_symlink(self, k: Kaos) -> None:
        await sh(k, "mkdir d; echo >d/f; ln -s d link")
        assert [str(p) async for p in k.iterdir("link")] == ["link/f"]

    @case
    async def test_two_thousand_entries(self, k: Kaos) -> None:
        await sh(k, "i=0; while [ $i -lt 2000 ]; do : >entry-$i; i=$((i + 1)); done")
        assert set(await names(k)) == {f"entry-{i}" for i in range(2000)}

    @case
    async def test_entries_errors(self, k: Kaos) -> None:
        await k.writebytes("f", b"")
        for path, error in (
            ("nothing", FileNotFoundError),
            ("f", NotADirectoryError),
            ("f/below", NotADirectoryError),
        ):
            with pytest.raises(error):
                await _first(k.iterdir(path))

    @case
    async def test_entries_without_permission(self, k: Kaos) -> None:
        await without_permissions(k)
        await sh(k, "mkdir d; chmod 0 d")
        with pytest.raises(PermissionError):
            await _first(k.iterdir("d"))

    @case
    async def test_mkdir(self, k: Kaos) -> None:
        await k.mkdir("d")
        assert stat.S_ISDIR((await k.stat("d")).st_mode)
        await k.mkdir(k.getcwd() / "d" / "e")
        assert await names(k, "d") == ["e"]

    @case
    async def test_mkdir_of_what_exists(self, k: Kaos) -> None:
        await sh(k, "mkdir d; echo >f; ln -s d to; ln -s f link; ln -s nowhere broken")
        for path in ("d", "f", "to", "link", "broken"):
            with pytest.raises(FileExistsError):
                await k.mkdir(path)
            with pytest.raises(FileExistsError):
                await k.mkdir(path, parents=True)
        for path in ("d", "to"):
            await k.mkdir(path, exist_ok=True)
            await k.mkdir(path, parents=True, exist_ok=True)
        for path in ("f", "link", "broken"):
            with pytest.raises(FileExistsError):
                await k.mkdir(path, exist_ok=True)
            with pytest.raises(FileExistsError):
                await k.mkdir(path, parents=True, exist_ok=True)

    @case
    async def test_mkdir_below_nothing(self, k: Kaos) -> None:
        for exist_ok in (True, False):
            with pytest.raises(FileNotFoundError):
                await k.mkdir("nothing/d", exist_ok=exist_ok)
        await k.mkdir("a/b/c", parents=True)
        assert stat.S_ISDIR((await k.stat("a/b/c")).st_mode)

    @case
    async def test_mkdir_below_a_file(self, k: Kaos) -> None:
        await k.writebytes("f", b"")
        for path in ("f/d", "f/d/e"):
            for parents in (True, False):
                with pytest.raises(NotADirectoryError):
                    await k.mkdir(path, parents=parents)

    @case
    async def test_mkdir_keeps_what_is_there(self, k: Kaos) -> None:
        await sh(k, "mkdir d; echo >d/.keep; echo >d/f; chmod 750 d")
        await k.mkdir("d", parents=True, exist_ok=True)
        assert await names(k, "d") == [".keep", "f"]
        assert stat.S_IMODE((await k.stat("d")).st_mode) == 0o750

    @case
    async def test_mkdir_without_permission(self, k: Kaos) -> None:
        await without_permissions(k)
        await sh(k, "mkdir d; chmod 500 d")
        for path in ("d/e", "d/e/f"):
            with pytest.raises(PermissionError):
                await k.mkdir(path, parents=True)


async def _first(entries: AsyncGenerator[KaosPath]) -> KaosPath:
    return await anext(entries)
