"""Cases about processes."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING

import pytest

from kaos_runner.testing.case import (
    KaosSuite,
    cancelled_at_every_await,
    case,
    ended,
    sh,
    within,
)

if TYPE_CHECKING:
    from kaos import Kaos, KaosProcess

EVERY_BYTE = bytes(range(256))
MEGABYTES_20 = EVERY_BYTE * 4 * 1024 * 20


async def start(k: Kaos, script: str, *arguments: str) -> KaosProcess:
    """Start a shell script."""
    return await k.exec("/bin/sh", "-c", script, "sh", *arguments)


class Processes(KaosSuite):
    """exec, its results and its environment."""

    @case
    async def test_output_and_exit_code(self, k: Kaos) -> None:
        done = await ended(await start(k, "echo out; echo err >&2; exit 3"))
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")

    @pytest.mark.parametrize("code", [0, 1, 2, 42, 127, 128, 255])
    @case
    async def test_exit_codes(self, k: Kaos, code: int) -> None:
        assert (await ended(await start(k, f"exit {code}"))).exit_code == code

    @pytest.mark.parametrize(("signal", "number"), [("KILL", 9), ("TERM", 15), ("SEGV", 11)])
    @case
    async def test_signals(self, k: Kaos, signal: str, number: int) -> None:
        done = await ended(await start(k, f"kill -{signal} $$"))
        assert done.exit_code in (-number, 128 + number)

    @case
    async def test_arguments_arrive_as_they_are(self, k: Kaos) -> None:
        arguments = [
            "",
            " ",
            "a b",
            "'\"",
            "$HOME",
            "a\nb",
            "*",
            "é🙂",
            "\\n",
            "-n",
            "\udcff",
            "a\n",
        ]
        script = 'for a; do printf "%s\\0" "$a"; done'
        output = await sh(k, script, *arguments)
        assert output == b"".join(a.encode("utf-8", "surrogateescape") + b"\0" for a in arguments)

    @case
    async def test_a_long_argument(self, k: Kaos) -> None:
        assert await sh(k, 'printf %s "${#1}"', "x" * 100_000) == b"100000"

    @case
    async def test_programs_are_found_by_path(self, k: Kaos) -> None:
        assert (await ended(await k.exec("echo", "hello"))).stdout == b"hello\n"

    @case
    async def test_a_program_that_is_missing(self, k: Kaos) -> None:
        try:
            done = await ended(await k.exec("no-such-program-here"))
        except FileNotFoundError:
            return
        assert done.exit_code == 127
        assert done.stderr

    @case
    async def test_a_program_that_cannot_be_executed(self, k: Kaos) -> None:
        await k.writebytes("f", b"#!/bin/sh\n")
        try:
            done = await ended(await k.exec(str(k.getcwd() / "f")))
        except PermissionError:
            return
        assert done.exit_code == 126
        assert done.stderr

    @case
    async def test_no_arguments(self, k: Kaos) -> None:
        with pytest.raises(ValueError, match="argument"):
            await k.exec()

    @case
    async def test_the_working_directory_is_the_kaos_own(self, k: Kaos) -> None:
        await k.mkdir("d")
        await k.writebytes("d/f", b"x")
        await k.chdir("d")
        assert await sh(k, "cat f; pwd") == b"x" + str(k.getcwd()).encode() + b"\n"

    @case
    async def test_the_environment_has_the_basics(self, k: Kaos) -> None:
        output = await sh(k, 'printf "%s\n" "$HOME" "$PATH" "$LANG" "$TERM"')
        home, *others = output.decode().splitlines()
        assert home == str(k.gethome())
        assert len(others) == 3
        assert all(others)

    @case
    async def test_the_hosts_environment_stays_out(
        self, k: Kaos, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import os

        monkeypatch.setenv("KAOS_CANARY", "host")
        process = await k.exec("/usr/bin/env", env=dict(os.environ))
        assert b"KAOS_CANARY" not in (await ended(process)).stdout
        assert b"KAOS_CANARY" not in await sh(k, "env")

    @case
    async def test_state_of_a_process(self, k: Kaos) -> None:
        process = await start(k, "read line; exit 4")
        assert isinstance(process.pid, int)
        assert process.returncode is None
        process.stdin.write(b"\n")
        codes = await within(asyncio.gather(process.wait(), process.wait()))
        assert list(codes) == [4, 4]
        assert process.returncode == 4
        assert await within(process.wait()) == 4

    @case
    async def test_fifty_concurrent_processes(self, k: Kaos) -> None:
        async def one(number: int) -> None:
            script = f"read word; echo {number} $word; exit {number}"
            done = await ended(await start(k, script), f"w{number}\n".encode())
            assert (done.exit_code, done.stdout) == (number, f"{number} w{number}\n".encode())

        await within(asyncio.gather(*(one(n) for n in range(50))), 100)


class Streams(KaosSuite):
    """The three streams of a process."""

    @case
    async def test_binary_input_and_output(self, k: Kaos) -> None:
        done = await ended(await k.exec("cat"), EVERY_BYTE)
        assert done.stdout == EVERY_BYTE

    @case
    async def test_binary_errors(self, k: Kaos) -> None:
        assert (await ended(await start(k, "cat >&2"), EVERY_BYTE)).stderr == EVERY_BYTE

    @case
    async def test_twenty_megabytes_through_both_pipes_at_once(self, k: Kaos) -> None:
        process = await k.exec("cat")

        async def feed() -> None:
            for at in range(0, len(MEGABYTES_20), 1 << 20):
                process.stdin.write(MEGABYTES_20[at : at + (1 << 20)])
                await process.stdin.drain()
            process.stdin.close()

        _, stdout = await within(asyncio.gather(feed(), process.stdout.read()), 100)
        assert stdout == MEGABYTES_20
        assert await within(process.wait()) == 0

    @case
    async def test_end_of_input_is_real(self, k: Kaos) -> None:
        done = await within(ended(await k.exec("wc", "-c"), b"12345"))
        assert done.stdout.strip() == b"5"
        process = await k.exec("cat")
        assert process.stdin.can_write_eof()
        process.stdin.write_eof()
        assert await within(process.stdout.read()) == b""
        assert await within(process.wait()) == 0

    @case
    async def test_a_process_that_never_reads(self, k: Kaos) -> None:
        process = await start(k, "exit 0")
        assert await within(process.wait()) == 0
        process.stdin.close()
        assert process.stdin.is_closing()

    @case
    async def test_output_arrives_while_the_process_runs(self, k: Kaos) -> None:
        process = await start(k, "echo first; read line; echo second")
        assert await within(process.stdout.readline()) == b"first\n"
        assert process.returncode is None
        process.stdin.write(b"\n")
        assert await within(process.stdout.readline()) == b"second\n"
        assert await within(process.stdout.readline()) == b""
        assert process.stdout.at_eof()

    @case
    async def test_an_interactive_process(self, k: Kaos) -> None:
        process = await start(k, 'while read line; do echo "<$line>"; done')
        for word in (b"one", b"two", b"three"):
            process.stdin.write(word + b"\n")
            await process.stdin.drain()
            assert await within(process.stdout.readline()) == b"<" + word + b">\n"
        process.stdin.close()
        await within(process.stdin.wait_closed())
        assert await within(process.wait()) == 0

    @case
    async def test_long_lines(self, k: Kaos) -> None:
        process = await start(k, "head -c 1000000 /dev/zero; echo; echo end")
        assert await within(process.stdout.readline()) == bytes(1_000_000) + b"\n"
        assert await within(process.stdout.readline()) == b"end\n"

    @case
    async def test_ways_to_read(self, k: Kaos) -> None:
        process = await start(k, "printf 'abcdefgh;ij\nkl\nend'")
        out = process.stdout
        assert await within(out.readexactly(3)) == b"abc"
        assert await within(out.readuntil(b";")) == b"defgh;"
        assert await within(out.read(1)) == b"i"
        assert [line async for line in out] == [b"j\n", b"kl\n", b"end"]
        assert await within(out.read()) == b""

    @case
    async def test_reads_that_cannot_be_met(self, k: Kaos) -> None:
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await within((await start(k, "printf abc")).stdout.readexactly(10))
        assert caught.value.partial == b"abc"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await within((await start(k, "printf abc")).stdout.readuntil(b";"))
        assert caught.value.partial == b"abc"

    @case
    async def test_output_that_nobody_reads(self, k: Kaos) -> None:
        process = await start(k, "head -c 30000000 /dev/zero; echo >done")
        await asyncio.sleep(0.2)
        await within(process.kill())
        assert await within(process.wait()) in (-9, 137)

    @case
    async def test_streams_without_line_ends(self, k: Kaos) -> None:
        process = await start(k, "printf a; read x; printf b")
        assert await within(process.stdout.read(100)) == b"a"
        process.stdin.write(b"\n")
        assert await within(process.stdout.read(100)) == b"b"

    @case
    async def test_one_read_cancelled_another_goes_on(self, k: Kaos) -> None:
        process = await start(k, "read x; echo $x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.stdout.readline(), 0.05)
        process.stdin.write(b"word\n")
        assert await within(process.stdout.readline()) == b"word\n"


class Ends(KaosSuite):
    """Kill and cancellation."""

    @case
    async def test_kill(self, k: Kaos) -> None:
        process = await k.exec("sleep", "100")
        await within(process.kill())
        assert await within(process.wait()) in (-9, 137)
        assert await within(process.stdout.read()) == b""

    @case
    async def test_kill_of_what_ignores_signals(self, k: Kaos) -> None:
        process = await start(k, "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done")
        await within(process.stdout.readline())
        await within(process.kill())
        assert await within(process.wait()) in (-9, 137)

    @case
    async def test_kill_after_the_end(self, k: Kaos) -> None:
        process = await start(k, "exit 5")
        assert await within(process.wait()) == 5
        with contextlib.suppress(ProcessLookupError):
            await within(process.kill())
        assert process.returncode == 5

    @case
    async def test_kill_reaches_grandchildren(self, k: Kaos) -> None:
        process = await start(k, "sh -c 'sleep 300 & echo $! >pid; echo ready; wait' & wait")
        await within(process.stdout.readline())
        await within(process.kill())
        await within(process.wait())
        await _gone(k, "pid")

    @case
    async def test_kill_reaches_other_sessions(self, k: Kaos) -> None:
        script = "setsid sh -c 'echo $$ >pid; echo ready; sleep 300; :' & wait"
        process = await start(k, script)
        await within(process.stdout.readline())
        await within(process.kill())
        await _gone(k, "pid")

    @case
    async def test_wait_does_not_wait_for_background_children(self, k: Kaos) -> None:
        process = await start(k, "sleep 300 & echo $! >pid; exit 6")
        assert await within(process.wait()) == 6
        with contextlib.suppress(ProcessLookupError):
            await within(process.kill())
        await _gone(k, "pid")

    @case
    async def test_cancelled_file_operations_leave_nothing_behind(self, k: Kaos) -> None:
        await k.writebytes("f", b"content")
        pauses = (0.001, 0.002, 0.004, 0.008)
        for operation in (
            lambda: k.stat("f"),
            lambda: k.readbytes("f"),
            lambda: k.writebytes("g", b"x" * 100_000),
            lambda: k.writetext("h", "x", mode="a"),
            lambda: k.mkdir("d", exist_ok=True),
            lambda: _all(k),
        ):
            await cancelled_at_every_await(operation, pauses)
        assert await k.readbytes("f") == b"content"
        assert (await sh(k, "cat f")) == b"content"

    @case
    async def test_cancelled_exec_leaves_nothing_behind(self, k: Kaos) -> None:
        mark = f"7531.{uuid.uuid4().int}"

        async def run() -> None:
            process = await k.exec("sleep", mark)
            try:
                await process.wait()
            finally:
                await asyncio.shield(process.kill())

        await cancelled_at_every_await(run, (0.005, 0.02, 0.05))
        script = (
            'for p in /proc/[0-9]*; do echo "$p"; tr "\\0" "\\n" <$p/cmdline; done 2>/dev/null; :'
        )
        for _ in range(100):
            running = mark.encode() in await sh(k, script)
            if not running:
                break
            await asyncio.sleep(0.1)
        assert not running

    @case
    async def test_cancelled_wait_and_reads_leave_the_process_alone(self, k: Kaos) -> None:
        process = await start(k, "read x; echo $x; exit 8")
        for waiting in (process.wait, process.stdout.readline, process.stderr.read):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting(), 0.03)
        assert process.returncode is None
        process.stdin.write(b"on\n")
        assert await within(process.stdout.readline()) == b"on\n"
        assert await within(process.wait()) == 8


async def _all(k: Kaos) -> list[str]:
    return [str(p) async for p in k.glob(".", "**/*")]


async def _gone(k: Kaos, file: str) -> None:
    """The process whose id stands in the file has ended, or ends within seconds."""
    script = 'read p <"$1"; ! kill -0 "$p" 2>/dev/null || grep -q "^State:.Z" "/proc/$p/status"'
    for _ in range(50):
        if (await ended(await start(k, script, file))).exit_code == 0:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"process {(await k.readtext(file)).strip()} still runs")
