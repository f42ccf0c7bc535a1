"""The local backend: its plan, its directories, and what it says about the machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.backends import bubblewrap
from kaos_runner.backends.local import LocalBackend, LocalConfig
from kaos_runner.backends.local_sandbox import LABELS
from kaos_runner.errors import PrerequisiteError, SandboxError, SandboxLostError
from kaos_runner.recipe.model import Network
from kaos_runner.testing.case import ended, sh
from tests.unit.backends.local_requests import (
    labels,
    request,
    requires_bubblewrap,
    temporary_files_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.backends.local_sandbox import LocalSandbox

APPARMOR, CLONE, MOST = (str(path) for path in bubblewrap.USERNS_SWITCHES)


@pytest.fixture(autouse=True)
def _own_temporary_files(tmp_path: Path) -> Iterator[None]:
    with temporary_files_in(str(tmp_path)):
        yield


@pytest.fixture
def without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH on which there is no bwrap."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


async def create(**fields: Any) -> LocalSandbox:
    """A sandbox, without isolation unless something else is asked for."""
    fields.setdefault("isolation", "none")
    return await LocalBackend().create(request(**fields), labels())


# -- isolation


@requires_bubblewrap
@pytest.mark.parametrize("asked", [None, "auto", "bubblewrap"])
def test_isolated_where_it_works(asked: Any) -> None:
    async def run() -> str | None:
        sandbox = await create(isolation=asked)
        await sandbox.destroy()
        return sandbox.isolation

    assert asyncio.run(run()) == "bubblewrap"


@pytest.mark.usefixtures("without_bubblewrap")
@pytest.mark.parametrize(("asked", "config"), [(None, "auto"), ("bubblewrap", "auto")])
def test_without_bubblewrap_it_is_a_prerequisite(asked: Any, config: Any) -> None:
    with pytest.raises(PrerequisiteError, match="bubblewrap is not installed") as caught:
        asyncio.run(create(isolation=asked, config=config))
    assert "apt-get install -y bubblewrap" in str(caught.value.hint)
    assert ("--isolation none" in str(caught.value.hint)) == (asked is None)


@pytest.mark.usefixtures("without_bubblewrap")
def test_a_trusted_cassette_may_go_without_but_not_where_the_recipe_insists() -> None:
    async def run() -> str | None:
        sandbox = await create(isolation=None, allow_unisolated=True)
        await sandbox.destroy()
        return sandbox.isolation

    assert asyncio.run(run()) == "none"
    with pytest.raises(PrerequisiteError):
        asyncio.run(create(isolation=None, config="bubblewrap", allow_unisolated=True))


def test_a_closed_network_needs_bubblewrap() -> None:
    with pytest.raises(PrerequisiteError, match="network"):
        asyncio.run(create(network="deny"))


@pytest.mark.usefixtures("without_bubblewrap")
def test_the_doctor_says_what_is_missing() -> None:
    (said,) = asyncio.run(LocalBackend().diagnose({}, online=False))
    assert (said.subject, said.ok) == ("bubblewrap", False)
    assert "not installed" in said.detail


@requires_bubblewrap
def test_the_doctor_says_that_it_works() -> None:
    (said,) = asyncio.run(LocalBackend().diagnose({}, online=False))
    assert said.ok
    assert "bwrap" in said.detail


@pytest.mark.parametrize(
    ("switches", "reason", "hint"),
    [
        ({APPARMOR: "1"}, "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
        ({CLONE: "0"}, "for root only", "unprivileged_userns_clone=1"),
        ({MOST: "0"}, "switched off", "max_user_namespaces="),
        ({}, "does not work here: bwrap: Operation not permitted", "Docker"),
    ],
)
def test_why_namespaces_are_blocked(switches: dict[str, str], reason: str, hint: str) -> None:
    said, advice = bubblewrap.explain("bwrap: Operation not permitted", dict(switches))
    assert reason in said
    assert advice is not None
    assert hint in advice


def test_a_bubblewrap_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    program.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(PrerequisiteError, match="No permissions to create new namespace"):
        asyncio.run(create(isolation="bubblewrap"))
    assert not list(tmp_path.glob("kaos-runner-*"))


# -- problems


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"network": Network(default="deny", allow=("pypi.example",))}, "network.allow"),
        ({"network": Network(deny=("pypi.example",))}, "network.deny"),
        ({"image": "python:3.12"}, "image"),
        ({"workdir": "relative"}, "workdir"),
        ({"workdir": "/"}, "workdir"),
        ({"workdir": "/etc"}, "workdir"),
        ({"workdir": "/srv/../etc"}, "workdir"),
        ({"workdir": "/home/ann"}, "workdir"),
    ],
)
def test_problems(changes: dict[str, Any], path: str) -> None:
    recipe = request().recipe.model_copy(update=changes)
    found = LocalBackend().problems(recipe, {"HOME": "/home/ann"})
    assert [problem.path for problem in found] == [path]


def test_no_problems() -> None:
    recipe = request(network="deny", workdir="/home/ann/project").recipe
    assert LocalBackend().problems(recipe, {"HOME": "/home/ann"}) == []
    assert LocalConfig().isolation == "auto"


# -- the environment


@pytest.mark.parametrize(
    "isolation", ["none", pytest.param("bubblewrap", marks=requires_bubblewrap)]
)
def test_the_environment_is_exact(isolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_CANARY", "host")

    async def run() -> list[str]:
        sandbox = await create(
            isolation=isolation, env={"MINE": "1", "TERM": "vt100"}, secrets={"KEY": "secret-1"}
        )
        process = await sandbox.kaos.exec("/usr/bin/env", env=dict(os.environ))
        lines = (await ended(process)).stdout.decode().splitlines()
        await sandbox.destroy()
        return sorted(line.partition("=")[0] for line in lines)

    assert asyncio.run(run()) == ["HOME", "KEY", "LANG", "MINE", "PATH", "TERM"]


def test_twenty_sandboxes_have_their_own_working_directories() -> None:
    async def one(number: int) -> bytes:
        sandbox = await create()
        await sandbox.kaos.mkdir("below")
        await sandbox.kaos.chdir("below")
        await sandbox.kaos.writetext("f", str(number))
        read = await sh(sandbox.kaos, "cat f")
        await sandbox.destroy()
        return read

    async def run() -> list[bytes]:
        return await asyncio.gather(*(one(number) for number in range(20)))

    assert asyncio.run(run()) == [str(number).encode() for number in range(20)]


# -- directories


def test_a_directory_of_the_users_is_never_deleted(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "mine").write_text("x")

    async def run() -> None:
        sandbox = await create(workdir=str(project))
        assert str(sandbox.kaos.getcwd()) == str(project)
        await sandbox.kaos.writetext("new", "x")
        await sandbox.destroy()

    asyncio.run(run())
    assert sorted(path.name for path in project.iterdir()) == ["mine", "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


@pytest.mark.parametrize("sandbox_id", ["kaos-runner-x", "/", "/etc", "{tmp}/other", "{tmp}/link"])
def test_only_our_directories_are_connected_to(tmp_path: Path, sandbox_id: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / LABELS).write_text("{}")
    (tmp_path / "link").symlink_to("other")
    with pytest.raises(SandboxError, match="no local sandbox"):
        asyncio.run(LocalBackend().connect(request(), sandbox_id.format(tmp=tmp_path)))


def test_owned_tells_which_are_in_use(tmp_path: Path) -> None:
    (tmp_path / "kaos-runner-foreign").mkdir()

    async def run() -> list[list[str]]:
        backend = LocalBackend()
        sandbox = await create()
        states = [[found.state async for found in backend.owned({})]]
        await sandbox.detach()
        states.append([found.state async for found in backend.owned({})])
        await sandbox.destroy()
        return [*states, [found.state async for found in backend.owned({})]]

    assert asyncio.run(run()) == [["in use"], ["kept"], []]


def test_the_commands_for_a_person_work() -> None:
    async def run() -> tuple[int, bool]:
        sandbox = await create()
        await sh(sandbox.kaos, "mkdir locked; echo >locked/f; chmod 0 locked")
        await sandbox.detach()
        backend = LocalBackend()
        script = (
            f"{backend.connect_command(sandbox.id)} && ls && {backend.remove_command(sandbox.id)}"
        )
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdout=-3)
        return await process.wait(), Path(sandbox.id).exists()  # noqa: ASYNC240 - a test

    assert asyncio.run(run()) == (0, False)


# -- a sandbox that goes away


@pytest.mark.parametrize(
    "isolation", ["none", pytest.param("bubblewrap", marks=requires_bubblewrap)]
)
def test_a_lost_sandbox_is_told_once(isolation: str) -> None:
    async def run() -> list[SandboxLostError]:
        lost: list[SandboxLostError] = []
        sandbox = await create(isolation=isolation, on_lost=lost.append)
        process = await sandbox.kaos.exec("sleep", "1000")
        sandbox.transport._server.kill()
        assert await asyncio.wait_for(process.wait(), 30) == -9
        for _ in range(100 if isolation == "none" else 0):
            if not Path(f"/proc/{process.pid}").exists():  # noqa: ASYNC240 - procfs
                break
            await asyncio.sleep(0.05)
        else:
            assert isolation == "bubblewrap"
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await sandbox.kaos.stat("/")
        await sandbox.destroy()
        return lost

    assert len(asyncio.run(run())) == 1
