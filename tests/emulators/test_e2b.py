"""The emulator of E2B through the real SDK: what is known of the real service holds for it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.debian import need
from tests.emulators.e2b import API_KEY, Emulator, running
from tests.emulators.e2b_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from e2b import AsyncSandbox


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server whose variables the SDK finds; afterwards nothing of it is left."""
    need(missing_packages())
    with running(limit=3) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server
        boxes = [s.box for s in server.fleet.sandboxes.values()]
    assert not server.fleet.sandboxes
    assert not any(box.directory.exists() for box in boxes)


def in_sandbox(test: Callable[[AsyncSandbox], Awaitable[None]], **create: Any) -> None:
    """Run a test in a new sandbox."""

    async def run() -> None:
        from e2b import AsyncSandbox

        await test(await AsyncSandbox.create(**create))

    asyncio.run(run())


# -- processes


def test_commands_run_as_the_user_with_the_templates_variables(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        done = await sandbox.commands.run("id -u; echo $HOME $E2B_SANDBOX $GIVEN; echo é >&2")
        assert done.stdout == "1000\n/home/user true there\n"
        assert done.stderr == "é\n"

    in_sandbox(check, envs={"GIVEN": "there"})
    assert emulator.counts["Process/Start"] == 1


@pytest.mark.usefixtures("emulator")
def test_a_signal_ends_a_process_as_go_tells_it() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import CommandExitException

        with pytest.raises(CommandExitException) as caught:
            await sandbox.commands.run("kill -9 $$")
        assert (caught.value.exit_code, caught.value.error) == (-1, "signal: killed")
        with pytest.raises(CommandExitException) as caught:
            await sandbox.commands.run("exit 7")
        assert (caught.value.exit_code, caught.value.error) == (7, "exit status 7")

    in_sandbox(check)


@pytest.mark.usefixtures("emulator")
def test_closing_stdin_is_an_end_of_file() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        handle = await sandbox.commands.run("wc -c", background=True, stdin=True)
        async with sandbox.commands.stream_input(handle.pid) as given:
            for _ in range(100):
                await given.send(b"\x00\xff")
        await handle.close_stdin()
        assert (await handle.wait()).stdout.strip() == "200"
        assert (await sandbox.commands.run("cat", stdin=False)).stdout == ""

    in_sandbox(check)


@pytest.mark.usefixtures("emulator")
def test_a_background_child_that_holds_stdout_keeps_the_stream_open() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        done = await sandbox.commands.run("(sleep 0.3; echo late) & echo early")
        assert done.stdout == "early\nlate\n"

    in_sandbox(check)


@pytest.mark.usefixtures("emulator")
def test_a_deadline_kills_only_the_leader() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import TimeoutException

        with pytest.raises(TimeoutException):
            await sandbox.commands.run("sleep 61 & sleep 62", timeout=0.3)
        for _ in range(50):
            left = (await sandbox.commands.run("ps -eo args | grep '^sleep'")).stdout
            if "sleep 62\n" not in left:
                break
        assert "sleep 61\n" in left

    in_sandbox(check)


@pytest.mark.usefixtures("emulator")
def test_a_process_outlives_its_stream_and_can_be_taken_up_after_its_end() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import CommandExitException

        handle = await sandbox.commands.run("sleep 0.3; exit 5", background=True)
        await handle.disconnect()
        assert [p.pid for p in await sandbox.commands.list()] == [handle.pid]
        for _ in range(2):  # before its end, and after
            again = await sandbox.commands.connect(handle.pid)
            with pytest.raises(CommandExitException) as caught:
                await again.wait()
            assert caught.value.exit_code == 5
        assert await sandbox.commands.list() == []
        assert not await sandbox.commands.kill(handle.pid)

    in_sandbox(check)


@pytest.mark.usefixtures("emulator")
def test_a_missing_directory_is_an_invalid_argument() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import InvalidArgumentException, TimeoutException

        with pytest.raises(InvalidArgumentException, match="/nowhere"):
            await sandbox.commands.run("true", cwd="/nowhere")
        with pytest.raises(InvalidArgumentException, match="too long"):
            await sandbox.commands.run("true " + "x" * 131072)
        with pytest.raises(TimeoutException):
            await sandbox.commands.run("sleep 9", timeout=0.2)

    in_sandbox(check)


# -- files


@pytest.mark.usefixtures("emulator")
def test_files_come_and_go() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import FileNotFoundException, InvalidArgumentException

        files, content = sandbox.files, bytes(range(256)) * 999
        await files.write("a/b/c", content)
        assert bytes(await files.read("a/b/c", format="bytes")) == content
        await files.write("a/b/c", content, use_octet_stream=True)
        assert bytes(await files.read("~/a/b/c", format="bytes")) == content
        await files.write("a/b/c", "zipped", gzip=True)
        assert await files.read("/home/user/a/b/c") == "zipped"
        written = await files.write_files([{"path": "x", "data": "1"}, {"path": "y", "data": "2"}])
        assert [w.path for w in written] == ["/home/user/x", "/home/user/y"]
        with pytest.raises(FileNotFoundException):
            await files.read("none")
        with pytest.raises(InvalidArgumentException):
            await files.read("a")
        await files.remove("none")
        await files.remove("a")
        assert not await files.exists("a")

    in_sandbox(check)


@pytest.mark.usefixtures("emulator")
def test_entries_are_told_as_envd_tells_them() -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import FileNotFoundException, FileType, SandboxException

        await sandbox.commands.run(
            "mkdir d; echo hi > d/f; chmod 640 d/f; ln -s f d/l; ln -s no d/b"
        )
        await sandbox.commands.run("mkfifo d/p")
        found = {e.name: e for e in await sandbox.files.list(".", depth=2)}
        assert set(found) == {"d", "f", "l"}  # neither the broken link nor the fifo
        link = found["l"]
        assert (link.type, link.mode, link.size) == (FileType.SYMLINK, 0o640, 1)
        assert link.symlink_target == "/home/user/d/f"
        assert (found["f"].size, found["f"].owner) == (3, "user")
        assert not await sandbox.files.make_dir("d")
        assert await sandbox.files.make_dir("e/f/g")
        assert (await sandbox.files.rename("e/f", "m/n")).path == "/home/user/m/n"
        with pytest.raises(FileNotFoundException):
            await sandbox.files.get_info("none")
        with pytest.raises(SandboxException, match="ot a directory"):
            await sandbox.files.get_info("d/f/x")

    in_sandbox(check)


@pytest.mark.usefixtures("emulator")
def test_each_sandbox_has_a_root_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("host")

    async def check(one: AsyncSandbox) -> None:
        from e2b import AsyncSandbox

        two = await AsyncSandbox.create(allow_internet_access=False)
        await one.files.write("/home/user/mine", "1")
        await one.files.write("/tmp/mine", "1")
        assert not await two.files.exists("/home/user/mine")
        assert not await two.files.exists("/tmp/mine")
        assert not await one.files.exists(str(tmp_path / "host"))
        assert (await two.commands.run("ls /sys/class/net /proc/net/dev | wc -l")).exit_code == 0
        shown = (await two.commands.run("tail -n +3 /proc/net/dev | cut -d: -f1")).stdout.split()
        assert shown == ["lo"]

    in_sandbox(check)


# -- the control plane


@pytest.mark.usefixtures("emulator")
def test_lists_are_paged_and_filtered() -> None:
    labels = {"a b/ü": "c&d=é%20+"}

    async def check(one: AsyncSandbox) -> None:
        from e2b import AsyncSandbox, SandboxQuery, SandboxState

        others = [await AsyncSandbox.create(metadata=labels) for _ in range(2)]
        await others[0].pause()
        paged, pages = AsyncSandbox.list(limit=2), []
        while paged.has_next:
            pages.append([s.sandbox_id for s in await paged.next_items()])
        assert pages == [[others[1].sandbox_id, others[0].sandbox_id], [one.sandbox_id]]
        query = SandboxQuery(metadata=labels, state=[SandboxState.PAUSED])
        found = await AsyncSandbox.list(query=query).next_items()
        assert [s.sandbox_id for s in found] == [others[0].sandbox_id]
        assert found[0].metadata == labels

    in_sandbox(check)


def test_time_runs_out(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import SandboxNotFoundException, SandboxNotRunningException

        await sandbox.set_timeout(1)
        with pytest.raises(SandboxNotRunningException):
            await sandbox.commands.run("sleep 30", timeout=0)
        with pytest.raises(SandboxNotRunningException):
            await sandbox.files.read("x")
        with pytest.raises(SandboxNotFoundException):
            await sandbox.get_info()
        assert not await sandbox.is_running()
        assert not await sandbox.kill()
        assert emulator.fleet.ended == {sandbox.sandbox_id: "expired"}

    in_sandbox(check)


def test_a_pause_keeps_processes_and_resuming_never_shortens(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import SandboxNotRunningException

        handle = await sandbox.commands.run("sleep 40", background=True)
        await sandbox.pause()
        assert not await sandbox.pause()
        with pytest.raises(SandboxNotRunningException):
            await handle.wait()
        with pytest.raises(SandboxNotRunningException):
            await sandbox.commands.run("true")
        await sandbox.connect(timeout=500)
        assert [p.pid for p in await sandbox.commands.list()] == [handle.pid]
        await sandbox.connect(timeout=5)
        left = emulator.fleet.sandboxes[sandbox.sandbox_id].end_at - datetime.now(UTC)
        assert left.total_seconds() > 400

    in_sandbox(check)


def test_a_sandbox_may_be_paused_when_its_time_is_up(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        await sandbox.set_timeout(0)
        while emulator.fleet.sandboxes[sandbox.sandbox_id].state == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # it ends in another thread
        assert (await sandbox.get_info()).lifecycle == {"on_timeout": "pause", "auto_resume": False}

    in_sandbox(check, lifecycle={"on_timeout": "pause"})


def test_an_idempotency_key_makes_one_sandbox(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import AsyncSandbox

        again = await AsyncSandbox.create(idempotency_key="k-1")
        other = await AsyncSandbox.create(idempotency_key="k-2")
        assert again.sandbox_id == sandbox.sandbox_id != other.sandbox_id
        assert len(emulator.fleet.created) == 2

    in_sandbox(check, idempotency_key="k-1")


@pytest.mark.usefixtures("emulator")
def test_limits_and_unknown_templates_are_refused() -> None:
    async def check(_: AsyncSandbox) -> None:
        from e2b import AsyncSandbox, RateLimitException, SandboxException

        for _number in range(2):
            await AsyncSandbox.create()
        with pytest.raises(RateLimitException, match="maximum number of concurrent"):
            await AsyncSandbox.create(retries=0)
        with pytest.raises(SandboxException, match="template 'none' not found"):
            await AsyncSandbox.create("none")

    in_sandbox(check)


# -- keys


def test_every_call_needs_its_key(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        calls = [
            ("POST", "/v2/sandboxes"),
            ("GET", "/v2/sandboxes"),
            *[(m, f"/sandboxes/{sandbox.sandbox_id}") for m in ("GET", "DELETE")],
            ("POST", f"/v2/sandboxes/{sandbox.sandbox_id}/connect"),
            ("POST", f"/sandboxes/{sandbox.sandbox_id}/timeout"),
            ("POST", f"/sandboxes/{sandbox.sandbox_id}/pause"),
            ("GET", f"/sandboxes/{sandbox.sandbox_id}/metrics"),
            ("PUT", f"/sandboxes/{sandbox.sandbox_id}/network"),
        ]
        async with httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client:
            for method, path in calls:
                answer = await client.request(method, path, headers={"X-API-KEY": "e2b_wrong"})
                assert answer.status_code == 401, path
            headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
            for path in ("/files", "/process.Process/Start", "/filesystem.Filesystem/Stat"):
                wrong = {**headers, "X-Access-Token": "wrong"}
                assert (await client.post(path, headers=wrong)).status_code == 401, path
                gone = {**headers, "E2b-Sandbox-Id": "none"}
                assert (await client.post(path, headers=gone)).status_code == 502, path

    in_sandbox(check)


# -- faults


def test_it_fails_as_it_is_told(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        emulator.fail("files.read", status=507, message="full")
        answers = [await _status(emulator, sandbox) for _ in range(2)]
        assert answers == [507, 404]
        for how in ("reset", "lose"):
            emulator.fail("files.read", how=how)
            with pytest.raises(httpx.TransportError):
                await _status(emulator, sandbox)
        emulator.fail("Process/Start", how="cut")
        with pytest.raises(Exception, match=r"onnection reset|reading a body"):
            await sandbox.commands.run("echo out; sleep 9")

    in_sandbox(check)
    assert emulator.counts["files.read"] == 4


def test_what_is_lost_was_done_and_what_is_reset_was_not(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        for how, there in (("lose", True), ("reset", False)):
            emulator.fail("files.write", how=how)
            with pytest.raises(Exception, match="onnection"):
                await sandbox.files.write(how, "x")
            assert await sandbox.files.exists(how) is there

    in_sandbox(check)


def test_the_sdk_gets_over_a_rate_limit(emulator: Emulator) -> None:
    emulator.rate_limit("create", 2)

    async def check(_: AsyncSandbox) -> None:
        assert emulator.counts["create"] == 3

    in_sandbox(check)


def test_it_can_be_slow(emulator: Emulator) -> None:
    async def check(sandbox: AsyncSandbox) -> None:
        from e2b import TimeoutException

        emulator.latency = 5
        with pytest.raises(TimeoutException):
            await sandbox.files.list(".", request_timeout=0.1)
        emulator.latency = 0

    in_sandbox(check)


async def _status(emulator: Emulator, sandbox: AsyncSandbox) -> int:
    headers = {
        "E2b-Sandbox-Id": sandbox.sandbox_id,
        "E2b-Sandbox-Port": "49983",
        "X-Access-Token": emulator.fleet.sandboxes[sandbox.sandbox_id].token,
    }
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False) as client:
        return (await client.get("/files?path=none", headers=headers)).status_code


# -- the command


def test_it_is_a_command() -> None:
    need(missing_packages())
    root = Path(__file__).parents[2]
    words = [sys.executable, "-m", "tests.emulators.e2b", "--port", "0", "--rate-limit", "list:1"]
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        variables = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        assert variables["E2B_API_KEY"] == API_KEY
        headers = {"X-API-KEY": API_KEY}
        with httpx.Client(base_url=variables["E2B_API_URL"], trust_env=False) as client:
            answers = [client.get("/v2/sandboxes", headers=headers).status_code for _ in range(2)]
        assert answers == [429, 200]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
