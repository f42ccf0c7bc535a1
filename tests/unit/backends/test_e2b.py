"""The E2B backend: what it asks for, what it undoes, and what it says of every failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from kaos_runner.backends.base import Labels, SandboxRequest
from kaos_runner.backends.e2b import E2bBackend, E2bConfig
from kaos_runner.errors import KaosRunnerError, PrerequisiteError, SandboxError, SandboxLostError
from kaos_runner.kaos.e2b_errors import api_error, os_error, transient
from kaos_runner.recipe.model import Network, Prompt, Recipe
from tests.debian import need
from tests.emulators.e2b import Emulator, running
from tests.emulators.e2b_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = Labels(run_id="run-1", recipe="r", digest="d", version="0")
KEY = {"E2B_API_KEY": "e2b_key"}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    need(missing_packages())
    with running(page=2) as server:
        yield server


def recipe(config: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    return Recipe(
        version=1,
        name="r",
        backend=E2bConfig(**(config or {})),
        prompts=(Prompt(text="x"),),
        **fields,
    )


def asked(
    emulator: Emulator, config: dict[str, Any] | None = None, **fields: Any
) -> SandboxRequest:
    return SandboxRequest(recipe=recipe(config, **fields), environ=emulator.environ())


# -- what is found without the network


def test_a_recipe_without_faults_has_no_problems() -> None:
    assert E2bBackend().problems(recipe(), KEY) == []


@pytest.mark.parametrize(
    ("made", "environ", "path", "words"),
    [
        (recipe(), {}, "", "the E2B API key is missing"),
        (recipe(), {**KEY, "E2B_SANDBOX_ID": "../x"}, "", "E2B_SANDBOX_ID is not the id"),
        (recipe(workdir="here"), KEY, "workdir", "must be absolute"),
        (recipe({"timeout": 90000}), KEY, "backend.timeout", "24 hours"),
        (
            recipe(network=Network(deny=("10.0.0.0/8", "a.example"))),
            KEY,
            "network.deny[1]",
            "'a.example' is a name",
        ),
    ],
)
def test_problems(made: Recipe, environ: dict[str, str], path: str, words: str) -> None:
    (problem,) = E2bBackend().problems(made, environ)
    assert problem.path == path
    assert words in problem.message


def test_what_to_connect_to() -> None:
    backend, variable = E2bBackend(), {"E2B_SANDBOX_ID": "fromenv"}
    assert backend.sandbox_id(recipe(), {}) is None
    assert backend.sandbox_id(recipe(), variable) == "fromenv"
    assert backend.sandbox_id(recipe({"sandbox_id": "mine"}), variable) == "mine"


# -- what is asked for


@pytest.mark.parametrize(
    ("network", "wanted"),
    [
        (Network(), {}),
        (Network(default="deny"), {"allow_internet_access": False}),
        (
            Network(default="deny", allow=("pypi.org",)),
            {"network": {"allowOut": ["pypi.org"], "denyOut": ["0.0.0.0/0"]}},
        ),
        (Network(deny=("10.0.0.0/8",)), {"network": {"denyOut": ["10.0.0.0/8"]}}),
    ],
)
def test_create_asks_for_what_the_recipe_says(
    emulator: Emulator, network: Network, wanted: dict[str, Any]
) -> None:
    config = {"timeout": 120, "on_timeout": "pause"}
    request = replace(asked(emulator, config, network=network), secrets={"S": "canary-12345"})

    async def run() -> None:
        await (await E2bBackend().create(request, LABELS)).destroy()

    asyncio.run(run())
    (body,) = emulator.fleet.created
    assert {k: v for k, v in body.items() if k in ("network", "allow_internet_access")} == wanted
    assert (body["templateID"], body["timeout"], body["autoPause"]) == ("base", 120, True)
    assert body["metadata"] == LABELS.as_dict()
    assert "canary" not in str(body)  # secrets go to processes, not into the provider's records


def test_a_connected_sandbox_gets_the_recipes_network(emulator: Emulator) -> None:
    async def run() -> None:
        backend = E2bBackend()
        sandbox = await backend.create(asked(emulator), LABELS)
        network = Network(default="deny", allow=("pypi.org",))
        await backend.connect(asked(emulator, network=network), sandbox.id)
        assert emulator.fleet.sandboxes[sandbox.id].network == {
            "allowOut": ["pypi.org"],
            "denyOut": ["0.0.0.0/0"],
        }

    asyncio.run(run())


def test_renewing_never_shortens_what_was_there_before(emulator: Emulator) -> None:
    def left(sandbox_id: str) -> float:
        end: datetime = emulator.fleet.sandboxes[sandbox_id].end_at
        return (end - datetime.now(UTC)).total_seconds()

    async def run() -> None:
        backend = E2bBackend()
        sandbox = await backend.create(asked(emulator, {"timeout": 60}), LABELS)
        await sandbox.keepalive(timedelta(hours=2))
        assert left(sandbox.id) > 7000
        again = await backend.connect(asked(emulator, {"timeout": 60}), sandbox.id)
        await again.keepalive(timedelta(minutes=10))
        assert left(sandbox.id) > 7000
        await sandbox.keepalive(timedelta(minutes=10))
        assert 500 < left(sandbox.id) < 601

    asyncio.run(run())


def test_what_is_owned_is_found_on_every_page(emulator: Emulator) -> None:
    async def run() -> None:
        from e2b import AsyncSandbox

        from kaos_runner.backends.e2b_service import parameters

        given = parameters(emulator.environ())
        await AsyncSandbox.create(metadata={"other": "label"}, **given)
        runs = [f"run-{n}" for n in range(4)]
        for name in runs:
            labels = {"kaos-runner-run-id": name, "kaos-runner-recipe": "r"}
            await AsyncSandbox.create(metadata=labels, **given)
        found = [o async for o in E2bBackend().owned(emulator.environ())]
        assert sorted(o.run_id for o in found) == sorted(runs)
        assert {(o.backend, o.recipe, o.state) for o in found} == {("e2b", "r", "running")}
        assert emulator.counts["list"] == 3

    asyncio.run(run())


# -- what is left behind


@pytest.mark.parametrize("how", ["reset", "lose"])
def test_a_create_that_breaks_leaves_nothing(emulator: Emulator, how: str) -> None:
    emulator.fail("create", times=99, how=how)

    async def run() -> None:
        creating = asyncio.create_task(E2bBackend().create(asked(emulator), LABELS))
        while emulator.counts["create"] < 2:  # noqa: ASYNC110 - counted in another thread
            await asyncio.sleep(0.01)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating

    asyncio.run(run())
    assert len(emulator.fleet.created) == (how == "lose")  # one key, one sandbox
    assert not emulator.fleet.sandboxes


def test_a_workdir_that_cannot_be_made_leaves_nothing(emulator: Emulator) -> None:
    creating = E2bBackend().create(asked(emulator, workdir="/proc/x"), LABELS)
    with pytest.raises(SandboxError, match="cannot make the workdir"):
        asyncio.run(creating)
    assert len(emulator.fleet.created) == 1
    assert not emulator.fleet.sandboxes


def test_what_may_be_left_behind_is_said(emulator: Emulator) -> None:
    emulator.fail("kill", times=99, status=500)
    told: list[tuple[str, str]] = []
    request = replace(
        asked(emulator, workdir="/proc/x"), notify=lambda level, text: told.append((level, text))
    )
    with pytest.raises(SandboxError, match="cannot make the workdir"):
        asyncio.run(E2bBackend().create(request, LABELS))
    ((level, text),) = told
    assert level == "warning"
    assert "kaos-runner-run-id=run-1" in text


def test_renewing_a_lost_sandbox_tells_the_run(emulator: Emulator) -> None:
    told: list[SandboxLostError] = []

    async def run() -> None:
        request = replace(asked(emulator), on_lost=told.append)
        sandbox = await E2bBackend().create(request, LABELS)
        await asyncio.to_thread(emulator.expire, sandbox.id)
        with pytest.raises(SandboxLostError):
            await sandbox.keepalive(timedelta(minutes=10))
        with pytest.raises(SandboxLostError):
            await sandbox.keepalive(timedelta(minutes=10))

    asyncio.run(run())
    assert len(told) == 1


# -- what is said


def limited() -> Exception:
    from e2b import RateLimitException

    made: Exception = cast("Any", RateLimitException)("429: slow")  # the SDK has no types for it
    return made


def _failures() -> list[tuple[Exception, type[KaosRunnerError], str]]:
    import e2b
    import httpx

    status = e2b.SandboxException("503: x", status_code=503)
    refused = "Request failed: error sending request for url (https://proxy.example/x): "
    return [
        (e2b.AuthenticationException("401"), PrerequisiteError, "refuses the API key"),
        (limited(), SandboxError, "limit is reached: 429: slow"),
        (e2b.ServiceBusyException("busy"), SandboxError, "busy"),
        (e2b.SandboxNotFoundException("x"), SandboxError, "does not exist"),
        (e2b.TemplateException("old envd"), SandboxError, "old envd"),
        (e2b.InvalidArgumentException("bad"), SandboxError, "refuses the request: bad"),
        (status, SandboxError, "503: x"),
        (e2b.TimeoutException("late"), SandboxError, "late"),
        (httpx.ReadTimeout("timed out"), SandboxError, "the connection broke: timed out"),
        (httpx.ReadError("reset"), SandboxError, "the connection broke: reset"),
        (httpx.ConnectError(refused + "dns error: none"), PrerequisiteError, "host name"),
        (
            httpx.ConnectError(refused + "invalid peer certificate: UnknownIssuer"),
            PrerequisiteError,
            "certificate cannot be verified",
        ),
        (httpx.ConnectError(refused + "tunnel error: denied"), PrerequisiteError, "the proxy on"),
        (httpx.ConnectError(refused + "tcp: refused"), PrerequisiteError, "cannot be reached"),
        (ValueError("not JSON"), SandboxError, "not JSON"),
    ]


def test_every_failure_of_the_control_plane_has_its_words_and_a_way_on() -> None:
    for error, kind, words in _failures():
        told = api_error(error, "create a sandbox", template="t")
        assert type(told) is kind, error
        assert words in told.message
        assert told.hint or "refuses the request" in told.message
        assert "https://" not in told.message


def test_a_missing_template_is_named() -> None:
    import e2b

    for status in (400, 403, 404):
        error = e2b.SandboxException(f"{status}: template 't' not found", status_code=status)
        assert api_error(error, "create", template="t").message == "there is no E2B template 't'"
    assert (
        "template"
        not in api_error(
            e2b.SandboxException("404: sandbox", status_code=404), "create", template="t"
        ).message
    )


def test_what_passes_is_tried_again() -> None:
    import e2b
    import httpx

    again = [
        limited(),
        e2b.ServiceBusyException("503"),
        e2b.SandboxException("502", status_code=502),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("late"),
    ]
    never = [
        e2b.AuthenticationException("401"),
        e2b.SandboxException("500", status_code=500),
        httpx.ConnectError("refused"),
        ValueError("bug"),
    ]
    assert [transient(error) for error in again] == [True] * len(again)
    assert [transient(error) for error in never] == [False] * len(never)


def test_refusals_of_envd_are_os_errors() -> None:
    import e2b

    for error, kind in (
        (e2b.InvalidArgumentException("cwd '/x' does not exist"), FileNotFoundError),
        (e2b.InvalidArgumentException("fork/exec: argument list too long"), OSError),
        (e2b.NotFoundException("process with pid 3 not found"), ProcessLookupError),
        (e2b.TimeoutException("deadline"), TimeoutError),
        (limited(), BlockingIOError),
        (e2b.NotEnoughSpaceException("full"), OSError),
        (e2b.SandboxException("internal"), OSError),
    ):
        assert type(os_error(error)) is kind


def test_doctor_asks_only_when_told(emulator: Emulator) -> None:
    backend = E2bBackend()

    async def run() -> None:
        offline = await backend.diagnose(emulator.environ(), online=False)
        assert [d.ok for d in offline] == [True, True]
        assert not emulator.counts
        online = await backend.diagnose(emulator.environ(), online=True)
        assert online[-1].detail == "answers; 0 sandboxes"
        wrong = await backend.diagnose({**emulator.environ(), **KEY}, online=True)
        assert (wrong[-1].ok, wrong[-1].detail) == (False, "E2B refuses the API key")
        missing = await backend.diagnose({}, online=True)
        assert [d.ok for d in missing] == [True, False]
        assert missing[-1].hint

    asyncio.run(run())
