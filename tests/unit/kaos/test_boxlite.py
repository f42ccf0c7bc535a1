"""The relay's stream of text, and a transport whose server goes away."""

from __future__ import annotations

import asyncio
import base64
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_runner.kaos.boxlite import BoxliteTransport
from kaos_runner.kaos.boxlite_relay import Decoder
from tests.debian import need
from tests.emulators.boxlite import Emulator, Fault
from tests.emulators.boxlite_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kaos_runner.errors import SandboxLostError
    from tests.emulators.boxlite_box import Box

FLOOD = 20_000_000


@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=5),
    st.lists(st.tuples(st.integers(0, 2000), st.sampled_from(["<x3>", "<p12>", "<i>"]))),
    st.lists(st.integers(0, 3000)),
)
def test_marks_anywhere_and_frames_cut_anywhere(
    chunks: list[bytes], marks: list[tuple[int, str]], cuts: list[int]
) -> None:
    text = "".join(f"{base64.encodebytes(chunk).decode()};" for chunk in chunks)
    length = len(text)
    for place, mark in sorted(marks, reverse=True):
        at = min(place, length)
        text = text[:at] + mark + text[at:]
    text += "<z>"
    found: list[str] = []
    decoder = Decoder(lambda name, _: found.append(name))
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    frames = [text[a:b] for a, b in itertools.pairwise(places)]
    assert b"".join(decoder.feed(frame) for frame in frames) == b"".join(chunks)
    assert sorted(found) == sorted([mark[1] for _, mark in marks] + ["z"])


@pytest.mark.parametrize("text", ["éééé", "????", "AA=A;", "AAA;"])
def test_what_is_no_relay_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Decoder(lambda *_: None).feed(text)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    need(missing_packages("gnu"))
    with Emulator() as emulator:
        yield emulator


@asynccontextmanager
async def transport_to(
    emulator: Emulator, lost: list[SandboxLostError]
) -> AsyncIterator[BoxliteTransport]:
    """A transport to a new box, which is asked for after a fifth of a second of silence."""
    import boxlite  # type: ignore[import-untyped]

    runtime: Any = boxlite.Boxlite.rest(boxlite.BoxliteRestOptions(url=emulator.url))
    box = await runtime.create(boxlite.BoxOptions(image="alpine"))
    await box.start()

    async def alive() -> bool:
        return await runtime.get_info(box.id) is not None

    transport = BoxliteTransport(
        box, env={"LANG": "C"}, alive=alive, on_lost=lost.append, quiet_seconds=0.2
    )
    yield transport
    await asyncio.wait_for(transport.aclose(), 20)


async def _still(box: Box) -> int:
    """How much has left a box, once that does not change any more."""
    while True:
        before = box.metrics.get("bytes_received_total", 0)
        await asyncio.sleep(0.5)
        if before and before == box.metrics["bytes_received_total"]:
            return before


def test_a_sender_waits_for_its_reader(emulator: Emulator) -> None:
    async def run() -> None:
        async with transport_to(emulator, []) as transport:
            (box,) = emulator.boxes.values()
            process = await transport.start(["head", "-c", str(FLOOD), "/dev/zero"], cwd="/")
            sent = await _still(box)
            assert 4_000_000 < sent < FLOOD
            assert len(await asyncio.wait_for(process.stdout.read(), 60)) == FLOOD
            assert await process.wait() == 0

    asyncio.run(run())


def test_a_sender_that_waits_is_killed(emulator: Emulator) -> None:
    async def run() -> None:
        async with transport_to(emulator, []) as transport:
            process = await transport.start(["yes"], cwd="/")
            await asyncio.sleep(1)
            await asyncio.wait_for(process.kill(), 20)
            assert await asyncio.wait_for(process.wait(), 20) == -9
            await asyncio.wait_for(asyncio.shield(process.ended), 20)

    asyncio.run(run())


def test_input_that_nobody_reads_blocks_no_output(emulator: Emulator) -> None:
    async def run() -> None:
        async with transport_to(emulator, []) as transport:
            process = await transport.start(["sh", "-c", "seq 400000; sleep 0.2; wc -c"], cwd="/")
            process.stdin.write(bytes(20_000_000))
            process.stdin.close()
            output = await asyncio.wait_for(process.stdout.read(), 60)
            assert output.splitlines()[-2:] == [b"400000", b"20000000"]

    asyncio.run(run())


def test_a_server_that_dies(emulator: Emulator) -> None:
    lost: list[SandboxLostError] = []

    async def run() -> None:
        async with transport_to(emulator, lost) as transport:
            process = await transport.start(["sleep", "100"], cwd="/")
            running = asyncio.ensure_future(transport.run(["sleep", "100"], cwd="/"))
            await asyncio.sleep(0.5)
            emulator.run(emulator.die)
            for waiting in (process.wait(), running, transport.run(["true"], cwd="/")):
                with pytest.raises(ConnectionError, match="is gone"):
                    await asyncio.wait_for(waiting, 20)
            with pytest.raises(ConnectionError, match="is gone"):
                await process.stdout.read()

    asyncio.run(run())
    assert len(lost) == 1


def test_a_box_that_is_removed(emulator: Emulator) -> None:
    lost: list[SandboxLostError] = []

    async def run() -> None:
        async with transport_to(emulator, lost) as transport:
            (box,) = emulator.boxes
            emulator.run(lambda: emulator.lose(box))
            with pytest.raises(ConnectionError, match="is gone"):
                await asyncio.wait_for(transport.run(["true"], cwd="/"), 20)

    asyncio.run(run())
    assert [error.hint for error in lost] == ["run the recipe again"]


def test_a_refused_command_is_no_lost_box(emulator: Emulator) -> None:
    lost: list[SandboxLostError] = []

    async def run() -> None:
        async with transport_to(emulator, lost) as transport:
            emulator.faults.append(Fault("POST .*/exec", message="not today"))
            with pytest.raises(ConnectionError, match="not today"):
                await transport.run(["true"], cwd="/")
            assert (await transport.run(["echo", "again"], cwd="/")).stdout == b"again\n"

    asyncio.run(run())
    assert lost == []


def test_a_directory_that_is_missing(emulator: Emulator) -> None:
    async def run() -> None:
        async with transport_to(emulator, []) as transport:
            with pytest.raises(FileNotFoundError, match="/nowhere"):
                await transport.start(["true"], cwd="/nowhere")
            assert (await transport.run(["true"], cwd="/nowhere")).exit_code == 127

    asyncio.run(run())
