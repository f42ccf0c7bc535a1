"""The Sprites backend: what it asks of the service, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.backends.base import Checkpointing, SandboxRequest
from kaos_runner.backends.sprites import SpritesBackend
from kaos_runner.backends.sprites_config import SpritesConfig
from kaos_runner.errors import PrerequisiteError, SandboxError
from kaos_runner.recipe.model import Network, Prompt, Recipe
from kaos_runner.testing.backend_suite import labels
from tests.debian import need
from tests.emulators.sprites import SpritesEmulator
from tests.emulators.sprites_machine import missing_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kaos_runner.backends.sprites_sandbox import SpriteSandbox

WORKDIR = "/home/sprite/work"


@pytest.fixture
def emulator() -> Iterator[SpritesEmulator]:
    need(missing_packages())
    with SpritesEmulator(run_on=0.5) as service:
        yield service
        assert service.settled() == []


class Told:
    """What the backend tells the runner."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, str]] = []
        self.retries: list[str] = []

    def notify(self, level: str, message: str) -> None:
        self.notices.append((level, message))

    def retry(self, operation: str, attempt: int, reason: str, wait: float) -> None:
        assert attempt > 0
        assert wait >= 0
        self.retries.append(f"{operation.split()[0]}: {reason}")


def a_recipe(config: SpritesConfig | None = None, **fields: Any) -> Recipe:
    prompts = (Prompt(text="x"),)
    return Recipe(
        version=1,
        name="unit",
        backend=config or SpritesConfig(),
        prompts=prompts,
        **{"workdir": WORKDIR, **fields},
    )


def a_request(
    emulator: SpritesEmulator, told: Told, config: SpritesConfig | None = None, **fields: Any
) -> SandboxRequest:
    return SandboxRequest(
        recipe=a_recipe(config, **fields),
        environ=emulator.environ,
        notify=told.notify,
        on_retry=told.retry,
    )


def created(
    emulator: SpritesEmulator, told: Told | None = None, config: Any = None, **fields: Any
) -> SpriteSandbox:
    """Create a sandbox, and let go of it."""

    async def main() -> SpriteSandbox:
        request = a_request(emulator, told or Told(), config, **fields)
        sandbox = await SpritesBackend().create(request, labels("unit-run"))
        await sandbox.detach()
        return sandbox

    return asyncio.run(main())


# -- create


def test_create_passes_on_what_the_recipe_wishes(emulator: SpritesEmulator) -> None:
    told = Told()
    config = SpritesConfig(
        create_as="my-sprite", region="ams", cpus=4, memory=8 * 2**30, storage=20 * 2**30,
        wait_for_capacity=True, url="public",
    )  # fmt: skip
    created(emulator, told, config)

    asked = emulator.sprite("my-sprite").asked
    assert asked["config"] == {"region": "ams", "cpus": 4, "ram_mb": 8192, "storage_gb": 20}
    assert asked["wait_for_capacity"] is True
    assert asked["url_settings"] == {"auth": "public"}
    assert ("info", "Sprites may ignore region and sizes") in told.notices


def test_create_costs_three_requests(emulator: SpritesEmulator) -> None:
    created(emulator)

    assert emulator.counts() == {"create": 1, "sessions": 1, "exec": 1}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_create_that_fails_for_a_while_is_tried_again(
    emulator: SpritesEmulator, status: int
) -> None:
    told = Told()
    emulator.fail("create", "status", status=status, times=2)
    created(emulator, told)

    assert told.retries == [f"create: HTTP {status}"] * 2
    assert len(emulator.names) == 1


def test_a_create_waits_as_long_as_the_service_asks(emulator: SpritesEmulator) -> None:
    waits = []
    body = '{"error": "sprite_creation_rate_limited", "retry_after_seconds": 1}'
    emulator.fail("create", "status", status=429, body=body)

    async def main() -> None:
        request = replace(
            a_request(emulator, Told()), on_retry=lambda *event: waits.append(event[3])
        )
        sandbox = await SpritesBackend().create(request, labels("unit-run"))
        await sandbox.detach()

    asyncio.run(main())
    assert waits == [1.0]


def test_a_create_whose_answer_was_lost_makes_one_sprite(emulator: SpritesEmulator) -> None:
    emulator.fail("create", "lost")
    sandbox = created(emulator)

    assert emulator.names == [sandbox.id]
    assert emulator.counts()["create"] == 1


def test_a_service_that_forgets_labels_leaves_nothing_behind(emulator: SpritesEmulator) -> None:
    emulator.fail("sessions", "status", status=500)
    emulator.behaviour.labels_kept = False
    with pytest.raises(SandboxError):
        created(emulator)

    assert emulator.names == []
    assert emulator.counts()["create"] == 1


def test_a_name_that_is_taken_is_not_touched(emulator: SpritesEmulator) -> None:
    config = SpritesConfig(create_as="theirs")
    created(emulator, config=config)
    emulator.sprite("theirs").labels = ["somebody-elses"]

    with pytest.raises(SandboxError, match="there is one of that name") as raised:
        created(emulator, config=config)
    assert "SPRITE_NAME" in str(raised.value.hint)
    assert emulator.names == ["theirs"]
    assert emulator.counts()["destroy"] == 0


def test_a_create_that_fails_half_way_leaves_nothing(emulator: SpritesEmulator) -> None:
    with pytest.raises(SandboxError, match="workdir"):
        created(emulator, workdir="/proc/nowhere")

    assert emulator.names == []


def test_what_may_be_left_behind_is_told(emulator: SpritesEmulator) -> None:
    told = Told()
    emulator.fail("destroy", "status", status=500)
    with pytest.raises(SandboxError):
        created(emulator, told, workdir="/proc/nowhere")

    (name,) = emulator.names
    assert told.notices == [
        ("warning", f"the sprite {name} may be left behind: sprite destroy -s {name}")
    ]


def test_a_refused_token_is_a_prerequisite(emulator: SpritesEmulator) -> None:
    emulator.token = "another-token"
    told = Told()
    with pytest.raises(PrerequisiteError, match="refuses the token"):
        created(emulator, told)
    assert told.notices == []


# -- connect


def connected(
    emulator: SpritesEmulator,
    name: str,
    use: Callable[[SpriteSandbox], Any],
    told: Told | None = None,
    config: SpritesConfig | None = None,
    **fields: Any,
) -> Any:
    """Connect, use the sandbox, and let go of it."""

    async def main() -> Any:
        request = a_request(emulator, told or Told(), config, **fields)
        sandbox = await SpritesBackend().connect(request, name)
        try:
            return await use(sandbox)
        finally:
            await sandbox.detach()

    return asyncio.run(main())


def test_connect_survives_a_cold_start_of_fifteen_seconds(emulator: SpritesEmulator) -> None:
    name = created(emulator).id
    emulator.sleep(name)
    emulator.behaviour.cold_wake = 15.0

    async def write(sandbox: SpriteSandbox) -> None:
        await sandbox.kaos.writetext("f", "awake")

    connected(emulator, name, write)
    assert emulator.counts()["create"] == 1


def test_a_command_survives_a_cold_start_in_the_middle(emulator: SpritesEmulator) -> None:
    told = Told()

    async def sleep_and_read(sandbox: SpriteSandbox) -> str:
        await sandbox.kaos.writetext("f", "kept")
        emulator.behaviour.cold_wake = 12.0
        await asyncio.to_thread(emulator.sleep, sandbox.id)
        return await sandbox.kaos.readtext("f")

    name = created(emulator).id
    assert connected(emulator, name, sleep_and_read, told) == "kept"
    assert told.retries


def test_connect_to_a_sprite_that_sleeps_by_itself(emulator: SpritesEmulator) -> None:
    emulator.behaviour.idle = 0.1
    name = created(emulator).id

    async def wait_and_look(sandbox: SpriteSandbox) -> bool:
        await asyncio.sleep(0.5)
        asleep = not emulator.sprite(name).machine.awake
        await sandbox.kaos.stat(".")
        return asleep

    assert connected(emulator, name, wait_and_look)


def test_the_policy_of_a_connected_sprite_is_kept_where_the_recipe_says_nothing(
    emulator: SpritesEmulator,
) -> None:
    async def nothing(_: SpriteSandbox) -> None:
        return

    name = created(emulator, network=Network(default="deny")).id
    connected(emulator, name, nothing)
    assert emulator.sprite(name).rules == [{"domain": "*", "action": "deny"}]
    connected(emulator, name, nothing, network=Network(deny=("evil.example",)))
    assert emulator.sprite(name).rules == [
        {"domain": "evil.example", "action": "deny"},
        {"domain": "*", "action": "allow"},
    ]


# -- checkpoints


CHECKPOINTS = SpritesConfig(checkpoint="before_run", restore="on_failure")


async def _ruin(sandbox: SpriteSandbox) -> str:
    await sandbox.before_run()
    await sandbox.kaos.writetext("f", "ruined")
    await sandbox.kaos.exec("sleep", "304")
    await sandbox.after_failure()
    return await sandbox.kaos.readtext("f")


@pytest.mark.parametrize("restore_after", [0.0, 1.5])
def test_a_restore_is_waited_for(emulator: SpritesEmulator, restore_after: float) -> None:
    emulator.behaviour.restore_after = restore_after

    async def write(sandbox: SpriteSandbox) -> None:
        assert isinstance(sandbox, Checkpointing)
        await sandbox.kaos.writetext("f", "good")

    name = created(emulator).id
    connected(emulator, name, write)
    told = Told()

    assert connected(emulator, name, _ruin, told, CHECKPOINTS) == "good"
    assert told.notices[-1] == ("info", f"{name} is as checkpoint v0 holds it")


def test_without_the_wish_nothing_is_checkpointed(emulator: SpritesEmulator) -> None:
    name = created(emulator).id

    assert connected(emulator, name, _ruin) == "ruined"
    assert emulator.counts()["checkpoint"] == 0


@pytest.mark.parametrize("operation", ["checkpoint", "restore"])
def test_an_error_event_under_http_200_is_an_error(
    emulator: SpritesEmulator, operation: str
) -> None:
    name = created(emulator).id
    emulator.fail(operation, "error_event")

    with pytest.raises(
        SandboxError, match=r"failed: (Checkpoint failed: disk full|Restore failed)"
    ):
        connected(emulator, name, _ruin, None, CHECKPOINTS)


def test_a_checkpoint_whose_answer_was_lost_is_made_once(emulator: SpritesEmulator) -> None:
    name = created(emulator).id
    emulator.fail("checkpoint", "lost")

    async def checkpoint(sandbox: SpriteSandbox) -> None:
        await sandbox.before_run()

    connected(emulator, name, checkpoint, None, CHECKPOINTS)
    assert len(emulator.sprite(name).checkpoints) == 1


# -- what there is


@pytest.mark.parametrize("labels_listed", [True, False])
def test_owned_goes_over_all_pages(emulator: SpritesEmulator, labels_listed: bool) -> None:
    emulator.behaviour.page_size = 2
    emulator.behaviour.labels_listed = labels_listed

    async def main() -> list[str]:
        backend = SpritesBackend()
        for _ in range(5):
            sandbox = await backend.create(a_request(emulator, Told()), labels("unit-run"))
            await sandbox.detach()
        found = [one async for one in backend.owned(emulator.environ)]
        assert {(one.run_id, one.recipe) for one in found} == {("unit-run", "conformance")}
        return sorted(one.id for one in found)

    created(emulator, config=SpritesConfig(create_as="kimi-agent-not-ours"))
    emulator.sprite("kimi-agent-not-ours").labels = ["team=web"]
    assert asyncio.run(main()) == [n for n in emulator.names if n != "kimi-agent-not-ours"]


def test_destroy_is_tried_again(emulator: SpritesEmulator) -> None:
    told = Told()

    async def main() -> None:
        request = a_request(emulator, told)
        sandbox = await SpritesBackend().create(request, labels("unit-run"))
        emulator.fail("destroy", "status", status=503)
        emulator.fail("destroy", "lost")
        await sandbox.destroy()

    asyncio.run(main())
    assert emulator.names == []
    assert len(told.retries) == 2


# -- without a service


def faults(environ: dict[str, str], config: SpritesConfig | None = None, **fields: Any) -> set[str]:
    recipe = a_recipe(config, **fields)
    return {found.path or found.message for found in SpritesBackend().problems(recipe, environ)}


def test_problems_are_found_without_the_network() -> None:
    token = {"SPRITE_TOKEN": "some-token"}

    assert faults(token) == set()
    assert faults({}) == {"the Sprites token is missing"}
    assert faults(token, image="ubuntu") == {"image"}
    assert faults(token, workdir="relative") == {"workdir"}
    assert faults(token, SpritesConfig(restore="on_failure")) == {"backend.restore"}
    assert faults(token, SpritesConfig(name="a", create_as="b")) == {"backend.create_as"}
    assert faults({**token, "SPRITE_NAME": "No Name"}) == {
        "SPRITE_NAME is not the name of a sprite"
    }
    network = Network(default="deny", allow=("pypi.org", "*.example", "10.0.0.0/8", "::1"))
    assert faults(token, network=network) == {"network.allow[2]", "network.allow[3]"}


@pytest.mark.parametrize("name", ["Upper", "-a", "a-", "a_b", "a" * 49, ""])
def test_names_that_are_no_dns_label_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        SpritesConfig(create_as=name)


def test_the_sprite_to_connect_to() -> None:
    backend = SpritesBackend()
    named, plain = a_recipe(SpritesConfig(name="recipes")), a_recipe()

    assert backend.sandbox_id(plain, {}) is None
    assert backend.sandbox_id(plain, {"SPRITE_NAME": "variables"}) == "variables"
    assert backend.sandbox_id(plain, {"SPRITE_NAME": ""}) is None
    assert backend.sandbox_id(named, {"SPRITE_NAME": "variables"}) == "recipes"


def test_diagnose(emulator: SpritesEmulator) -> None:
    async def told(environ: dict[str, str], *, online: bool) -> list[bool | None]:
        return [line.ok for line in await SpritesBackend().diagnose(environ, online=online)]

    async def main() -> None:
        assert await told({}, online=True) == [False]
        assert await told(emulator.environ, online=False) == [True]
        assert emulator.counts() == {}
        assert await told(emulator.environ, online=True) == [True, True]
        wrong = {**emulator.environ, "SPRITE_TOKEN": "wrong"}
        assert await told(wrong, online=True) == [True, False]

    asyncio.run(main())
