"""Cases about text: line ends, encodings, appends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kaos_runner.testing.case import KaosSuite, case

if TYPE_CHECKING:
    from kaos import Kaos

LINES = {
    "plain": (b"a\nb\n", ["a\n", "b\n"]),
    "no_final_newline": (b"a\nb", ["a\n", "b"]),
    "crlf": (b"a\r\nb\r\n", ["a\n", "b\n"]),
    "lone_cr": (b"a\rb", ["a\n", "b"]),
    "mixed": (b"a\r\n\rb\n\nc\r", ["a\n", "\n", "b\n", "\n", "c\n"]),
    "form_feed": (b"a\x0cb\x0b\x1cc\nd", ["a\x0cb\x0b\x1cc\n", "d"]),
    "u2028": ("a\u2028b\u2029c\x85d\n".encode(), ["a\u2028b\u2029c\x85d\n"]),
    "empty": (b"", []),
    "only_newlines": (b"\n\n", ["\n", "\n"]),
    "null_bytes": (b"a\0b\nc", ["a\0b\n", "c"]),
    "bom": (b"\xef\xbb\xbfa\n", ["\ufeffa\n"]),
}


class Text(KaosSuite):
    """readtext, readlines, writetext."""

    @pytest.mark.parametrize(("content", "lines"), LINES.values(), ids=LINES.keys())
    @case
    async def test_lines(self, k: Kaos, content: bytes, lines: list[str]) -> None:
        await k.writebytes("f", content)
        assert [line async for line in k.readlines("f")] == lines
        assert await k.readtext("f") == "".join(lines)

    @case
    async def test_text_is_written_as_it_is(self, k: Kaos) -> None:
        text = "é\r\n\u2028\x0c🙂\n no end"
        assert await k.writetext("f", text) == len(text)
        assert await k.readbytes("f") == text.encode()

    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-8-sig", "cp1252"])
    @case
    async def test_encodings(self, k: Kaos, encoding: str) -> None:
        assert await k.writetext("f", "café\nÜ\n", encoding=encoding) == 7
        assert await k.readbytes("f") == "café\nÜ\n".encode(encoding)
        assert await k.readtext("f", encoding=encoding) == "café\nÜ\n"
        assert [x async for x in k.readlines("f", encoding=encoding)] == ["café\n", "Ü\n"]

    @case
    async def test_undecodable_bytes(self, k: Kaos) -> None:
        await k.writebytes("f", b"a\xff\nb\n")
        with pytest.raises(UnicodeDecodeError):
            await k.readtext("f")
        with pytest.raises(UnicodeDecodeError):
            [line async for line in k.readlines("f")]
        assert await k.readtext("f", errors="replace") == "a\ufffd\nb\n"
        assert await k.readtext("f", errors="ignore") == "a\nb\n"
        assert [x async for x in k.readlines("f", errors="replace")] == ["a\ufffd\n", "b\n"]

    @case
    async def test_unencodable_text(self, k: Kaos) -> None:
        with pytest.raises(UnicodeEncodeError):
            await k.writetext("f", "é", encoding="ascii")
        assert await k.writetext("f", "aé", encoding="ascii", errors="replace") == 2
        assert await k.readbytes("f") == b"a?"

    @case
    async def test_an_unknown_encoding(self, k: Kaos) -> None:
        await k.writebytes("f", b"x")
        with pytest.raises(LookupError):
            await k.readtext("f", encoding="no-such")
        with pytest.raises(LookupError):
            await k.writetext("f", "x", encoding="no-such")

    @case
    async def test_many_lines_and_long_lines(self, k: Kaos) -> None:
        lines = [f"line {i}\n" for i in range(200_000)] + ["é" * 1_500_000 + "\n", "end"]
        await k.writebytes("f", "".join(lines).encode())
        assert [line async for line in k.readlines("f")] == lines

    @case
    async def test_lines_that_are_not_all_wanted(self, k: Kaos) -> None:
        await k.writebytes("f", b"line\n" * 1_000_000)
        lines = k.readlines("f")
        assert [await anext(lines) for _ in range(3)] == ["line\n"] * 3
        await lines.aclose()
        assert (await k.stat("f")).st_size == 5_000_000

    @case
    async def test_text_errors(self, k: Kaos) -> None:
        await k.mkdir("d")
        with pytest.raises(FileNotFoundError):
            await k.readtext("nothing")
        with pytest.raises(IsADirectoryError):
            await k.readtext("d")
        with pytest.raises(FileNotFoundError):
            await anext(k.readlines("nothing"))
        with pytest.raises(IsADirectoryError):
            await anext(k.readlines("d"))
        with pytest.raises(NotADirectoryError):
            await k.writetext("d/../f/x" if await k.writetext("f", "x") else "", "x")

    @case
    async def test_append_makes_and_extends(self, k: Kaos) -> None:
        assert await k.writetext("f", "één", mode="a") == 3
        assert await k.writetext("f", "\r\ntwo", mode="a") == 5
        assert await k.readbytes("f") == "één\r\ntwo".encode()

    @case
    async def test_append_errors(self, k: Kaos) -> None:
        await k.mkdir("d")
        with pytest.raises(IsADirectoryError):
            await k.writetext("d", "x", mode="a")
        with pytest.raises(FileNotFoundError):
            await k.writetext("nothing/f", "x", mode="a")

    @case
    async def test_append_writes_one_byte_order_mark(self, k: Kaos) -> None:
        for text in ("a", "b"):
            await k.writetext("f", text, mode="a", encoding="utf-16")
        assert await k.readbytes("f") == "ab".encode("utf-16")

    @case
    async def test_fifty_concurrent_appends_all_survive(self, k: Kaos) -> None:
        lines = [f"line {i} {'x' * i * 20}\n" for i in range(50)]
        await asyncio.gather(*(k.writetext("f", line, mode="a") for line in lines))
        assert sorted((await k.readtext("f")).splitlines(keepends=True)) == sorted(lines)

    @case
    async def test_concurrent_appends_of_large_texts_stay_whole(self, k: Kaos) -> None:
        texts = [str(i) * 300_000 + "\n" for i in range(6)]
        await asyncio.gather(*(k.writetext("f", text, mode="a") for text in texts))
        assert sorted((await k.readtext("f")).splitlines(keepends=True)) == texts
