"""`git:`: a work tree of the host as one bundle."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from kaos_runner.errors import SandboxError, UsageError
from kaos_runner.recipe.model import GitFile, PathFile
from kaos_runner.workspace import upload, upload_problems
from tests.unit.workspace.boxes import git

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.workspace.boxes import Box


@pytest.fixture
def tree(host: Path) -> Path:
    """A work tree with history, ignored files, hooks and credentials."""
    folder = host / "tree"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("*.log\n.env\n")
    (folder / "a.py").write_text("one\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "v1")
    (folder / "a.py").write_text("two\n")
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o755)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    (folder / ".env").write_text("TOKEN=canary")
    git(folder, "remote", "add", "origin", "https://canary@example.org/x")
    git(folder, "config", "http.extraheader", "canary")
    hook = folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho canary\n")
    hook.chmod(0o755)
    return folder


def bring(box: Box, host: Path, *files: GitFile | PathFile) -> list[str]:
    told: list[str] = []
    asyncio.run(
        upload(
            box.kaos,
            files,
            recipe_dir=host,
            workdir=str(box.workdir),
            notify=lambda _level, text: told.append(text),
        )
    )
    return told


def everything(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


@pytest.mark.usefixtures("tree")
def test_a_clean_repository_without_remote(full: Box, host: Path) -> None:
    assert bring(full, host, GitFile(git="tree", to="repo")) == []
    assert full.kaos.operations == 1
    assert full.git("status", "--porcelain", "--branch", at="repo") == "## main\n"
    assert full.git("log", "--format=%s", at="repo") == "second\nfirst\n"
    assert full.git("remote", at="repo") == ""
    assert full.git("for-each-ref", "--format=%(refname)", at="repo") == "refs/heads/main\n"
    assert os.access(full.workdir / "repo" / "tool", os.X_OK)
    assert full.git("fsck", "--strict", at="repo") == ""


@pytest.mark.usefixtures("tree")
def test_nothing_but_commits_goes_along(full: Box, host: Path) -> None:
    bring(full, host, GitFile(git="tree", to="repo"))
    assert b"canary" not in everything(full.workdir)
    left = {p.name for p in (full.workdir / "repo" / ".git").iterdir()}
    assert not left & {"hooks", "incoming", "FETCH_HEAD", "shallow"}
    assert not (full.workdir / "repo" / ".env").exists()


def test_the_hosts_repository_is_left_as_it_was(full: Box, host: Path, tree: Path) -> None:
    before = everything(tree / ".git")
    bring(full, host, GitFile(git="tree", to="repo"))
    assert everything(tree / ".git") == before


def test_uncommitted_changes_stay_at_home(full: Box, host: Path, tree: Path) -> None:
    (tree / "a.py").write_text("dirty\n")
    bring(full, host, GitFile(git="tree"))
    assert (full.workdir / "a.py").read_text() == "two\n"


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("ref", ["v1", "HEAD~1", "main~1"])
def test_another_ref_is_a_detached_head(full: Box, host: Path, ref: str) -> None:
    bring(full, host, GitFile(git="tree", ref=ref))
    assert (full.workdir / "a.py").read_text() == "one\n"
    assert full.git("status", "--porcelain", "--branch") == "## HEAD (no branch)\n"


def test_a_branch_is_checked_out_by_its_name(full: Box, host: Path, tree: Path) -> None:
    git(tree, "branch", "feature/x", "HEAD~1")
    bring(full, host, GitFile(git="tree", ref="feature/x"))
    assert full.git("status", "--porcelain", "--branch") == "## feature/x\n"


def test_a_folder_inside_the_work_tree_means_the_work_tree(
    full: Box, host: Path, tree: Path
) -> None:
    (tree / "recipes").mkdir()
    bring(full, host, GitFile(git="tree/recipes"))
    assert (full.workdir / "a.py").read_text() == "two\n"


def test_a_linked_work_tree_is_one_too(full: Box, host: Path, tree: Path) -> None:
    git(tree, "worktree", "add", "-q", "-b", "side", str(host / "side"), "HEAD~1")
    bring(full, host, GitFile(git="side"))
    assert full.git("status", "--porcelain", "--branch") == "## side\n"
    assert (full.workdir / "a.py").read_text() == "one\n"


def test_a_shallow_clone_stays_shallow(full: Box, host: Path, tree: Path) -> None:
    git(host, "clone", "-q", "--depth", "1", f"file://{tree}", "shallow")
    bring(full, host, GitFile(git="shallow"))
    assert full.git("log", "--format=%s") == "second\n"
    assert full.git("status", "--porcelain") == ""
    assert full.git("fsck") == ""


@pytest.mark.usefixtures("tree")
def test_without_git_in_the_sandbox_plain_files_come(slim: Box, host: Path) -> None:
    told = bring(slim, host, GitFile(git="tree", to="repo"))
    assert slim.kaos.operations == 2
    assert len(told) == 1
    assert "without history" in told[0]
    names = sorted(p.name for p in (slim.workdir / "repo").iterdir())
    assert names == [".gitignore", "a.py", "tool"]
    assert os.access(slim.workdir / "repo" / "tool", os.X_OK)


def test_attributes_do_not_alter_plain_files(slim: Box, host: Path, tree: Path) -> None:
    (tree / ".gitattributes").write_text("a.py export-ignore\n* filter=evil\n")
    (tree / "crlf").write_bytes(b"a\r\nb\n")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "third")
    git(tree, "config", "filter.evil.smudge", "echo canary")
    bring(slim, host, GitFile(git="tree"))
    assert (slim.workdir / "a.py").read_text() == "two\n"
    assert (slim.workdir / "crlf").read_bytes() == b"a\r\nb\n"


@pytest.mark.usefixtures("tree")
def test_paths_after_a_repository_lie_over_it(full: Box, host: Path) -> None:
    (host / "a.py").write_text("over\n")
    bring(full, host, GitFile(git="tree"), PathFile(from_="a.py"))
    assert full.git("status", "--porcelain") == " M a.py\n"


def test_submodules_and_lfs_are_told(full: Box, host: Path, tree: Path) -> None:
    commit = git(tree, "rev-parse", "HEAD").strip()
    git(tree, "update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/sub")
    (tree / ".gitattributes").write_text("*.bin filter=lfs diff=lfs -text\n")
    git(tree, "add", ".gitattributes")
    git(tree, "commit", "-qm", "third")
    told = bring(full, host, GitFile(git="tree"))
    assert len(told) == 2
    assert "submodules are not brought along: vendor/sub" in told[0]
    assert "LFS" in told[1]


@pytest.mark.usefixtures("tree")
def test_a_second_repository_in_one_place_is_refused(full: Box, host: Path) -> None:
    bring(full, host, GitFile(git="tree"))
    with pytest.raises(SandboxError, match="is a git repository already"):
        bring(full, host, GitFile(git="tree"))


def test_the_hosts_variables_do_not_steer_git(
    full: Box, host: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(host / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(host / "index"))
    config = host / "config"
    config.write_text(f"[core]\nhooksPath = {tree}/.git/hooks\n[user]\nname = canary\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert bring(full, host, GitFile(git="tree")) == []
    assert (full.workdir / "a.py").read_text() == "two\n"


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("file", "message"),
    [
        (GitFile(git="tree", ref="nope"), "names no commit"),
        (GitFile(git="tree", ref="--upload-pack=x"), "names no commit"),
        (GitFile(git="tree", to="../x"), "not below the workdir"),
    ],
)
def test_what_cannot_be_taken_is_a_problem(host: Path, file: GitFile, message: str) -> None:
    problems = asyncio.run(upload_problems([file], recipe_dir=host))
    assert [p.path for p in problems] == ["files[0]"]
    assert message in problems[0].message


def test_a_folder_that_is_no_work_tree(full: Box, host: Path) -> None:
    (host / "plain").mkdir()
    with pytest.raises(UsageError, match="not in a git work tree"):
        bring(full, host, GitFile(git="plain"))


def test_an_empty_repository(full: Box, host: Path) -> None:
    (host / "empty").mkdir()
    git(host / "empty", "init", "-q")
    with pytest.raises(UsageError, match="names no commit") as caught:
        bring(full, host, GitFile(git="empty"))
    assert caught.value.hint == "commit something first"
