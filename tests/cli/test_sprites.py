"""Runs in Sprites from the command line, against the emulated service."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import ROOT, CommandLine, says, shell
from tests.debian import need
from tests.emulators.sprites import SpritesEmulator
from tests.emulators.sprites_machine import missing_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


RECIPE = ROOT / "recipes/sprites-keep.yaml"
AGAIN = ROOT / "recipes/cassettes/sprites-keep-again.yaml"
WORKDIR = "/home/sprite/kimi-workdir"
PATIENCE = 60.0

pytestmark = pytest.mark.timeout(300)  # several runs in one test, on a busy machine


@pytest.fixture
def emulator() -> Iterator[SpritesEmulator]:
    """Sprites, in which nothing may run after a test."""
    need(missing_packages())
    with SpritesEmulator(run_on=1.0) as service:
        yield service
        assert service.settled() == []


@pytest.fixture
def sprites(cli: CommandLine, emulator: SpritesEmulator) -> CommandLine:
    """A command line that finds it."""
    return replace(cli, environ={**cli.environ, **emulator.environ})


def recipe(cli: CommandLine, turns: list[dict[str, Any]], **fields: Any) -> Path:
    return cli.recipe(turns, **{"backend": "sprites", **fields})


def in_sprite(emulator: SpritesEmulator, name: str, file: str) -> Path:
    """A file of the workdir, as the host sees it."""
    return emulator.sprite(name).machine.host_path(f"{WORKDIR}/{file}")


def until(condition: Callable[[], object]) -> None:
    """Wait for something that a process brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_second_run_goes_on_where_the_first_one_stopped(
    sprites: CommandLine, emulator: SpritesEmulator, tmp_path: Path
) -> None:
    first = sprites.run(RECIPE)

    assert first.code == 0, first.err
    (name,) = emulator.names
    assert name.startswith("kimi-agent-")
    assert first.result["sandbox"]["created"]
    assert name in first.err
    labels = emulator.sprite(name).labels
    assert "kaos-runner-recipe=sprites-keep" in labels
    assert f"kaos-runner-run-id={first.run_dir.name}" in labels

    emulator.sleep(name)
    (tmp_path / "later").mkdir()
    second = replace(sprites, folder=tmp_path / "later").run(
        RECIPE, "--replay", AGAIN, SPRITE_NAME=name
    )

    assert second.code == 0, second.err
    assert emulator.names == [name]
    assert not second.result["sandbox"]["created"]
    todo = (second.run_dir / "artifacts/TODO.md").read_text()
    assert todo.count("- [x]") == 2
    assert "test_tally.py" in (second.run_dir / "artifacts/step.patch").read_text()
    assert [one["id"] for one in emulator.sprite(name).checkpoints] == ["v0", "v1"]


def test_a_failed_run_brings_the_old_content_back(
    sprites: CommandLine, emulator: SpritesEmulator, tmp_path: Path
) -> None:
    emulator.behaviour.restore_after = 1.0
    first = sprites.run(recipe(sprites, [shell("echo precious >work.txt"), says("Made.")]))
    assert first.code == 0, first.err
    (name,) = emulator.names
    later = replace(sprites, folder=tmp_path / "later")
    later.folder.mkdir()
    ruin = recipe(
        later,
        [shell("echo ruined >work.txt; touch litter; (sleep 300 &)"), says("Done.")],
        backend={"type": "sprites", "checkpoint": "before_run", "restore": "on_failure"},
        checks=[{"run": "grep -q precious work.txt"}],
        artifacts=[{"path": "work.txt"}],
    )

    second = later.run(ruin, SPRITE_NAME=name)

    assert second.code == 1, second.err
    assert (second.run_dir / "artifacts/work.txt").read_text() == "ruined\n"
    assert in_sprite(emulator, name, "work.txt").read_text() == "precious\n"
    assert not in_sprite(emulator, name, "litter").exists()
    assert emulator.processes() == []


def test_a_restore_that_fails_is_told_beside_the_failure(
    sprites: CommandLine, emulator: SpritesEmulator
) -> None:
    emulator.fail("restore", "error_event")
    done = sprites.run(
        recipe(
            sprites,
            [says("Done.")],
            backend={"type": "sprites", "checkpoint": "before_run", "restore": "on_failure"},
            checks=[{"run": "false"}],
        )
    )

    assert done.code == 1
    assert "Restore failed" in done.err


@pytest.mark.parametrize(
    ("arguments", "environ", "kept"),
    [
        ((), {}, True),
        (("--cleanup", "always"), {}, False),
        (("--cleanup", "on_success"), {}, False),
        ((), {"SPRITE_DELETE_ON_EXIT": "1"}, False),
        (("--cleanup", "never"), {"SPRITE_DELETE_ON_EXIT": "1"}, True),
    ],
)
def test_a_created_sprite_is_kept_unless_one_asks(
    sprites: CommandLine,
    emulator: SpritesEmulator,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    kept: bool,
) -> None:
    done = sprites.run(recipe(sprites, [says("Fine.")]), *arguments, **environ)

    assert done.code == 0, done.err
    assert bool(emulator.names) is kept
    assert done.result["sandbox"]["end"] == ("paused" if kept else "deleted")


def test_what_it_connected_to_is_never_deleted(
    sprites: CommandLine, emulator: SpritesEmulator
) -> None:
    file = recipe(
        sprites, [says("Fine.")], backend={"type": "sprites", "create_as": "our-workspace"}
    )
    assert sprites.run(file).code == 0
    file = recipe(sprites, [says("Fine.")], backend={"type": "sprites", "name": "our-workspace"})
    sprites = replace(sprites, folder=sprites.folder / "later")
    sprites.folder.mkdir()

    done = sprites.run(file, "--cleanup", "always", SPRITE_DELETE_ON_EXIT="1")

    assert done.code == 0, done.err
    assert emulator.names == ["our-workspace"]
    assert done.result["sandbox"]["end"] == "left"
    assert "does nothing" in done.err


def test_an_interrupted_run_leaves_nothing_running(
    sprites: CommandLine, emulator: SpritesEmulator
) -> None:
    file = recipe(sprites, [shell("sleep 301 & sleep 302"), says("Late.")])
    with sprites.start(file) as process:
        until(lambda: "sleep 302" in emulator.processes())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert emulator.settled() == []
    assert len(emulator.names) == 1


def test_a_sprite_that_vanishes_is_4(sprites: CommandLine, emulator: SpritesEmulator) -> None:
    file = recipe(sprites, [shell("sleep 303"), says("Late.")])
    with sprites.start(file) as process:
        until(lambda: "sleep 303" in emulator.processes())
        emulator.lose(emulator.names[0])
        _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 4, err
    assert "does not exist any more" in err


def test_retries_are_told_as_events(sprites: CommandLine, emulator: SpritesEmulator) -> None:
    emulator.fail("create", "status", status=429)
    emulator.fail("sessions", "status", status=502)
    emulator.fail("exec", "reset")
    done = sprites.run(recipe(sprites, [shell("echo >>log"), says("Fine.")]))

    assert done.code == 0, done.err
    retries = [event["operation"] for event in done.events if event["type"] == "retry"]
    assert [operation.split()[0] for operation in retries] == ["create", "wake", "exec"]


def test_an_image_is_2_with_a_hint(sprites: CommandLine, emulator: SpritesEmulator) -> None:
    done = sprites.run(recipe(sprites, [says("Fine.")], image="python:3.12"))

    assert done.code == 2
    assert "setup" in done.err
    assert not emulator.log.seen


def test_a_missing_token_is_3(cli: CommandLine) -> None:
    done = cli.run(recipe(cli, [says("Fine.")]))

    assert done.code == 3
    assert "SPRITE_TOKEN" in done.err


def test_a_refused_token_is_3(sprites: CommandLine, emulator: SpritesEmulator) -> None:
    done = sprites.run(recipe(sprites, [says("Fine.")]), SPRITE_TOKEN="not-the-token-of-it")

    assert done.code == 3, done.err
    assert "not-the-token-of-it" not in done.err + done.out
    assert emulator.counts()["create"] == 1


def test_a_service_that_is_not_there_is_3(cli: CommandLine) -> None:
    environ = {"SPRITE_TOKEN": "some-token-or-other", "SPRITES_BASE_URL": "http://127.0.0.1:9"}
    done = cli.run(recipe(cli, [says("Fine.")]), **environ)

    assert done.code == 3, done.err
    assert "cannot be reached" in done.err


def test_a_secret_reaches_the_sprite_and_no_url(
    sprites: CommandLine, emulator: SpritesEmulator
) -> None:
    canary = "canary-91d5e7f0"
    file = recipe(
        sprites,
        [shell('printf %s "$DEPLOY_KEY" | cksum >sum; echo $DEPLOY_KEY'), says("Used.")],
        secrets=["DEPLOY_KEY"],
        artifacts=[{"path": "sum"}],
    )
    done = sprites.run(file, DEPLOY_KEY=canary)

    assert done.code == 0, done.err
    assert (done.run_dir / "artifacts/sum").read_text().split()[1] == str(len(canary))
    assert not [seen for seen in emulator.log.seen if canary in seen.url]
    written = b"".join(f.read_bytes() for f in sprites.folder.rglob("*") if f.is_file())
    assert canary.encode() not in written + (done.out + done.err).encode()
    sprite = emulator.sprite(emulator.names[0]).machine.root
    assert not [f for f in _files(sprite) if canary.encode() in f.read_bytes()]


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            if (path := type(root)(folder, name)).is_file() and not path.is_symlink():
                yield path


def test_the_plan_says_that_it_stays_and_what_that_means(sprites: CommandLine) -> None:
    done = sprites.run("explain", recipe(sprites, [says("Fine.")]))

    assert done.code == 0
    assert "stays" in done.out
    assert "storage is billed" in done.out


def test_doctor_asks_the_service(sprites: CommandLine) -> None:
    done = sprites.run("doctor", "--online")

    assert "answers; 0 sprites" in done.out


def test_the_network_is_the_sprites_policy(sprites: CommandLine, emulator: SpritesEmulator) -> None:
    file = recipe(sprites, [says("Fine.")], network={"default": "deny", "allow": ["pypi.example"]})
    done = sprites.run(file, "--output", "json")

    assert done.code == 0, done.err
    assert json.loads(done.out)["status"] == "succeeded"
    assert emulator.sprite(emulator.names[0]).rules == [
        {"domain": "pypi.example", "action": "allow"},
        {"domain": "*", "action": "deny"},
    ]
