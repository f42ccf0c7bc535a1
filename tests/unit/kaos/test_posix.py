"""The Kaos over other shells and userlands, and its globs beside pathlib's."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos_runner.kaos.posix import PosixKaos
from kaos_runner.kaos.scripts import APPEND, CHDIR, MKDIR, PROBE, READ, WRITE
from kaos_runner.testing.kaos_directories import Directories, Stats
from kaos_runner.testing.kaos_files import Files
from kaos_runner.testing.kaos_globs import Globs
from kaos_runner.testing.kaos_text import Text
from tests.debian import need
from tests.unit.kaos.plain_transport import PlainTransport, fresh_kaos

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kaos import Kaos


class _OverAShell(Stats, Directories, Files, Text, Globs):
    """The file cases of the suite, with scripts run by one shell."""

    shell: ClassVar[Sequence[str]]
    package: ClassVar[str]

    @asynccontextmanager
    async def kaos(self) -> AsyncIterator[Kaos]:
        program = shutil.which(self.shell[0])
        if program is None:
            need([self.package])
        with tempfile.TemporaryDirectory() as directory:
            top = Path(directory).resolve()  # noqa: ASYNC240 - a test
            (top / "work").mkdir()
            transport = PlainTransport([str(program), *self.shell[1:]], self.environ(top))
            yield PosixKaos(transport, name="shell", home=directory, cwd=str(top / "work"))

    def environ(self, top: Path) -> dict[str, str]:  # noqa: ARG002
        """The environment of the scripts."""
        return dict(os.environ)


class TestDash(_OverAShell):
    shell = ("dash",)
    package = "dash"


class TestBash(_OverAShell):
    shell = ("bash",)
    package = "bash"


@pytest.mark.skipif(os.getuid() != 0, reason="the other classes are another user than root")
class TestAnotherUser(_OverAShell):
    """The user is not root, so that permissions are denied."""

    shell = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh")
    package = "util-linux"

    def environ(self, top: Path) -> dict[str, str]:
        top.chmod(0o755)
        os.chown(top / "work", 65534, 65534)
        return super().environ(top)


class TestBusybox(_OverAShell):
    """Everything is busybox: the shell and every program that a script calls."""

    shell = ("busybox", "sh")
    package = "busybox-static"

    def environ(self, top: Path) -> dict[str, str]:
        programs = top / "bin"
        programs.mkdir()
        busybox = shutil.which("busybox")
        for name in BUSYBOX:
            (programs / name).symlink_to(str(busybox))
        return {"PATH": str(programs)}


BUSYBOX = (
    "cat", "chmod", "dd", "find", "head", "id", "ln", "mkdir", "mkfifo", "printf", "readlink", "rm",
    "sh", "stat", "tail", "touch", "tr",
)  # fmt: skip
SEGMENTS = st.sampled_from(
    ["*", "**", "a", "b", "?", "[ab]", "[!a]", "a*", ".*", "..", "*b", "link", "A"]
)
TREES = st.lists(
    st.lists(st.sampled_from(["a", "b", "ab", ".h", "A"]), min_size=1, max_size=4).map("/".join),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(
    tree=TREES,
    links=st.dictionaries(
        st.sampled_from(["link", "a/link", "b"]), st.sampled_from(["a", "..", "."])
    ),
    pattern=st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join),
    case_sensitive=st.booleans(),
)
def test_any_glob_is_pathlibs(
    tree: list[str], links: dict[str, str], pattern: str, case_sensitive: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory).resolve() / "one" / "two"
        top.mkdir(parents=True)
        for path in tree:
            (top / path).mkdir(parents=True, exist_ok=True)
        for link, target in links.items():
            if (top / link).parent.is_dir() and not (top / link).exists():
                (top / link).symlink_to(target)
        expected = sorted(str(p) for p in top.glob(pattern, case_sensitive=case_sensitive))

        async def found() -> list[str]:
            k, _ = fresh_kaos(top)
            matches = k.glob(str(top), pattern, case_sensitive=case_sensitive)
            return sorted([str(p) async for p in matches])

        assert asyncio.run(found()) == expected


def test_each_file_operation_is_one_request(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()

    async def run() -> None:
        k, transport = fresh_kaos(tmp_path)
        operations = [
            k.writebytes("f", b"x" * 5000),
            k.writetext("f", "y", mode="a"),
            k.readbytes("f"),
            k.readbytes("f", 1),
            k.readtext("f"),
            k.stat("f"),
            k.mkdir("e/f", parents=True),
            k.chdir("d"),
        ]
        for number, operation in enumerate(operations, 1):
            await operation
            assert transport.requests == number
        lists = [k.readlines("../f"), k.iterdir(".."), k.glob("..", "**/*"), k.glob("..", "d/*")]
        for number, listing in enumerate(lists, len(operations) + 1):
            assert isinstance([x async for x in listing], list)
            assert transport.requests == number

    asyncio.run(run())


def test_globs_of_a_known_depth_look_no_deeper(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)

    async def run() -> list[str]:
        k, transport = fresh_kaos(tmp_path)
        assert [str(p) async for p in k.glob(".", "a/*")] == ["a/b"]
        return transport.last

    sent = asyncio.run(run())
    assert sent[-4:] == ["d", str(tmp_path / "a"), "1", "*"]


@pytest.mark.parametrize("script", [APPEND, CHDIR, MKDIR, PROBE, READ, WRITE])
def test_scripts_are_short(script: str) -> None:
    """Some providers carry argv in a URL: about 4 KB."""
    assert len(script) < 2048
