"""What the BoxLite backend says before a run, and how it behaves when the server does not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from kaos_runner.backends.base import Labels, SandboxRequest
from kaos_runner.backends.boxlite import BoxliteBackend
from kaos_runner.backends.boxlite_config import BoxliteConfig, Registry, Volume, kvm_fault
from kaos_runner.backends.boxlite_errors import mapped
from kaos_runner.backends.boxlite_layout import write_layout
from kaos_runner.backends.boxlite_request import box_name
from kaos_runner.errors import PrerequisiteError, SandboxError
from kaos_runner.recipe.model import Limits, Network, Prompt, Recipe
from tests.debian import need
from tests.emulators.boxlite import Emulator, Fault
from tests.emulators.boxlite_box import missing_packages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABELS = Labels(run_id="20261123-090000-abcdef", recipe="my recipe", digest="0" * 64, version="0")
SERVER = "https://boxlite.example"


def recipe(config: BoxliteConfig | None = None, **fields: Any) -> Recipe:
    fields = {"image": "python:3.12-slim", "workdir": "/root/work", **fields}
    prompts = (Prompt(text="unused"),)
    backend = config or BoxliteConfig(url=SERVER)
    return Recipe(version=1, name="test", backend=backend, prompts=prompts, **fields)


def said(recipe: Recipe, **environ: str) -> list[tuple[str, str]]:
    environ = {"BOXLITE_API_KEY": "k" * 12, **environ}
    return [(p.path, p.message) for p in BoxliteBackend().problems(recipe, environ)]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    need(missing_packages("gnu"))
    with Emulator(key="k") as emulator:
        yield emulator


def request_for(emulator: Emulator, recipe: Recipe, **more: Any) -> SandboxRequest:
    environ = {"BOXLITE_API_KEY": "k", "BOXLITE_REST_URL": emulator.url}
    return SandboxRequest(recipe=recipe, environ=environ, **more)


# -- problems


@pytest.mark.parametrize(
    "image",
    ["python", "python:3.12-slim", "ghcr.io/a/b:1", "localhost:5000/a", f"a/b@sha256:{'0' * 64}"],
)
def test_images(image: str) -> None:
    assert said(recipe(image=image)) == []


@pytest.mark.parametrize("image", ["Python", "a b", "-x", "a:", "a//b", ":1", "a@sha256:12", "é"])
def test_malformed_images(image: str) -> None:
    assert [path for path, _ in said(recipe(image=image))] == ["image"]


@pytest.mark.parametrize(
    "field",
    [
        {"cpus": 0},
        {"cpus": 33},
        {"memory": "64MiB"},
        {"disk": "10MiB"},
        {"user": "a b"},
        {"box": "a b"},
        {"volumes": [{"from": "x", "to": "relative"}]},
        {"start_timeout": "0s"},
    ],
)
def test_fields_that_boxlite_would_accept(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BoxliteConfig(**field)


def test_a_server_needs_its_key() -> None:
    assert said(recipe(), BOXLITE_API_KEY="") == [
        ("", "the BoxLite server's key is missing: BOXLITE_API_KEY is not set")
    ]
    named = BoxliteConfig(url="http://127.0.0.1:1", api_key_env="MY_KEY")
    assert [path for path, _ in said(recipe(named))] == [""]
    loopback = BoxliteConfig(url="http://localhost:8100")
    assert said(recipe(loopback), BOXLITE_API_KEY="") == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost"])
def test_plain_http_on_loopback(url: str) -> None:
    assert said(recipe(BoxliteConfig(url=url), secrets=("A",))) == []


def test_plain_http_elsewhere() -> None:
    config = BoxliteConfig(url="http://10.0.0.1")
    assert ("backend.url", "secrets would travel in clear to 10.0.0.1") in said(recipe(config))


@pytest.mark.parametrize("url", ["boxlite.example", "ftp://x", "https://", "https:///v1"])
def test_addresses_that_are_none(url: str) -> None:
    assert [path for path, _ in said(recipe(BoxliteConfig(url=url)))] == ["backend.url"]


def test_what_a_server_cannot(tmp_path: Path) -> None:
    config = BoxliteConfig(
        url=SERVER,
        rootfs=str(tmp_path),
        home="/x",
        volumes=(Volume.model_validate({"from": "/a", "to": "/b"}),),
        registries=(Registry(host="r"),),
    )
    found = [path for path, _ in said(recipe(config))]
    assert found == [f"backend.{n}" for n in ("rootfs", "volumes", "registries", "home")]


def test_what_this_machine_lacks(tmp_path: Path) -> None:
    config = BoxliteConfig(
        rootfs=str(tmp_path),
        home="relative",
        volumes=(Volume.model_validate({"from": str(tmp_path / "none"), "to": "/b"}),),
        registries=(
            Registry(host="r", username="u"),
            Registry(host="r.example", plain_http=True),
            Registry(host="r", username="u", password_env="NOT_SET"),
        ),
    )
    found = [path for path, message in said(recipe(config)) if "kvm" not in message.lower()]
    assert found == [
        "backend.home",
        "backend.rootfs",
        "backend.volumes[0].from",
        "backend.registries[0]",
        "backend.registries[1].plain_http",
        "",
    ]


def test_an_image_layout_is_one(tmp_path: Path) -> None:
    write_layout(tmp_path / "image", {"bin/sh": b"#!"}, links={"sh": "bin/sh"})
    index = json.loads((tmp_path / "image/index.json").read_text())
    blob = tmp_path / "image/blobs/sha256" / index["manifests"][0]["digest"].removeprefix("sha256:")
    assert json.loads(blob.read_text())["layers"][0]["size"] > 0
    config = BoxliteConfig(rootfs=str(tmp_path / "image"))
    for image in (None, "python:3.12-slim"):
        assert [path for path, _ in said(recipe(config, image=image)) if path] == []
    assert ("backend.rootfs", "`rootfs` takes the place of the image, and `image` says alpine") in (
        said(recipe(config, image="alpine"))
    )


# -- what the SDK's errors mean


class _Error(RuntimeError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@pytest.mark.parametrize(
    ("code", "message", "kind", "words"),
    [
        ("unsupported", "KVM is not available on this host.", PrerequisiteError, "no micro-VM"),
        ("unsupported", "KVM is available but access is denied", PrerequisiteError, "denied"),
        (
            "internal",
            "Another BoxliteRuntime is already using directory: /x Only one",
            PrerequisiteError,
            "the BoxLite home /x is used by another process",
        ),
        ("engine_unavailable", "The VM failed to start.", SandboxError, "did not start"),
        ("storage_error", "Failed to pull image 'x'", SandboxError, "cannot be pulled"),
        ("config_error", "auth: invalid key", PrerequisiteError, "refuses the key"),
        ("permission_denied", "no scope", PrerequisiteError, "refuses: no scope"),
        ("network_unavailable", "refused", PrerequisiteError, "cannot be reached"),
        ("resource_exhausted", "too many boxes", SandboxError, "too many boxes"),
        ("not_found", "gone", SandboxError, "no such box"),
        ("internal", "x" * 1000, SandboxError, "could not start the box"),
    ],
)
def test_errors_in_our_words(code: str, message: str, kind: type[Exception], words: str) -> None:
    found = mapped(_Error(code, message), "start the box")
    assert type(found) is kind
    assert words in found.message
    assert len(found.message) < 500


def test_a_call_without_an_answer() -> None:
    found = mapped(TimeoutError(), "start the box")
    assert isinstance(found, SandboxError)
    assert found.hint is not None
    assert "start_timeout" in found.hint


# -- boxes


def test_names_carry_the_labels() -> None:
    name = box_name(LABELS)
    assert name == "kaos-runner.20261123-090000-abcdef.000000000000.my-recipe"
    assert len(box_name(Labels(run_id="r", recipe="x" * 500, digest="sha256:ab", version=""))) < 128


def test_what_is_asked_of_the_server(emulator: Emulator) -> None:
    config = BoxliteConfig(url=emulator.url, cpus=3, memory=2**30, disk=5 * 2**30, user="1000:100")
    asked = recipe(
        config,
        network=Network(default="deny", allow=("pypi.org", "*.example")),
        env={"A": "1"},
        secrets=("S",),
        limits=Limits(wall=60),
    )

    async def run() -> None:
        request = request_for(emulator, asked, secrets={"S": "canary-value"})
        sandbox = await BoxliteBackend().create(request, LABELS)
        await sandbox.destroy()

    asyncio.run(run())
    sent = dict(emulator.bodies)["POST /boxes"]
    assert isinstance(sent, dict)
    assert (sent["cpus"], sent["memory_mib"], sent["disk_size_gb"]) == (3, 1024, 5)
    assert sent["user"] == "1000:100"
    assert sent["network"] == {"mode": "enabled", "allow_net": ["pypi.org", "*.example"]}
    assert 660 in sent.values()  # how long it may be idle: the wall limit and ten minutes
    assert "canary-value" not in str(sent)
    assert emulator.boxes == {}


def test_a_start_without_an_answer(emulator: Emulator) -> None:
    emulator.faults.append(Fault("POST .*/start", kind="hang"))
    config = BoxliteConfig(url=emulator.url, start_timeout=0.5)
    with pytest.raises(SandboxError, match="did not answer in time"):
        asyncio.run(BoxliteBackend().create(request_for(emulator, recipe(config)), LABELS))
    assert emulator.boxes == {}


def test_a_workdir_that_cannot_be_made(emulator: Emulator) -> None:
    asked = recipe(BoxliteConfig(url=emulator.url), workdir="/proc/nowhere")
    with pytest.raises(SandboxError, match="cannot make the workdir /proc/nowhere"):
        asyncio.run(BoxliteBackend().create(request_for(emulator, asked), LABELS))
    assert emulator.boxes == {}


def test_an_image_without_what_is_needed(emulator: Emulator) -> None:
    async def run() -> None:
        config = BoxliteConfig(url=emulator.url)
        sandbox = await BoxliteBackend().create(request_for(emulator, recipe(config)), LABELS)
        await sandbox.detach()
        (box,) = emulator.boxes.values()
        (box.root / "few").mkdir()
        for name in ("sh", "setsid"):
            (box.root / "few" / name).symlink_to(f"/usr/bin/{name}")
        poor = recipe(config, env={"PATH": "/few"})
        with pytest.raises(SandboxError, match="the image has no `base64`"):
            await BoxliteBackend().connect(request_for(emulator, poor), sandbox.id)

    asyncio.run(run())


def test_a_connected_box_is_restricted(emulator: Emulator) -> None:
    async def run() -> None:
        config = BoxliteConfig(url=emulator.url)
        sandbox = await BoxliteBackend().create(request_for(emulator, recipe(config)), LABELS)
        closed = recipe(config, network=Network(default="deny"))
        again = await BoxliteBackend().connect(request_for(emulator, closed), sandbox.id)
        await again.detach()
        await sandbox.detach()

    asyncio.run(run())
    asked = dict(emulator.bodies)["PUT /boxes/{box}/network/outbound"]
    assert asked == {"mode": "disabled", "allow_net": []}


def test_a_connection_that_cannot_be_made_is_tried_again(emulator: Emulator) -> None:
    told: list[str] = []
    request = request_for(
        emulator,
        recipe(BoxliteConfig(url="http://127.0.0.1:1")),
        on_retry=lambda operation, *_: told.append(operation),
    )
    with pytest.raises(PrerequisiteError, match="cannot be reached"):
        asyncio.run(BoxliteBackend().create(request, LABELS))
    assert told[:2] == ["create box", "create box"]


def test_commands_for_a_person(emulator: Emulator) -> None:
    async def run() -> None:
        backend = BoxliteBackend()
        request = request_for(emulator, recipe(BoxliteConfig(url=emulator.url)))
        sandbox = await backend.create(request, LABELS)
        server = f"BOXLITE_REST_URL={emulator.url}"
        assert backend.remove_command(sandbox.id) == f"{server} boxlite rm -f {sandbox.id}"
        assert backend.connect_command(sandbox.id) == f"{server} boxlite exec -it {sandbox.id} sh"
        await sandbox.destroy()

    asyncio.run(run())


# -- doctor


def diagnosed(online: bool, **environ: str) -> dict[str, tuple[bool | None, str]]:
    found = asyncio.run(BoxliteBackend().diagnose(environ, online=online))
    return {each.subject: (each.ok, each.detail) for each in found}


def test_doctor_on_this_machine() -> None:
    found = diagnosed(online=False)
    assert found["boxlite SDK"][0] is True
    assert found["boxlite KVM"][0] is (kvm_fault() is None)
    assert ("boxlite micro-VM" in found) is (kvm_fault() is None)


def test_doctor_about_a_server(emulator: Emulator) -> None:
    told = diagnosed(online=True, BOXLITE_REST_URL=emulator.url, BOXLITE_API_KEY="k")
    assert told["boxlite server"] == (True, f"{emulator.url} answers; 0 boxes")
    told = diagnosed(online=True, BOXLITE_REST_URL=emulator.url, BOXLITE_API_KEY="wrong")
    assert told["boxlite server"] == (False, "the BoxLite server refuses the key")
    emulator.run(emulator.die)
    told = diagnosed(online=True, BOXLITE_REST_URL=emulator.url, BOXLITE_API_KEY="k")
    assert told["boxlite server"][0] is False
    assert "cannot be reached" in told["boxlite server"][1]
