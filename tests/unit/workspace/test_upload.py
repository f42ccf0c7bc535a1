from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.errors import SandboxError, UsageError
from kaos_runner.recipe.model import PathFile
from kaos_runner.workspace import upload, upload_problems

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.workspace.boxes import Box


def bring(box: Box, host: Path, *files: PathFile, **more: Any) -> None:
    asyncio.run(
        upload(box.kaos, files, recipe_dir=host, workdir=str(box.workdir), **more),
    )


def item(source: str, to: str = ".") -> PathFile:
    return PathFile(from_=source, to=to)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_directory_keeps_contents_modes_and_symlinks(box: Box, host: Path) -> None:
    tree = host / "tree"
    (tree / "sub dir").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "sub dir" / "ünï\ncode").write_bytes(b"\0\xff\r\n")
    (tree / "nothing").touch()
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "private").write_text("x")
    (tree / "private").chmod(0o600)
    (tree / "link").symlink_to("sub dir/ünï\ncode")
    (tree / "dangling").symlink_to("not/here")
    large = os.urandom(3_000_001)
    (tree / "large").write_bytes(large)

    bring(box, host, item("tree"))

    assert {p.name for p in box.workdir.iterdir()} == {p.name for p in tree.iterdir()}
    assert (box.workdir / "sub dir" / "ünï\ncode").read_bytes() == b"\0\xff\r\n"
    assert (box.workdir / "large").read_bytes() == large
    assert (box.workdir / "nothing").read_bytes() == b""
    assert (box.workdir / "empty").is_dir()
    assert str((box.workdir / "link").readlink()) == "sub dir/ünï\ncode"
    assert str((box.workdir / "dangling").readlink()) == "not/here"
    assert mode(box.workdir / "run.sh") == 0o755
    assert mode(box.workdir / "private") == 0o600


def test_all_paths_are_one_operation(full: Box, host: Path) -> None:
    for name in ("a", "b", "c"):
        (host / name).write_text(name)
    bring(full, host, item("a"), item("b", "x/"), item("c", "y/z"))
    assert full.kaos.operations == 1
    assert (full.workdir / "x" / "b").read_text() == "b"
    assert (full.workdir / "y" / "z").read_text() == "c"


def test_nothing_to_send_is_no_operation(full: Box, host: Path) -> None:
    bring(full, host)
    assert full.kaos.operations == 0


def test_a_missing_workdir_is_made(box: Box, host: Path) -> None:
    (host / "a").write_text("a")
    box.workdir.rmdir()
    bring(box, host, item("a"))
    assert (box.workdir / "a").read_text() == "a"


@pytest.mark.parametrize(
    ("to", "place"),
    [
        (".", "file.txt"),
        ("docs/", "docs/file.txt"),
        ("docs/.", "docs/file.txt"),
        ("./docs/other", "docs/other"),
        ("tree", "tree/file.txt"),  # made a directory by the entry before
    ],
)
def test_where_a_file_goes(full: Box, host: Path, to: str, place: str) -> None:
    (host / "file.txt").write_text("content")
    (host / "dir").mkdir()
    bring(full, host, item("dir", "tree"), item("file.txt", to))
    assert (full.workdir / place).read_text() == "content"


def test_a_later_file_replaces_an_earlier_one(box: Box, host: Path) -> None:
    for name in ("one", "two"):
        (host / name).mkdir()
        (host / name / "f").write_text(name)
    bring(box, host, item("one"), item("two"))
    assert (box.workdir / "f").read_text() == "two"


def test_a_symlink_to_a_file_counts_as_the_file(box: Box, host: Path) -> None:
    (host / "real").write_text("content")
    (host / "link").symlink_to("real")
    bring(box, host, item("link"))
    assert not (box.workdir / "link").is_symlink()
    assert (box.workdir / "link").read_text() == "content"


def test_git_directories_are_left_out_and_told(full: Box, host: Path) -> None:
    (host / "tree" / ".git").mkdir(parents=True)
    (host / "tree" / ".git" / "config").write_text("[http] extraheader = secret")
    (host / "tree" / "a").write_text("a")
    told: list[tuple[str, str]] = []
    bring(full, host, item("tree"), notify=lambda level, text: told.append((level, text)))
    assert [p.name for p in full.workdir.iterdir()] == ["a"]
    assert [level for level, _ in told] == ["warning"]
    assert ".git was left out" in told[0][1]


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside", "up/outside"])
def test_a_symlink_that_leaves_the_tree_is_refused(full: Box, host: Path, target: str) -> None:
    (host / "outside").write_text("secret")
    (host / "tree" / "sub").mkdir(parents=True)
    if target.startswith("up/"):
        (host / "tree" / "up").symlink_to("..")
    (host / "tree" / "link").symlink_to(target)
    with pytest.raises(UsageError, match="leaves the tree"):
        bring(full, host, item("tree"))
    assert full.kaos.operations == 0


def test_a_special_file_is_refused(full: Box, host: Path) -> None:
    (host / "tree").mkdir()
    os.mkfifo(host / "tree" / "pipe")
    with pytest.raises(UsageError, match="neither a file, a directory nor a symlink"):
        bring(full, host, item("tree"))
    with pytest.raises(UsageError, match="neither a file nor a directory"):
        bring(full, host, item("tree/pipe"))


@pytest.mark.parametrize("to", ["/etc", "../x", "a/../../x", ".."])
def test_nothing_goes_outside_the_workdir(full: Box, host: Path, to: str) -> None:
    (host / "a").write_text("a")
    with pytest.raises(UsageError, match="not below the workdir"):
        bring(full, host, item("a", to))


def test_setuid_bits_stay_at_home(box: Box, host: Path) -> None:
    (host / "tree").mkdir()
    (host / "tree" / "a").touch()
    (host / "tree" / "a").chmod(0o4755)
    bring(box, host, item("tree"))
    assert mode(box.workdir / "a") == 0o755


def test_the_cap_is_found_before_anything_is_sent(full: Box, host: Path) -> None:
    (host / "a").write_bytes(bytes(2**20 + 1))
    with pytest.raises(SandboxError, match="more than 1 MiB"):
        bring(full, host, item("a"), max_bytes=2**20)
    assert full.kaos.operations == 0


def test_progress_tells_the_bytes_sent(full: Box, host: Path) -> None:
    (host / "a").write_bytes(bytes(2_000_000))
    told: list[int] = []
    bring(full, host, item("a"), progress=told.append)
    assert len(told) > 4
    assert told == sorted(told)
    assert told[-1] >= 2_000_000


def test_what_the_sandbox_cannot_take_is_told(full: Box, host: Path) -> None:
    (host / "a").write_text("a")
    full.workdir.rmdir()
    full.workdir.write_text("in the way")
    with pytest.raises(SandboxError, match="could not be unpacked"):
        bring(full, host, item("a"))


def test_problems_are_all_found_without_a_sandbox(host: Path) -> None:
    (host / "good").write_text("")
    files = [item("missing"), item("good"), item("good", "../x")]
    problems = asyncio.run(upload_problems(files, recipe_dir=host))
    assert [p.path for p in problems] == ["files[0]", "files[2]"]
    assert "does not exist" in problems[0].message


def test_sources_are_found_by_resolve(full: Box, host: Path) -> None:
    (host / "elsewhere").mkdir()
    (host / "elsewhere" / "a").write_text("a")
    bring(full, host, item("a"), resolve=lambda name: host / "elsewhere" / name)
    assert (full.workdir / "a").read_text() == "a"
