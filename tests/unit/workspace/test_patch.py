"""A patch applies with `git apply` to a copy of the start state, and gives what the sandbox has."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from kaos_runner.errors import SandboxError, UsageError
from kaos_runner.workspace import Baseline, PatchStat
from tests.unit.workspace.boxes import git

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.workspace.boxes import Box


def snapshot(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Every file and symlink by name, with what git knows of it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if ".git" in name.split("/"):
            continue
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()))
        elif path.is_file():
            executable = path.stat().st_mode & stat.S_IXUSR
            found[name] = ("exec" if executable else "file", path.read_bytes())
    return found


def patched(
    box: Box, change: Callable[[], object], path: str = ".", roots: tuple[str, ...] = (".",)
) -> tuple[bytes, PatchStat]:
    """The patch of a change, and its stat."""

    async def main() -> tuple[bytes, PatchStat]:
        baseline = await Baseline.take(box.kaos, str(box.workdir), roots)
        change()
        pieces: list[bytes] = []

        async def take(chunk: bytes) -> None:
            pieces.append(chunk)

        counted = await baseline.patch(path, take)
        await baseline.remove()
        return b"".join(pieces), counted

    return asyncio.run(main())


def applied(start: Path, patch: bytes, *, as_repository: bool = False) -> dict[str, object]:
    """What a copy of the start state holds after `git apply`."""
    if as_repository:
        git(start, "init", "-q")
        git(start, "add", "-A", "-f")
        git(start, "commit", "-qm", "start", "--allow-empty")
    done = subprocess.run(["git", "apply", "-"], cwd=start, input=patch, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return dict(snapshot(start))


def fill(box: Box) -> None:
    box.write("text.py", "one\ntwo\nthree\n")
    box.write("crlf.txt", b"one\r\ntwo\r\nthree\r\n")
    box.write("no end.txt", b"one\ntwo")
    box.write("binary.bin", bytes(range(256)) * 20)
    box.write("other.bin", b"\0\1\2")
    box.write("latin1.txt", b"caf\xe9\n")
    box.write("dir/moved.txt", "".join(f"line {n}\n" for n in range(50)))
    box.write("dir/deleted.txt", "gone\n")
    box.write("tool", "#!/bin/sh\n")
    box.write("was file", "now a directory\n")
    box.write("was dir/inner", "now a file\n")
    (box.workdir / "link").symlink_to("text.py")
    (box.workdir / "became").symlink_to("text.py")
    box.write("empty")
    box.write("unchanged", "same\n")


def disturb(box: Box) -> None:
    box.write("text.py", "one\nTWO\nthree\nfour\n")
    box.write("crlf.txt", b"one\r\nTWO\r\nthree\r\n")
    box.write("no end.txt", b"one\ntwo\nthree")
    box.write("binary.bin", bytes(range(255, -1, -1)) * 20)
    (box.workdir / "other.bin").unlink()
    box.write("latin1.txt", b"caf\xe8\n")
    (box.workdir / "dir" / "moved.txt").rename(box.workdir / "renamed.txt")
    (box.workdir / "dir" / "deleted.txt").unlink()
    (box.workdir / "tool").chmod(0o755)
    (box.workdir / "was file").unlink()
    box.write("was file/inner", "a directory\n")
    shutil.rmtree(box.workdir / "was dir")
    box.write("was dir", "a file\n")
    (box.workdir / "link").unlink()
    (box.workdir / "link").symlink_to("crlf.txt")
    (box.workdir / "became").unlink()
    box.write("became", "a file\n")
    box.write("empty", "not any more\n")
    box.write("new/deep/ünï cödé.txt", "new\n")
    box.write("new empty")
    box.write('new\nline\t"quoted" \\', "odd\n")
    (box.workdir / os.fsdecode(b"raw-\xff")).write_text("not utf-8\n")
    box.write("new.bin", os.urandom(5000))
    box.write("new tool", "#!/bin/sh\n").chmod(0o755)
    (box.workdir / "new link").symlink_to("nowhere")


@pytest.mark.parametrize("as_repository", [False, True], ids=["plain", "repository"])
def test_every_kind_of_change(box: Box, tmp_path: Path, *, as_repository: bool) -> None:
    fill(box)
    shutil.copytree(box.workdir, tmp_path / "start", symlinks=True)
    if as_repository:
        box.git("init", "-q")
        box.git("add", "-A")
        box.git("commit", "-qm", "start")

    patch, counted = patched(box, lambda: disturb(box))

    result = applied(tmp_path / "start", patch, as_repository=as_repository)
    assert result == snapshot(box.workdir)
    assert counted.files == patch.count(b"\ndiff --git ") + 1
    assert b"unchanged" not in patch


def test_line_ends_survive_attributes(box: Box, tmp_path: Path) -> None:
    box.write(".gitattributes", "* text=auto\n*.bat eol=crlf\n*.txt text\n")
    box.write("a.txt", b"one\r\ntwo\r\n")
    box.write("b.txt", b"one\ntwo\r\n")
    box.write("c.bat", b"one\r\ntwo\r\n")
    shutil.copytree(box.workdir, tmp_path / "start")

    def change() -> None:
        box.write("a.txt", b"one\r\nTWO\r\n")
        box.write("b.txt", b"one\r\ntwo\r\nthree\n")
        box.write("c.bat", b"one\r\nTWO\r\n")

    patch, _ = patched(box, change)
    assert applied(tmp_path / "start", patch) == snapshot(box.workdir)


def test_a_filter_of_the_tree_is_not_run(full: Box) -> None:
    full.git("init", "-q")
    full.git("config", "filter.evil.clean", f"touch {full.top}/ran; cat")
    full.git("config", "core.fsmonitor", f"touch {full.top}/ran")
    full.git("config", "diff.evil.textconv", f"touch {full.top}/ran")
    full.git("config", "diff.evil.command", f"touch {full.top}/ran")
    full.write(".gitattributes", "* filter=evil diff=evil\n")
    full.write("a", "one\n")
    patch, _ = patched(full, lambda: full.write("a", "two\n"))
    assert b"+two" in patch
    assert not (full.top / "ran").exists()


def test_a_rename_is_told_as_one(box: Box) -> None:
    box.write("a.txt", "".join(f"{n}\n" for n in range(30)))
    patch, counted = patched(
        box, lambda: (box.workdir / "a.txt").rename(box.workdir / "b.txt") and None
    )
    assert b"rename from a.txt\nrename to b.txt\n" in patch
    assert str(counted) == "1 file changed"


def test_commits_and_the_agents_index_play_no_part(full: Box, tmp_path: Path) -> None:
    full.write("a", "one\n")
    full.write("b", "one\n")
    full.git("init", "-q")
    full.git("add", "-A")
    full.git("commit", "-qm", "start")
    shutil.copytree(full.workdir, tmp_path / "start", ignore=shutil.ignore_patterns(".git"))

    def change() -> None:
        full.write("a", "two\n")
        full.git("commit", "-qam", "committed")
        full.write("b", "two\n")
        full.git("add", "b")
        full.write("c", "untracked\n")
        full.git("update-index", "--assume-unchanged", "a")
        full.git("config", "core.excludesFile", str(full.write("excludes", "c\n")))

    patch, _ = patched(full, change)
    assert applied(tmp_path / "start", patch) == snapshot(full.workdir)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("deed", ["remove", "again", "gc"])
def test_the_agent_may_do_away_with_its_repository(full: Box, deed: str, *, packed: bool) -> None:
    full.write("a", "one\n")
    full.git("init", "-q")
    full.git("add", "-A")
    full.git("commit", "-qm", "start")
    if packed:
        full.git("gc", "-q")

    def change() -> None:
        full.write("a", "two\n")
        if deed == "gc":
            full.git("commit", "-q", "--amend", "-am", "other")
            full.git("reflog", "expire", "--expire=now", "--all")
            full.git("gc", "-q", "--prune=now")
        else:
            shutil.rmtree(full.workdir / ".git")
        if deed == "again":
            full.git("init", "-q")

    patch, _ = patched(full, change)
    assert b"-one\n+two\n" in patch


def test_ignored_files_do_not_count(box: Box) -> None:
    box.write(".gitignore", "*.log\nbuild/\n!keep.log\n")
    box.write("sub/.gitignore", "/local\n")

    def change() -> None:
        for name in ("a.log", "build/x", "sub/local", "sub/b.log", "keep.log", "sub/deep/local"):
            box.write(name, "new\n")

    patch, counted = patched(box, change)
    assert counted.files == 2
    assert b"a/keep.log" in patch
    assert b"a/sub/deep/local" in patch


def test_a_tracked_file_counts_although_it_is_ignored(full: Box) -> None:
    full.write(".gitignore", "*.gen\n")
    full.write("a.gen", "one\n")
    full.git("init", "-q")
    full.git("add", "-A", "-f")
    full.git("commit", "-qm", "start")
    patch, _ = patched(full, lambda: full.write("a.gen", "two\n"))
    assert b"-one\n+two\n" in patch


def test_a_directory_of_the_workdir(box: Box, tmp_path: Path) -> None:
    fill(box)
    box.write("src/a", "one\n")
    box.write("src-other/a", "one\n")
    shutil.copytree(box.workdir / "src", tmp_path / "start")

    def change() -> None:
        disturb(box)
        box.write("src/a", "two\n")
        box.write("src/b/c", "new\n")
        box.write("src-other/a", "two\n")

    patch, counted = patched(box, change, "src", ("src",))
    assert counted.files == 2
    assert applied(tmp_path / "start", patch) == snapshot(box.workdir / "src")


def test_a_repository_below_the_workdir(box: Box, tmp_path: Path) -> None:
    box.write("notes", "one\n")
    box.write("repo/a", "one\n")
    box.git("init", "-q", at="repo")
    box.git("add", "-A", at="repo")
    box.git("commit", "-qm", "start", at="repo")
    shutil.copytree(box.workdir, tmp_path / "whole", ignore=shutil.ignore_patterns(".git"))
    shutil.copytree(box.workdir / "repo", tmp_path / "inner", ignore=shutil.ignore_patterns(".git"))

    def change() -> None:
        box.write("notes", "two\n")
        (box.workdir / "repo" / "a").rename(box.workdir / "repo" / "b")
        box.git("add", "-A", at="repo")
        box.git("commit", "-qm", "agent", "--allow-empty", at="repo")
        box.write("repo/c", "untracked\n")

    whole, _ = patched(box, change)
    assert applied(tmp_path / "whole", whole) == snapshot(box.workdir)
    box.write("repo/a", "one\n")
    for name in ("b", "c"):
        (box.workdir / "repo" / name).unlink()

    inner, counted = patched(box, change, "repo", ("repo",))
    assert counted.files == 2
    assert applied(tmp_path / "inner", inner) == snapshot(box.workdir / "repo")


@pytest.mark.parametrize("committed", [False, True])
def test_a_repository_that_the_agent_makes(box: Box, tmp_path: Path, *, committed: bool) -> None:
    box.write("old/a", "one\n")
    box.write("old/b", "one\n")
    box.write(".gitignore", "vendor/\n")
    shutil.copytree(box.workdir, tmp_path / "start")

    def change() -> None:
        box.write("old/a", "two\n")
        box.write("new/x", "new\n")
        box.write("vendor/lib/x", "ignored\n")
        for name in ("old", "new", "vendor/lib"):
            box.git("init", "-q", at=name)
            if committed:
                box.git("add", "-A", at=name)
                box.git("commit", "-qm", "agent", at=name)

    patch, counted = patched(box, change)
    assert counted.files == 2
    del (expected := snapshot(box.workdir))["vendor/lib/x"]
    assert applied(tmp_path / "start", patch) == expected


def test_a_root_that_is_gone(box: Box, tmp_path: Path) -> None:
    box.write("keep", "same\n")
    box.write("repo/a", "one\n")
    box.git("init", "-q", at="repo")
    shutil.copytree(box.workdir, tmp_path / "start", ignore=shutil.ignore_patterns(".git"))
    patch, _ = patched(box, lambda: shutil.rmtree(box.workdir / "repo"))
    assert applied(tmp_path / "start", patch) == {"keep": ("file", b"same\n")}


def test_no_change_is_an_empty_patch(box: Box) -> None:
    fill(box)
    patch, counted = patched(box, lambda: os.utime(box.workdir / "text.py", (1, 1)))
    assert patch == b""
    assert str(counted) == "nothing changed"


def test_counts(full: Box) -> None:
    full.write("a", "".join(f"{n}\n" for n in range(100)))
    full.write("--- b", "-- x\n++ y\n")

    def change() -> None:
        full.write("a", "".join(f"{n}\n" for n in range(1, 101)))
        full.write("--- b", "-- z\n++ y\ndiff --git a/x b/x\n")

    _, counted = patched(full, change)
    assert counted == PatchStat(files=2, insertions=3, deletions=2)
    assert str(counted) == "2 files changed, 3 insertions(+), 2 deletions(-)"


def test_a_patch_leaves_no_directory(full: Box) -> None:
    with pytest.raises(UsageError):
        patched(full, lambda: None, "../x")


def test_without_git_a_patch_must_be_announced(slim: Box) -> None:
    with pytest.raises(SandboxError, match="does not hold src") as caught:
        patched(slim, lambda: None, "src", ("other",))
    assert caught.value.hint


def test_without_git_on_either_side(
    slim: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="a patch needs git") as caught:
        patched(slim, lambda: None)
    assert caught.value.hint
