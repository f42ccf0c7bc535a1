"""The transport to a sprite, over the emulated service and real processes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import shutil
import subprocess
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from sprites.async_client import AsyncSpritesClient

from kaos_runner.kaos import scripts
from kaos_runner.kaos.posix import PosixKaos
from kaos_runner.kaos.sprites import HOME, SpritesTransport
from kaos_runner.kaos.sprites_wire import BOOT, preamble
from tests.debian import need
from tests.emulators.sprites import SpritesEmulator
from tests.emulators.sprites_machine import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kaos_runner.errors import SandboxLostError

NAME = "kimi-agent-test"
SECRET = "canary-6f2a-in-a-sprite"


@dataclass
class Told:
    """What the transport tells its owner."""

    retries: list[tuple[str, int, str, float]] = field(default_factory=list)
    lost: list[SandboxLostError] = field(default_factory=list)

    def retry(self, *event: Any) -> None:
        self.retries.append(event)


@pytest.fixture(params=["leads a group", "in the server's group"])
def emulator(request: pytest.FixtureRequest) -> Iterator[SpritesEmulator]:
    need(missing_packages())
    with SpritesEmulator(own_group=request.param == "leads a group", run_on=0.2) as service:
        yield service
        assert service.settled() == []


@asynccontextmanager
async def transport_to(
    emulator: SpritesEmulator, told: Told | None = None, **env: str
) -> AsyncIterator[SpritesTransport]:
    told = told or Told()
    async with AsyncSpritesClient(emulator.token, emulator.url) as client:
        with contextlib.suppress(Exception):
            await client.create_sprite(NAME)
        yield SpritesTransport(
            client.sprite(NAME), env=env, on_retry=told.retry, on_lost=told.lost.append
        )


def test_run_carries_exact_bytes_env_and_directory(emulator: SpritesEmulator) -> None:
    every = bytes(range(1, 256)).decode("latin-1")

    async def main() -> None:
        async with transport_to(emulator, ALL=every) as transport:
            done = await transport.run(
                ["sh", "-c", 'printf %s "$ALL"; pwd >&2; cat; exit 7', "sh"],
                cwd="/tmp",
                stdin=b"a\0b\xff",
            )
        assert done.stdout == every.encode() + b"a\0b\xff"
        assert done.stderr == b"/tmp\n"
        assert done.exit_code == 7

    asyncio.run(main())


def test_arguments_arrive_as_they_are(emulator: SpritesEmulator) -> None:
    arguments = ["", "a b", "'", '"', "\\", "\n", "$HOME", "`id`", "é", "--", "\x81\x88", "%b\\c"]

    async def main() -> bytes:
        async with transport_to(emulator) as transport:
            return (await transport.run(["printf", "%s\\0", *arguments], cwd=None)).stdout

    assert asyncio.run(main()).decode().split("\0")[:-1] == arguments


def test_a_command_longer_than_any_url_runs(emulator: SpritesEmulator) -> None:
    async def main() -> int:
        async with transport_to(emulator) as transport:
            done = await transport.run(["printf", "%s", "x" * 100_000], cwd=None)
            return len(done.stdout)

    assert asyncio.run(main()) == 100_000


def test_nothing_secret_stands_in_a_url(emulator: SpritesEmulator) -> None:
    async def main() -> bytes:
        async with transport_to(emulator, TOKEN=SECRET) as transport:
            process = await transport.start(["sh", "-c", f"echo $TOKEN {SECRET}"], cwd=HOME)
            process.stdin.close()
            return await process.stdout.read()

    assert asyncio.run(main()) == f"{SECRET} {SECRET}\n".encode()
    assert not [seen.url for seen in emulator.log.seen if "canary" in seen.url]


@pytest.mark.parametrize("shell", [["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]])
@pytest.mark.parametrize("leads", [True, False])
def test_the_first_line_works_in_every_shell(shell: list[str], leads: bool) -> None:
    if shutil.which(shell[0]) is None:
        need([{"busybox": "busybox-static"}.get(shell[0], shell[0])])
    every = bytes(range(1, 256)).decode("latin-1")
    line = preamble(["sh", "-c", 'printf %s "$A"; cat; exit 5'], cwd="/", env={"A": every})
    done = subprocess.run(
        [*shell, "-c", BOOT[2]],
        input=line + b"a\0b\n\xff",
        capture_output=True,
        check=False,
        start_new_session=leads,
    )
    assert done.stdout == every.encode() + b"a\0b\n\xff"
    assert re.fullmatch(rb"\x1e\d+ 0\n", done.stderr)
    assert done.returncode == 5


def test_a_NUL_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="null byte"):
        preamble(["echo", "a\0b"], cwd=None, env={})


@pytest.mark.parametrize(
    ("argv", "cwd", "error"),
    [
        (["no-such-program"], "/", FileNotFoundError),
        (["/no/such/program"], "/", FileNotFoundError),
        (["/etc/passwd"], "/", PermissionError),
        (["/etc"], "/", PermissionError),
        (["ls"], "/no/such/directory", FileNotFoundError),
        (["ls"], "/etc/passwd", NotADirectoryError),
    ],
)
def test_start_says_why_nothing_runs(
    emulator: SpritesEmulator, argv: list[str], cwd: str, error: type[OSError]
) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            with pytest.raises(error) as raised:
                await transport.start(argv, cwd=cwd)
            assert raised.value.filename == (argv[0] if cwd == "/" else cwd)

    asyncio.run(main())


def test_an_operation_is_one_request(emulator: SpritesEmulator) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            kaos = PosixKaos(transport, name="sprites", home=HOME, cwd=HOME)
            emulator.forget()
            await kaos.writetext("a.txt", "text")
            await kaos.writetext("a.txt", "more", mode="a")
            assert await kaos.readtext("a.txt") == "textmore"
            await kaos.stat("a.txt")
            await kaos.mkdir("b/c", parents=True)
            assert [str(path) async for path in kaos.glob(HOME, "**/*.txt")] == [f"{HOME}/a.txt"]
            process = await kaos.exec("true")
            assert await process.wait() == 0

    asyncio.run(main())
    assert emulator.counts() == {"exec": 7}


def test_200_processes_need_no_thread(emulator: SpritesEmulator) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            await transport.run(["true"], cwd=None)
            before = threading.active_count()
            processes = await asyncio.gather(
                *(transport.start(["cat"], cwd="/") for _ in range(200))
            )
            assert threading.active_count() == before
            for number, process in enumerate(processes):
                process.stdin.write(b"%d" % number)
                process.stdin.close()
            outputs = await asyncio.gather(*(process.stdout.read() for process in processes))
            assert outputs == [b"%d" % number for number in range(200)]
            assert {await process.wait() for process in processes} == {0}
            assert threading.active_count() == before

    asyncio.run(main())


def test_what_was_delivered_is_not_kept(emulator: SpritesEmulator) -> None:
    size = 300_000_000

    async def main() -> int:
        read = 0
        async with transport_to(emulator) as transport:
            process = await transport.start(["head", "-c", str(size), "/dev/zero"], cwd="/")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            while chunk := await process.stdout.read(2**20):
                read += len(chunk)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            assert grown < size / 4
            await process.wait()
        return read

    assert asyncio.run(main()) == size


def test_a_slow_reader_holds_the_writer_back(emulator: SpritesEmulator) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            process = await transport.start(["yes"], cwd="/")
            sizes = []
            for _ in range(2):
                await asyncio.sleep(0.5)
                sizes.append(next(iter(emulator.sprite(NAME).live())).delivered)
            assert sizes[0] == sizes[1]
            assert await process.stdout.readline() == b"y\n"
            await process.kill()

    asyncio.run(main())


def test_kill_reaches_the_children(emulator: SpritesEmulator) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            process = await transport.start(["sh", "-c", "sleep 61 & sleep 62"], cwd="/")
            while len(emulator.processes()) < 3:  # noqa: ASYNC110 - the emulator has no event for it
                await asyncio.sleep(0.01)
            await process.kill()
            assert emulator.processes() == []
            assert await process.wait() == process.returncode == -9

    asyncio.run(main())


def test_kill_ends_the_session_where_the_group_cannot_be_reached(emulator: SpritesEmulator) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            process = await transport.start(["sleep", "63"], cwd="/")
            emulator.fail("exec", "status", status=500, times=20)
            await process.kill()
            assert process.returncode == -9

    asyncio.run(main())
    assert emulator.counts()["kill"] == 1


def test_a_cancelled_operation_is_killed(emulator: SpritesEmulator) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            task = asyncio.create_task(
                transport.run(["sh", "-c", "sleep 64 & exec sleep 65"], cwd=None)
            )
            while len(emulator.processes()) < 2:  # noqa: ASYNC110 - the emulator has no event for it
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert emulator.processes() == []

    asyncio.run(main())


def test_a_process_can_be_interrupted_by_signals(emulator: SpritesEmulator) -> None:
    script = "trap 'echo caught; exit 3' INT; kill -INT $$; sleep 1"

    async def main() -> tuple[bytes, int]:
        async with transport_to(emulator) as transport:
            done = await transport.run(["sh", "-c", script], cwd=None)
            return done.stdout, done.exit_code

    assert asyncio.run(main()) == (b"caught\n", 3)


@pytest.mark.parametrize(
    "fault",
    [{"kind": "status", "status": code} for code in (429, 502, 503, 504)] + [{"kind": "reset"}],
    ids=lambda fault: str(fault.get("status", "reset")),
)
def test_a_handshake_that_fails_is_tried_again(
    emulator: SpritesEmulator, fault: dict[str, Any]
) -> None:
    told = Told()

    async def main() -> None:
        async with transport_to(emulator, told) as transport:
            emulator.fail("exec", times=2, **fault)
            kaos = PosixKaos(transport, name="sprites", home=HOME, cwd=HOME)
            await kaos.writetext("log", "line\n", mode="a")
            assert await kaos.readtext("log") == "line\n"

    asyncio.run(main())
    assert [attempt for _, attempt, _, _ in told.retries] == [1, 2]


def test_retry_after_is_honoured(emulator: SpritesEmulator) -> None:
    told = Told()

    async def main() -> None:
        async with transport_to(emulator, told) as transport:
            emulator.fail("exec", "status", status=429, headers={"Retry-After": "1"})
            await transport.run(["true"], cwd=None)

    asyncio.run(main())
    assert told.retries == [("exec", 1, "HTTP 429", 1.0)]


@pytest.mark.parametrize("kind", ["close", "abort"])
def test_a_cut_read_is_repeated_and_a_cut_append_is_not(
    emulator: SpritesEmulator, kind: Any
) -> None:
    told = Told()

    async def main() -> None:
        async with transport_to(emulator, told) as transport:
            kaos = PosixKaos(transport, name="sprites", home=HOME, cwd=HOME)
            await kaos.writetext("a.txt", "text")
            emulator.fail("exec", kind)
            assert await kaos.readtext("a.txt") == "text"
            assert len(told.retries) == 1
            emulator.fail("exec", kind)
            with pytest.raises(ConnectionError):
                await kaos.writetext("a.txt", "more", mode="a")
            assert len(told.retries) == 1

    asyncio.run(main())
    assert told.lost == []


def test_a_cut_process_says_so(emulator: SpritesEmulator) -> None:
    async def main() -> None:
        async with transport_to(emulator) as transport:
            emulator.fail("exec", "close", after=100)
            process = await transport.start(["sh", "-c", "seq 100; sleep 66"], cwd="/")
            assert (await process.stdout.read()).startswith(b"1\n2\n")
            with pytest.raises(ConnectionError, match="cut"):
                await process.wait()
            await transport.run(["pkill", "sleep"], cwd=None)

    asyncio.run(main())


def test_a_lost_sprite_is_told_once(emulator: SpritesEmulator) -> None:
    told = Told()

    async def main() -> None:
        async with transport_to(emulator, told) as transport:
            process = await transport.start(["sleep", "67"], cwd="/")
            emulator.lose(NAME)
            with pytest.raises(ConnectionError):
                await process.wait()
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    await transport.run(["true"], cwd=None)

    asyncio.run(main())
    assert [str(error) for error in told.lost] == [
        f"the sprite {NAME} is lost: it does not exist any more"
    ]


def test_a_sprite_that_fell_asleep_wakes_for_the_next_command(emulator: SpritesEmulator) -> None:
    async def main() -> bytes:
        async with transport_to(emulator) as transport:
            await transport.run(["sh", "-c", "echo kept >file"], cwd=HOME)
            emulator.sleep(NAME)
            return (await transport.run(["cat", "file"], cwd=HOME)).stdout

    assert asyncio.run(main()) == b"kept\n"


def test_only_operations_that_bear_it_are_repeated() -> None:
    from kaos_runner.kaos.sprites import REPEATABLE

    assert not scripts.APPEND.endswith(REPEATABLE)
    assert not scripts.MKDIR.endswith(REPEATABLE)
