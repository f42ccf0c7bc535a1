"""The transport to an E2B sandbox, over the emulated service and real processes."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.kaos.e2b import INLINE, E2bTransport
from kaos_runner.kaos.e2b_envd import Envd
from kaos_runner.kaos.e2b_process import Marks
from kaos_runner.kaos.posix import PosixKaos
from tests.debian import need
from tests.emulators.e2b import Emulator, running
from tests.emulators.e2b_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from kaos_runner.errors import SandboxLostError

LONG = b"\x00\xff" * INLINE


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    need(missing_packages())
    with running() as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


class Told:
    """What the transport tells its owner."""

    def __init__(self) -> None:
        self.retries: list[tuple[Any, ...]] = []
        self.lost: list[SandboxLostError] = []


@asynccontextmanager
async def open_kaos(told: Told | None = None) -> AsyncIterator[PosixKaos]:
    from e2b import AsyncSandbox

    told = told or Told()
    sandbox = await AsyncSandbox.create()
    envd = Envd(sandbox, {"GIVEN": "there"}, told.lost.append)
    transport = E2bTransport(envd, lambda *event: told.retries.append(event))
    kaos = PosixKaos(transport, name="e2b", home="/home/user", cwd="/home/user")
    yield kaos
    await kaos.aclose()
    await transport.aclose()


def transport_of(kaos: PosixKaos) -> E2bTransport:
    assert isinstance(kaos.transport, E2bTransport)
    return kaos.transport


def in_kaos(test: Callable[[PosixKaos], Awaitable[None]], told: Told | None = None) -> None:
    async def run() -> None:
        async with open_kaos(told) as kaos:
            await test(kaos)

    asyncio.run(run())


async def ended(kaos: PosixKaos, *argv: str) -> tuple[int, bytes, bytes]:
    process = await kaos.exec(*argv)
    process.stdin.close()
    out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return await process.wait(), out, err


# -- what an operation costs


async def _list(kaos: PosixKaos) -> None:
    assert [p async for p in kaos.iterdir(".")]


async def _glob(kaos: PosixKaos) -> None:
    assert [p async for p in kaos.glob(".", "**/f")]


OPERATIONS: dict[str, Callable[[PosixKaos], Awaitable[object]]] = {
    "stat": lambda k: k.stat("f"),
    "chdir": lambda k: k.chdir("d"),
    "iterdir": _list,
    "glob": _glob,
    "readbytes": lambda k: k.readbytes("long"),
    "readbytes of a part": lambda k: k.readbytes("long", 10),
    "readtext": lambda k: k.readtext("f"),
    "writebytes": lambda k: k.writebytes("g", b"x" * INLINE),
    "append": lambda k: k.writetext("f", "more", mode="a"),
    "mkdir": lambda k: k.mkdir("e/e", parents=True, exist_ok=True),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_file_operation_is_one_request(emulator: Emulator, name: str) -> None:
    async def check(kaos: PosixKaos) -> None:
        await kaos.writetext("f", "x")
        await kaos.writebytes("long", LONG)
        await kaos.mkdir("d")
        emulator.counts.clear()
        await OPERATIONS[name](kaos)
        assert emulator.counts == {"Process/Start": 1}

    in_kaos(check)


def test_a_long_write_is_three_requests(emulator: Emulator) -> None:
    async def check(kaos: PosixKaos) -> None:
        emulator.counts.clear()
        await kaos.writebytes("f", LONG)
        sent = {"Process/Start": 1, "Process/SendInput": 1, "Process/CloseStdin": 1}
        assert emulator.counts == sent
        await kaos.writebytes("f", LONG * 2)
        assert emulator.counts["Process/StreamInput"] == 1
        assert await kaos.readbytes("f") == LONG * 2

    in_kaos(check)


def test_a_command_is_one_request_and_the_end_of_its_input(emulator: Emulator) -> None:
    async def check(kaos: PosixKaos) -> None:
        emulator.counts.clear()
        assert await ended(kaos, "sh", "-c", "echo $GIVEN") == (0, b"there\n", b"")
        process = await kaos.exec("wc", "-c")
        for _ in range(50):
            process.stdin.write(b"12")
        process.stdin.close()
        assert (await process.stdout.read()).strip() == b"100"
        sent = {"Process/Start": 2, "Process/SendInput": 1, "Process/CloseStdin": 2}
        assert emulator.counts == sent

    in_kaos(check)


def test_the_first_bytes_of_a_file_do_not_fetch_it(emulator: Emulator) -> None:
    del emulator

    async def check(kaos: PosixKaos) -> None:
        assert (await ended(kaos, "truncate", "-s", "8G", "huge"))[0] == 0
        assert await kaos.readbytes("huge", 512) == bytes(512)

    in_kaos(check)


@pytest.mark.usefixtures("emulator")
def test_a_command_that_nobody_reads_is_made_to_wait() -> None:
    async def check(kaos: PosixKaos) -> None:
        process = await kaos.exec("sh", "-c", "head -c 1000000000 /dev/zero; echo >done")
        await process.stdout.readexactly(1)
        await asyncio.sleep(0.5)
        with pytest.raises(FileNotFoundError):
            await kaos.stat("done")
        await process.kill()
        assert await process.wait() == -9
        assert len(await process.stdout.read()) < 16 * 2**20

    in_kaos(check)


# -- failures


@pytest.mark.parametrize("how", ["reset", "lose", "cut"])
def test_what_may_be_repeated_is_repeated(emulator: Emulator, how: str) -> None:
    told = Told()

    async def check(kaos: PosixKaos) -> None:
        for operation in (
            lambda: kaos.writebytes("f", b"x"),
            lambda: kaos.readbytes("f"),
            lambda: kaos.stat("f"),
            lambda: kaos.chdir("."),
        ):
            emulator.fail("Process/Start", how=how)
            await operation()
        assert await kaos.readbytes("f") == b"x"

    in_kaos(check, told)
    assert [event[:2] for event in told.retries] == [("exec", 1)] * 4
    assert not told.lost


@pytest.mark.parametrize("how", ["reset", "lose", "cut"])
def test_what_may_not_be_repeated_fails_and_leaves_nothing(emulator: Emulator, how: str) -> None:
    told = Told()

    async def check(kaos: PosixKaos) -> None:
        for operation in (
            lambda: kaos.writetext("f", "x\n", mode="a"),
            lambda: kaos.mkdir("d"),
            lambda: kaos.exec("sleep", "4321"),
        ):
            emulator.fail("Process/Start", how=how)
            with pytest.raises(ConnectionError, match="the connection to the sandbox broke"):
                await operation()
        assert b"4321" not in (await ended(kaos, "ps", "-eo", "args"))[1]

    in_kaos(check, told)
    assert not told.lost
    assert not told.retries


@pytest.mark.parametrize("kind", ["Process/SendInput", "Process/CloseStdin"])
def test_input_that_does_not_arrive_is_sent_again(emulator: Emulator, kind: str) -> None:
    async def check(kaos: PosixKaos) -> None:
        emulator.fail(kind, how="reset")
        await kaos.writebytes("f", LONG)
        assert await kaos.readbytes("f") == LONG

    in_kaos(check)


def test_input_that_is_refused_ends_the_command(emulator: Emulator) -> None:
    async def check(kaos: PosixKaos) -> None:
        emulator.fail("Process/SendInput", status=404, message="process not found")
        with pytest.raises(ProcessLookupError):
            await kaos.writebytes("f", LONG)
        with pytest.raises(IsADirectoryError):  # it ends before it reads
            await kaos.writebytes(".", LONG)

    in_kaos(check)


def test_a_rate_limit_is_waited_for(emulator: Emulator) -> None:
    told = Told()

    async def check(kaos: PosixKaos) -> None:
        emulator.rate_limit("Process/Start", 2)
        await kaos.writetext("f", "x", mode="a")
        assert await kaos.readbytes("f") == b"x"

    in_kaos(check, told)
    assert [event[:2] for event in told.retries] == [("exec", 1), ("exec", 2)]


def test_a_stream_that_breaks_is_told_to_readers_and_waiters(emulator: Emulator) -> None:
    async def check(kaos: PosixKaos) -> None:
        emulator.fail("Process/Start", how="cut", after=3)
        process = await kaos.exec("sh", "-c", "echo one; sleep 1; echo two; sleep 60")
        with pytest.raises(ConnectionError):
            await process.stdout.read()
        with pytest.raises(ConnectionError):
            await process.wait()

    in_kaos(check)


def _kill(emulator: Emulator, sandbox_id: str) -> None:
    emulator.expire(sandbox_id)


def _pause(emulator: Emulator, sandbox_id: str) -> None:
    import httpx

    headers = {"X-API-KEY": emulator.environ()["E2B_API_KEY"]}
    url = f"{emulator.url}/sandboxes/{sandbox_id}/pause"
    assert httpx.post(url, json={}, headers=headers, trust_env=False).status_code == 204


@pytest.mark.parametrize(
    ("end", "words"),
    [(_kill, "is gone: it was killed, or its time was up"), (_pause, "was paused")],
)
def test_a_lost_sandbox_is_told_once(
    emulator: Emulator, end: Callable[[Emulator, str], None], words: str
) -> None:
    told = Told()

    async def check(kaos: PosixKaos) -> None:
        waiting = [asyncio.create_task(ended(kaos, "sleep", "60")) for _ in range(3)]
        while emulator.counts["Process/Start"] < 3:  # noqa: ASYNC110 - counted in another thread
            await asyncio.sleep(0.01)
        (sandbox_id,) = emulator.fleet.sandboxes
        await asyncio.to_thread(end, emulator, sandbox_id)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(r, ConnectionError) for r in results), results
        emulator.counts.clear()
        with pytest.raises(ConnectionError):
            await kaos.stat(".")
        assert not emulator.counts  # what is known to be lost is not asked again

    in_kaos(check, told)
    (error,) = told.lost
    assert words in error.message
    assert error.hint


def test_a_refused_token_is_a_lost_sandbox(emulator: Emulator) -> None:
    told = Told()

    async def check(kaos: PosixKaos) -> None:
        emulator.fail("Process/Start", status=401, message="unauthorized")
        with pytest.raises(ConnectionError):
            await kaos.stat(".")

    in_kaos(check, told)
    assert "access token" in told.lost[0].message


@pytest.mark.usefixtures("emulator")
def test_what_goes_on_in_the_background_is_let_go() -> None:
    async def check(kaos: PosixKaos) -> None:
        process = await kaos.exec("sh", "-c", "sleep 60 & exit 3")
        assert await process.wait() == 3
        await transport_of(kaos).aclose()
        assert await process.stdout.read() == b""
        assert b"sleep 60" in (await ended(kaos, "ps", "-eo", "args"))[1]

    in_kaos(check)


@pytest.mark.usefixtures("emulator")
def test_a_stream_that_is_let_go_before_it_is_read_ends() -> None:
    async def check(kaos: PosixKaos) -> None:
        for _ in range(10):
            process = await kaos.exec("sh", "-c", "sleep 60 & exit 3")
            await transport_of(kaos).aclose()
            assert await process.wait() in (3, -9)
            assert await process.stdout.read() == b""

    in_kaos(check)


# -- marks


MARK = b"\x1ecafe\x1e"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 100])
def test_marks_are_found_wherever_chunks_are_cut(size: int) -> None:
    text = b"bash: warning\n" + MARK + b"42.one\x1e two" + MARK[:3] + b" three\n" + MARK + b"7.\x1e"
    marks = Marks(MARK)
    said = b"".join(marks.feed(bytes(c)) for c in itertools.batched(text, size, strict=False))
    assert marks.words == [b"42", b"7"]
    assert said + marks.rest() == b"bash: warning\none\x1e two" + MARK[:3] + b" three\n\x1e"
