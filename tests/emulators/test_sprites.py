"""The emulated Sprites service, as the real SDK sees it."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sprites import SpritesClient
from sprites.async_client import AsyncSpritesClient
from sprites.exceptions import (
    APIError,
    AuthenticationError,
    DirectoryNotEmptyError,
    FileNotFoundError_,
    IsADirectoryError_,
    NetworkError,
    NotFoundError,
    SpriteError,
)
from sprites.session import kill_session
from sprites.types import NetworkPolicy, PolicyRule

from tests.debian import need
from tests.emulators.sprites import SpritesEmulator
from tests.emulators.sprites_machine import missing_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sprites.sprite import Sprite

ROOT = Path(__file__).parents[2]


@pytest.fixture
def emulator() -> Iterator[SpritesEmulator]:
    need(missing_packages())
    with SpritesEmulator(run_on=0.3) as service:
        yield service
        assert service.settled() == []


@pytest.fixture
def client(emulator: SpritesEmulator) -> Iterator[SpritesClient]:
    with SpritesClient(emulator.token, emulator.url) as client:
        yield client


@pytest.fixture
def sprite(client: SpritesClient) -> Sprite:
    return client.create_sprite("one", labels=["a=b"])


def test_a_sprite_from_its_creation_to_its_end(client: SpritesClient, sprite: Sprite) -> None:
    assert (sprite.name, sprite.status, sprite.labels) == ("one", "cold", ["a=b"])
    assert client.get_sprite("one").id == sprite.id
    assert client.update_sprite("one", labels=["c"]).labels == ["c"]
    with pytest.raises(SpriteError, match="409"):
        client.create_sprite("one")
    with pytest.raises(SpriteError, match="400"):
        client.create_sprite("n" * 60)
    sprite.destroy()
    with pytest.raises(NotFoundError):
        client.get_sprite("one")


def test_lists_come_in_pages(client: SpritesClient, emulator: SpritesEmulator) -> None:
    emulator.behaviour.page_size = 2
    for name in ("a-1", "a-2", "a-3", "b-1"):
        client.create_sprite(name)
    assert [s.name for s in client.list_all_sprites()] == ["a-1", "a-2", "a-3", "b-1"]
    assert [s.name for s in client.list_all_sprites("a-")] == ["a-1", "a-2", "a-3"]
    assert emulator.counts()["list"] == 4


def test_a_wrong_token_is_refused(emulator: SpritesEmulator) -> None:
    with SpritesClient("wrong", emulator.url) as client, pytest.raises(AuthenticationError):
        client.list_sprites()


def test_output_exit_code_and_environment(sprite: Sprite) -> None:
    done = sprite.run(
        "sh", "-c", "pwd; id -un; echo $LANG >&2; exit 3", capture_output=True, cwd="/tmp"
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"/tmp\nsprite\n", b"C.UTF-8\n", 3)
    done = sprite.run("/usr/bin/env", capture_output=True, env={"ONLY": "this"})
    assert done.stdout == b"ONLY=this\n"  # it replaces the default environment


def test_input_has_an_end(sprite: Sprite) -> None:
    command = sprite.command("cat")
    command.stdin = io.BytesIO(b"\0binary\xff" * 10_000)
    assert command.output() == b"\0binary\xff" * 10_000


def test_a_terminal(sprite: Sprite) -> None:
    done = sprite.run(
        "sh", "-c", "stty size; exit 4", capture_output=True, tty=True, tty_rows=7, tty_cols=70
    )
    assert (done.stdout, done.returncode) == (b"7 70\r\n", 4)


def test_sessions_are_listed_and_killed(client: SpritesClient, emulator: SpritesEmulator) -> None:
    sprite = client.create_sprite("one")

    async def main() -> int:
        async with AsyncSpritesClient(emulator.token, emulator.url) as background:
            command = asyncio.create_task(background.sprite("one").run("sleep", "307"))
            while not (sessions := await background.sprite("one").list_sessions()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert sessions[0].command == "sleep 307"
            messages = await asyncio.to_thread(kill_session, sprite, sessions[0].id, "SIGINT")
            assert [message.type for message in messages] == ["signal", "complete"]
            return (await command).returncode

    assert asyncio.run(main()) == 128 + signal.SIGINT
    with pytest.raises(APIError, match="404"):
        kill_session(sprite, "1")


def test_another_client_attaches(emulator: SpritesEmulator, sprite: Sprite) -> None:
    async def main() -> bytes:
        async with AsyncSpritesClient(emulator.token, emulator.url) as client:
            mine = client.sprite(sprite.name)
            script = "echo before; sleep 1; echo after"
            first = asyncio.create_task(mine.run("sh", "-c", script, capture_output=True))
            while not (sessions := await mine.list_sessions()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            output = await mine.attach_session(sessions[0].id).output()
            assert (await first).stdout == output
            return output

    assert asyncio.run(main()) == b"before\nafter\n"


def test_a_command_runs_on_for_a_while_without_its_client(
    emulator: SpritesEmulator, sprite: Sprite
) -> None:
    emulator.behaviour.run_on = 4.0
    emulator.fail("exec", "abort")
    with pytest.raises(NetworkError):
        sprite.run("sh", "-c", "sleep 0.1; touch here; sleep 308")
    assert emulator.settled() == []
    assert (sprite.filesystem("/home/sprite") / "here").exists()


@pytest.mark.parametrize("listing", ["children", "self"])
def test_files(emulator: SpritesEmulator, sprite: Sprite, listing: str) -> None:
    emulator.behaviour.listing = listing  # type: ignore[assignment]
    home = sprite.filesystem("/home/sprite")
    (home / "d" / "f").write_bytes(b"\0\xff")
    assert (home / "d" / "f").read_bytes() == b"\0\xff"
    assert (home / "d" / "f").stat().size == 2
    own = [] if listing == "children" else ["d"]
    assert [path.name for path in (home / "d").iterdir()] == [*own, "f"]
    assert (home / "d").stat().is_dir is (listing == "self")  # the children's first is a file
    (home / "d" / "f").rename(home / "g")
    (home / "g").copy_to(home / "d" / "h")
    (home / "g").chmod(0o600)
    assert (home / "g").stat().mode == "0600"
    with pytest.raises(FileNotFoundError_):
        (home / "d" / "f").read_bytes()
    with pytest.raises(IsADirectoryError_):
        (home / "d").read_bytes()
    with pytest.raises(DirectoryNotEmptyError):
        (home / "d").rmdir()
    (home / "d").rmtree()
    assert not (home / "d").exists()


def test_links_do_not_lead_out_of_the_sprite(sprite: Sprite, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("the host's")
    sprite.run("ln", "-s", str(outside), "link")
    with pytest.raises(FileNotFoundError_):
        (sprite.filesystem("/home/sprite") / "link").read_bytes()
    assert sprite.run("cat", str(outside)).returncode == 1


def test_checkpoints(emulator: SpritesEmulator, sprite: Sprite) -> None:
    file = sprite.filesystem("/home/sprite") / "f"
    file.write_text("good")
    assert [m.type for m in sprite.create_checkpoint("first")] == ["info", "complete"]
    assert [(c.id, c.comment) for c in sprite.list_checkpoints()] == [("v0", "first")]
    file.write_text("bad")
    assert [m.type for m in sprite.restore_checkpoint("v0")] == ["info", "complete"]
    assert file.read_text() == "bad"  # a restore takes place after its answer
    time.sleep(emulator.behaviour.restore_after + 0.5)
    assert file.read_text() == "good"


def test_the_policy_takes_the_network_away(sprite: Sprite) -> None:
    count = ["sh", "-c", "wc -l </proc/net/route"]
    before = sprite.run(*count, capture_output=True).stdout
    sprite.update_network_policy(NetworkPolicy([PolicyRule(domain="*", action="deny")]))
    assert [rule.action for rule in sprite.get_network_policy().rules] == ["deny"]
    assert sprite.run(*count, capture_output=True).stdout in (b"0\n", b"1\n")
    assert before


def test_faults(emulator: SpritesEmulator, sprite: Sprite) -> None:
    emulator.fail("exec", "status", status=429, headers={"Retry-After": "7"})
    with pytest.raises(APIError) as raised:
        sprite.run("true")
    assert raised.value.get_retry_after_seconds() == 7
    emulator.fail("fs.read", "truncate")
    file = sprite.filesystem("/") / "tmp" / "f"
    file.write_bytes(b"x" * 1000)
    with pytest.raises(SpriteError):
        file.read_bytes()
    emulator.fail("exec", "close", after=2)
    with pytest.raises(NetworkError, match="1000"):
        sprite.run("sh", "-c", "echo 12345; sleep 309")
    with pytest.raises(SpriteError, match="uri too long"):
        sprite.run("echo", "x" * 5000)


def test_the_command_says_what_to_set() -> None:
    need(missing_packages())
    with subprocess.Popen(
        [sys.executable, "-m", "tests.emulators.sprites"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        variables = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        with SpritesClient(variables["SPRITE_TOKEN"], variables["SPRITES_BASE_URL"]) as client:
            assert client.create_sprite("one").run("true").returncode == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
