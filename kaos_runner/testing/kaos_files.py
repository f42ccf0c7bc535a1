"""Cases about the content of files."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from kaos_runner.testing.case import KaosSuite, case, sh, without_permissions

if TYPE_CHECKING:
    from kaos import Kaos

EVERY_BYTE = bytes(range(256)) * 4
NAMES = {
    "space": "a b",
    "newline": "a\nb",
    "final_newline": "ab\n",
    "dash": "-n",
    "quotes": "'\"`",
    "shell": "$(touch owned);&|<>",
    "pattern": "[x]*?",
    "backslash": "a\\nb\\",
    "unicode": "näme-日本-🙂",
    "separator": "a\u2028b",
    "not_utf8": "\udcff\udcfe",
    "tilde": "~",
    "percent": "%s%n",
    "longest": "n" * 255,
}
name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())


class Files(KaosSuite):
    """readbytes, writebytes, and names."""

    @case
    async def test_bytes_round_trip(self, k: Kaos) -> None:
        assert await k.writebytes("f", EVERY_BYTE) == len(EVERY_BYTE)
        assert await k.readbytes("f") == EVERY_BYTE

    @case
    async def test_empty_file(self, k: Kaos) -> None:
        assert await k.writebytes("f", b"") == 0
        assert await k.readbytes("f") == b""
        assert await k.readbytes("f", 10) == b""

    @case
    async def test_partial_reads(self, k: Kaos) -> None:
        await k.writebytes("f", EVERY_BYTE)
        assert [await k.readbytes("f", n) for n in (0, 1, 300, 5000)] == [
            b"", EVERY_BYTE[:1], EVERY_BYTE[:300], EVERY_BYTE
        ]  # fmt: skip

    @case
    async def test_fifty_megabytes(self, k: Kaos) -> None:
        content = EVERY_BYTE * 50 * 1024
        assert await k.writebytes("f", content) == len(content)
        assert (await k.stat("f")).st_size == len(content)
        assert await k.readbytes("f", 12) == content[:12]
        read = await k.readbytes("f")
        assert hashlib.sha256(read).digest() == hashlib.sha256(content).digest()

    @case
    async def test_absolute_and_relative_paths_are_the_same_file(self, k: Kaos) -> None:
        await k.writebytes("f", b"x")
        assert await k.readbytes(k.getcwd() / "f") == b"x"
        assert await k.readbytes(str(k.getcwd() / "f")) == b"x"
        assert await k.readbytes("./d/../f" if await _made(k, "d") else "") == b"x"

    @case
    async def test_overwriting_truncates(self, k: Kaos) -> None:
        await k.writebytes("f", b"a long content")
        await k.writebytes("f", b"short")
        assert await k.readbytes("f") == b"short"

    @case
    async def test_overwriting_keeps_mode_and_inode(self, k: Kaos) -> None:
        await sh(k, "echo >f; chmod 751 f")
        before = await k.stat("f")
        await k.writebytes("f", b"new")
        after = await k.stat("f")
        assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)

    @case
    async def test_read_through_a_symlink(self, k: Kaos) -> None:
        await sh(k, "printf x >f; ln -s f link; mkdir d; printf y >d/g; ln -s d to")
        assert await k.readbytes("link") == b"x"
        assert await k.readbytes("to/g") == b"y"

    @case
    async def test_write_through_a_symlink(self, k: Kaos) -> None:
        await sh(k, "printf x >f; ln -s f link")
        await k.writebytes("link", b"new")
        assert await k.readbytes("f") == b"new"
        assert (await sh(k, "readlink link")).strip() == b"f"

    @case
    async def test_write_through_a_symlink_to_nowhere(self, k: Kaos) -> None:
        await sh(k, "ln -s target link")
        await k.writebytes("link", b"x")
        assert await k.readbytes("target") == b"x"

    @case
    async def test_read_of_nothing(self, k: Kaos) -> None:
        for path in ("nothing", "nothing/below"):
            with pytest.raises(FileNotFoundError):
                await k.readbytes(path)

    @case
    async def test_read_of_a_directory(self, k: Kaos) -> None:
        await k.mkdir("d")
        with pytest.raises(IsADirectoryError):
            await k.readbytes("d")
        with pytest.raises(IsADirectoryError):
            await k.readbytes("d", 5)

    @case
    async def test_read_below_a_file(self, k: Kaos) -> None:
        await k.writebytes("f", b"x")
        with pytest.raises(NotADirectoryError):
            await k.readbytes("f/below")

    @case
    async def test_read_of_symlinks_that_lead_nowhere(self, k: Kaos) -> None:
        await sh(k, "ln -s nowhere broken; ln -s loop loop; ln -s b a; ln -s a b")
        with pytest.raises(FileNotFoundError):
            await k.readbytes("broken")
        for path in ("loop", "a", "loop/below"):
            with pytest.raises(OSError, match="Too many levels"):
                await k.readbytes(path)

    @case
    async def test_read_without_permission(self, k: Kaos) -> None:
        await without_permissions(k)
        await sh(k, "echo >f; chmod 0 f; mkdir d; echo >d/g; chmod 0 d")
        for path in ("f", "d/g"):
            with pytest.raises(PermissionError):
                await k.readbytes(path)
        await sh(k, "chmod 700 d")

    @case
    async def test_write_below_nothing(self, k: Kaos) -> None:
        with pytest.raises(FileNotFoundError):
            await k.writebytes("nothing/f", b"x")

    @case
    async def test_write_to_a_directory(self, k: Kaos) -> None:
        await k.mkdir("d")
        with pytest.raises(IsADirectoryError):
            await k.writebytes("d", b"x")

    @case
    async def test_write_below_a_file(self, k: Kaos) -> None:
        await k.writebytes("f", b"x")
        with pytest.raises(NotADirectoryError):
            await k.writebytes("f/below", b"x")
        assert await k.readbytes("f") == b"x"

    @case
    async def test_write_without_permission(self, k: Kaos) -> None:
        await without_permissions(k)
        await sh(k, "echo x >f; chmod 400 f; mkdir d; chmod 500 d")
        for path in ("f", "d/g"):
            with pytest.raises(PermissionError):
                await k.writebytes(path, b"new")
        assert await k.readbytes("f") == b"x\n"

    @case
    async def test_a_name_that_is_too_long(self, k: Kaos) -> None:
        for operation in (k.readbytes("n" * 256), k.writebytes("n" * 256, b""), k.stat("n" * 256)):
            with pytest.raises(OSError, match="File name too long"):
                await operation

    @case
    async def test_a_null_byte_in_a_path(self, k: Kaos) -> None:
        for operation in (k.readbytes("a\0b"), k.writebytes("a\0b", b""), k.stat("a\0b")):
            with pytest.raises(ValueError, match="null"):
                await operation

    @case
    async def test_errors_name_the_path(self, k: Kaos) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await k.readbytes("nothing")
        assert "nothing" in str(caught.value.filename)

    @name
    @case
    async def test_names(self, k: Kaos, name: str) -> None:
        await k.mkdir("d")
        await k.writebytes(f"d/{name}", b"x")
        assert [entry.name async for entry in k.iterdir("d")] == [name]
        assert [str(entry) async for entry in k.glob("d", "*")] == [f"d/{name}"]
        assert await k.readbytes(f"d/{name}") == b"x"
        assert (await k.stat(f"d/{name}")).st_size == 1

    @name
    @case
    async def test_names_of_directories(self, k: Kaos, name: str) -> None:
        await k.mkdir(f"{name}/below", parents=True)
        await k.chdir(name)
        assert k.getcwd().name == name
        assert [entry.name async for entry in k.iterdir(".")] == ["below"]

    @case
    async def test_concurrent_writes_and_reads(self, k: Kaos) -> None:
        contents = {f"f{i}": bytes([i]) * (i * 1000) for i in range(50)}
        await asyncio.gather(*(k.writebytes(f, content) for f, content in contents.items()))
        read = await asyncio.gather(*(k.readbytes(f) for f in contents))
        assert read == list(contents.values())


async def _made(k: Kaos, path: str) -> bool:
    await k.mkdir(path)
    return True
