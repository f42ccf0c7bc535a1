"""How many requests a tool call costs, counted at the transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import kaos
import pytest

from tests.unit.kaos.plain_transport import fresh_kaos

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kaos.path import KaosPath

    from kaos_runner.kaos.posix import PosixKaos
    from tests.unit.kaos.plain_transport import PlainTransport


def counted(tmp_path: Path, body: Callable[[PosixKaos, PlainTransport], Awaitable[None]]) -> None:
    """Run something with a Kaos over a transport that counts."""

    async def run() -> None:
        k, transport = fresh_kaos(tmp_path)
        token = kaos.set_current_kaos(k)
        try:
            await body(k, transport)
        finally:
            kaos.reset_current_kaos(token)

    asyncio.run(run())


def test_read_file_is_one_request(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a\r\nb\n")

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        path = k.getcwd() / "f"
        for planned in ([], [path]):
            transport.requests = 0
            with k.snapshot(planned):
                assert await path.exists()
                assert await path.is_file()
                assert await path.read_bytes(512) == b"a\r\nb\n"
                assert [line async for line in path.read_lines()] == ["a\n", "b\n"]
            assert transport.requests == 1

    counted(tmp_path, body)


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_write_file_is_two_requests(tmp_path: Path, old: str | None, mode: str) -> None:
    if old is not None:
        (tmp_path / "f").write_text(old)

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        path = k.getcwd() / "f"
        with k.snapshot([path]):
            assert await path.parent.exists()
            assert await path.exists() == (old is not None)
            if old is not None:
                assert await path.read_text() == old
            await (path.write_text if mode == "overwrite" else path.append_text)("new")
            expected = (old or "" if mode == "append" else "") + "new"
            assert (await path.stat()).st_size == len(expected)
        assert transport.requests == 2
        assert (tmp_path / "f").read_text() == expected

    counted(tmp_path, body)


def test_replace_is_two_requests(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        path = k.getcwd() / "f"
        with k.snapshot():
            assert await path.exists()
            assert await path.is_file()
            await path.write_text((await path.read_text()).replace("old", "new"))
        assert transport.requests == 2

    counted(tmp_path, body)


def test_glob_of_25_files_is_one_request(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for number in range(25):
        (tmp_path / "src" / f"{number}.py").touch()

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        here = k.getcwd()
        with k.snapshot([here], globs=[(here, "src/**/*.py")]):
            assert await here.exists()
            assert await here.is_dir()
            found = [path async for path in here.glob("src/**/*.py")]
            assert len([path for path in found if await path.is_file()]) == 25
        assert transport.requests == 1

    counted(tmp_path, body)


def test_session_create_is_one_request(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"file{number}").write_text("x")
    (tmp_path / "AGENTS.md").write_text("rules")

    async def stat(path: KaosPath) -> None:
        assert (await path.stat()).st_mode

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        here = k.getcwd()
        asked = [here / "AGENTS.md", k.normpath("/bin/sh"), *(here / f".{n}" for n in range(9))]

        async def listing() -> int:
            entries = [path async for path in here.iterdir()]
            await asyncio.gather(*(stat(path) for path in entries))
            return len(entries)

        with k.snapshot(asked, directories=[here]):
            count, rules, shell = await asyncio.gather(
                listing(), asked[0].read_text(), asked[1].is_file()
            )
            assert (count, rules, shell) == (9, "rules", True)
            assert not any([await path.is_dir() for path in asked[2:]])
        assert transport.requests == 1

    counted(tmp_path, body)


def test_a_long_file_costs_a_second_request(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"line\n" * 100_000)

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        path = k.getcwd() / "f"
        with k.snapshot([path]):
            assert (await path.stat()).st_size == 500_000
            assert len(await path.read_bytes(512)) == 512
            assert transport.requests == 1
            assert len([line async for line in path.read_lines()]) == 100_000
        assert transport.requests == 2

    counted(tmp_path, body)


def test_what_was_learnt_is_dropped_at_the_end(tmp_path: Path) -> None:
    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        path = k.getcwd() / "f"
        with k.snapshot([path]):
            assert not await path.exists()
        (tmp_path / "f").touch()
        assert await path.exists()
        with k.snapshot():
            assert await path.exists()
        assert transport.requests == 3

    counted(tmp_path, body)


def test_a_write_drops_what_was_learnt(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "link").symlink_to("f")

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        with k.snapshot():
            assert await k.readtext("link") == "f"
            assert (await k.stat("link")).st_size == 1
            await k.writetext("f", "longer")
            assert (await k.stat("link")).st_size == 6
            assert await k.readtext("link") == "longer"
            assert (await k.stat("f", follow_symlinks=False)).st_size == 6
            await k.mkdir("d")
            assert [path.name async for path in k.iterdir("d")] == []
        assert transport.requests > 5

    counted(tmp_path, body)


def test_an_exec_drops_what_was_learnt_and_will_be(tmp_path: Path) -> None:
    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        path = k.getcwd() / "f"
        with k.snapshot([path]):
            assert not await path.exists()
            process = await k.exec("/bin/sh", "-c", "echo >f; read line; echo x >>f")
            await process.stderr.read(0)
            for _ in range(500):
                if await path.exists():
                    break
                await asyncio.sleep(0.01)
            process.stdin.close()
            await process.wait()
            assert (await path.stat()).st_size == 3
        assert transport.requests > 2

    counted(tmp_path, body)


def test_another_calls_write_drops_it_too(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        learnt, written = asyncio.Event(), asyncio.Event()

        async def reader() -> str:
            with k.snapshot():
                await k.stat("f")
                learnt.set()
                await written.wait()
                return await k.readtext("f")

        async def writer() -> None:
            with k.snapshot():
                await learnt.wait()
                await k.writetext("f", "new")
                written.set()

        text, _ = await asyncio.gather(reader(), writer())
        assert text == "new"
        assert transport.requests == 3

    counted(tmp_path, body)


def test_scopes_of_concurrent_calls_are_apart(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")

    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        async def call() -> None:
            with k.snapshot(["f"]):
                await k.stat("f")
                assert await k.readtext("f") == "x"

        await asyncio.gather(*(call() for _ in range(10)))
        assert transport.requests == 10

    counted(tmp_path, body)


def test_what_cannot_be_planned_is_left_out(tmp_path: Path) -> None:
    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        with k.snapshot(["a\0b", "x" * 5000, "f"], globs=[(".", "/abs"), (".", "")]):
            with pytest.raises(FileNotFoundError):
                await k.stat("f")
            with pytest.raises(ValueError, match="null"):
                await k.stat("a\0b")
        assert transport.requests == 1

    counted(tmp_path, body)


def test_pseudo_files_are_not_fetched(tmp_path: Path) -> None:
    async def body(k: PosixKaos, transport: PlainTransport) -> None:
        with k.snapshot():
            assert (await k.stat("/proc/self/status")).st_size == 0
            assert b"Name:" in await k.readbytes("/proc/self/status")
        assert transport.requests == 2

    counted(tmp_path, body)
