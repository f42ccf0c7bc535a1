"""Cases about globs: exactly what pathlib finds in the same tree."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kaos_runner.testing.case import KaosSuite, case, sh

if TYPE_CHECKING:
    from kaos import Kaos

FILES = (
    "a.py", "b.txt", "B.TXT", ".hidden.py", "x y.py", "[x].py", "é.py", "src/a.py", "src/.env",
    "src/deep/er/a.py", "src/deep/b.txt", "src/deep/xa.py", ".git/config", "a/b/c.py", "a/a/b",
    "a/x/b", "a/.h/b", "back\\slash.py",
)  # fmt: skip
EMPTY = ("empty", "src/empty/empty")
LINKS = {
    "to_src": "src",
    "to_file": "a.py",
    "broken": "nowhere",
    "loop": "loop",
    "src/up": "..",
    "a/link": "../src/deep",
}

PATTERNS = (
    "*", "**", "**/*", "**/", "*/", "*.py", "**/*.py", "**/a.py", "src/*", "src/**", "src/**/*",
    "src/**/*.py", "*/*.py", "a/*/b", "**/b", "**/a/**/b", "[!x]*", "[x]*", "[[]x].py", "[a-c]*",
    "?.py", "??.py", ".*", "**/.*", ".git/*", "nothing", "nothing/*", "a.py", "a.py/*", "src/deep",
    "to_src/*", "to_*/*", "to_src/**", "to_*/**", "**/up/*", "*/up/*/deep/*", "**/er", "**/er/*",
    "src/../*.py", "../*/nothing", "*/../a.py", "./a.py", "src//a.py", "b*.TXT", "*.TXT", "br*",
    "broken", "loop", "loop/*", "**/deep/**/*.py", "**/**/a.py", "empty/*", "empty/**", "back*",
    "*y.py", "é*", "[é]*", "**/deep/", "a/link/*.py", "*/link/*",
)  # fmt: skip


class Globs(KaosSuite):
    """glob."""

    @pytest.mark.parametrize("case_sensitive", [True, False], ids=["exact", "folded"])
    @case
    async def test_globs_are_pathlibs(self, k: Kaos, case_sensitive: bool) -> None:
        await sh(k, _recipe())
        with tempfile.TemporaryDirectory() as directory:
            await asyncio.to_thread(_build, Path(directory))
            for pattern in PATTERNS:
                found = [p async for p in k.glob(".", pattern, case_sensitive=case_sensitive)]
                expected = _expected(Path(directory), pattern, case_sensitive=case_sensitive)
                assert sorted(map(str, found)) == expected, pattern

    @case
    async def test_matches_have_the_path_of_the_directory(self, k: Kaos) -> None:
        await sh(k, _recipe())
        here = k.getcwd()
        assert [p async for p in k.glob("src", "a.py")] == [k.normpath("src/a.py")]
        assert [p async for p in k.glob(here / "src", "a.py")] == [here / "src" / "a.py"]
        assert [p async for p in (here / "src").glob("**/er/*")] == [here / "src/deep/er/a.py"]

    @case
    async def test_glob_of_an_absolute_pattern(self, k: Kaos) -> None:
        with pytest.raises(NotImplementedError):
            [p async for p in k.glob(".", "/etc/*")]

    @case
    async def test_glob_of_an_empty_pattern(self, k: Kaos) -> None:
        with pytest.raises(ValueError, match="Unacceptable pattern"):
            [p async for p in k.glob(".", "")]

    @case
    async def test_glob_where_there_is_no_directory(self, k: Kaos) -> None:
        await k.writebytes("f", b"")
        for path in ("nothing", "f", "f/below"):
            for pattern in ("*", "**", "**/*", "a"):
                assert [p async for p in k.glob(path, pattern)] == []

    @case
    async def test_names_that_are_hard_to_list(self, k: Kaos) -> None:
        await k.mkdir("d")
        hard = ["a\nb", "\n", " ", "-print", "\udcff", "'", "%s", "d .", "l81a4 ."]
        for name in hard:
            await k.writebytes(f"d/{name}", b"")
        assert sorted([p.name async for p in k.glob(".", "**/*") if str(p) != "d"]) == sorted(hard)
        assert [p.name async for p in k.glob("d", "?")] != []
        assert [p.name async for p in k.glob("d", "a*b")] == ["a\nb"]


def _recipe() -> str:
    directories = {str(Path(file).parent) for file in FILES} | set(EMPTY)
    lines = [f"mkdir -p '{directory}'" for directory in sorted(directories)]
    lines += [f": >'{file}'" for file in FILES]
    lines += [f"ln -s '{target}' '{link}'" for link, target in LINKS.items()]
    return "\n".join(lines)


def _build(top: Path) -> None:
    for directory in EMPTY:
        (top / directory).mkdir(parents=True)
    for file in FILES:
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).touch()
    for link, target in LINKS.items():
        (top / link).symlink_to(target)


def _expected(top: Path, pattern: str, *, case_sensitive: bool) -> list[str]:
    return sorted(_relative(p, top) for p in top.glob(pattern, case_sensitive=case_sensitive))


def _relative(path: Path, top: Path) -> str:
    return str(path)[len(str(top)) + 1 :] or "."
