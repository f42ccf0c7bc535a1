"""Grep runs in the sandbox and nowhere else, with ripgrep or without."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.kaos.posix import PosixKaos
from tests.unit.agent.host import HostTransport
from tests.unit.agent.upstream import Reply, call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.agent.conftest import Desk

BARE = ("sh", "bash", "find", "grep", "sort", "ls", "head", "sed", "uname", "cat", "echo", "env")


@pytest.fixture(params=["ripgrep", "find and grep", "busybox"])
def searcher(request: pytest.FixtureRequest, desk: Desk) -> Desk:
    """A sandbox with one kind of searching, and some files."""
    if request.param != "ripgrep":
        bare = desk.home / "bin"
        bare.mkdir()
        for name in BARE:
            source = shutil.which("busybox" if request.param == "busybox" else name)
            assert source, name
            (bare / name).symlink_to(source)
        transport = HostTransport(desk.root, path=str(bare))
        desk.kaos = PosixKaos(transport, name="test", home=str(desk.root), cwd=str(desk.root))
    for name, text in {
        "a.py": "def one():\n    return 1\n",
        "b.js": "const one = 1;\nconst Two = 2;\n",
        "sub/c.py": "one\nONE\n42\n",
        ".hidden/d.py": "one\n",
        "odd name.txt": "one: two\n",
    }.items():
        (desk.root / name).parent.mkdir(exist_ok=True)
        (desk.root / name).write_text(text)
    return desk


def grep(desk: Desk, **arguments: Any) -> tuple[bool, str]:
    async def main() -> None:
        replies = [Reply(calls=(call("Grep", **arguments),)), Reply(text="ok")]
        async with desk.opened(replies) as (_, session):
            await session.turn("go")

    asyncio.run(main())
    return desk.results()[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"pattern": "one"}, ["a.py", "b.js", "odd name.txt", "sub/c.py"]),
        ({"pattern": "one", "type": "py"}, ["a.py", "sub/c.py"]),
        ({"pattern": "one", "glob": "*.{js,txt}"}, ["b.js", "odd name.txt"]),
        ({"pattern": "one", "glob": "*.py", "head_limit": 1}, ["a.py"]),
        ({"pattern": r"^\d+$", "path": "sub"}, ["sub/c.py"]),
        ({"pattern": "(?:def|const) one"}, ["a.py", "b.js"]),
        (
            {"pattern": "one", "path": "sub", "-i": True, "output_mode": "content", "-n": True},
            ["sub/c.py:1:one", "sub/c.py:2:ONE"],
        ),
        (
            {"pattern": "return", "path": "a.py", "output_mode": "content", "-B": 1},
            ["a.py-def one():", "a.py:    return 1"],
        ),
        ({"pattern": "-o", "path": "."}, ["No matches found."]),
        (
            {"pattern": "one", "type": "py", "output_mode": "count_matches"},
            ["a.py:1", "sub/c.py:1"],
        ),
    ],
)
def test_what_it_finds(searcher: Desk, arguments: dict[str, Any], expected: list[str]) -> None:
    ok, output = grep(searcher, **arguments)
    assert ok
    assert output.splitlines()[: len(expected)] == expected
    assert ".hidden" not in output


@pytest.mark.parametrize("arguments", [{"pattern": "one", "path": "/nowhere"}, {"pattern": "("}])
def test_what_it_cannot_do(searcher: Desk, arguments: dict[str, Any]) -> None:
    ok, output = grep(searcher, **arguments)
    assert not ok
    assert "Failed to grep" in output


def test_it_never_runs_on_the_host(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = desk.home / "trap"
    trap.mkdir()
    (trap / "rg").write_text(f"#!/bin/sh\ntouch {desk.home}/sprung\n")
    (trap / "rg").chmod(0o755)
    monkeypatch.setenv("PATH", str(trap), prepend=":")
    (desk.root / "a.txt").write_text("needle\n")
    task = call("Task", description="d", subagent_name="coder", prompt="p")
    search = call("Grep", pattern="needle", path=str(desk.root))

    async def main() -> None:
        replies = [
            Reply(calls=(search, task)),
            Reply(calls=(search,)),
            Reply(text="sub"),
            Reply(text="done"),
        ]
        async with desk.opened(replies) as (_, session):
            await session.turn("go")

    asyncio.run(main())
    assert [e.output for e in desk.of("tool_result") if e.tool == "grep"] == ["a.txt\n"] * 2
    assert not (desk.home / "sprung").exists()
    assert _searches(desk) == 2


def _searches(desk: Desk) -> int:
    return sum("exec rg" in " ".join(argv) for argv in desk.transport.ran)


def test_a_root_of_its_own_is_not_the_host_s(desk: Desk, tmp_path: Path) -> None:
    """Whatever path the model names is the sandbox's business: nothing is opened here."""
    ok, output = grep(desk, pattern="root", path=str(tmp_path / "not-there"))
    assert not ok
    assert "not-there" in output
