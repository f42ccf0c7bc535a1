"""What a recipe may say about a BoxLite box, and what is wrong with it before anything is started.

BoxLite itself accepts nonsense (no CPU, a malformed image, a missing volume) and fails minutes
later, so all of it is checked here.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from kaos_runner.errors import Problem
from kaos_runner.recipe.model import HOST_PATH, BackendConfig, Duration, Frozen, Size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kaos_runner.recipe.model import Recipe

IMAGE = "python:3.12-slim"
IMAGE_ENV = "BOXLITE_IMAGE"
KEY_ENV = "BOXLITE_API_KEY"
URL_ENV = "BOXLITE_REST_URL"
PREFIX_ENV = "BOXLITE_REST_PATH_PREFIX"
HOME_ENV = "BOXLITE_HOME"
KVM = Path("/dev/kvm")
ELSEWHERE = "name a BoxLite server with `backend.url`, or rehearse with `--backend local`"

MIB = 2**20
GIB = 2**30
NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
# registry host, path, tag, digest: the grammar of an OCI reference
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9-]+)*(?::[0-9]+)?/)?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"{_HOST}{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)

type Variable = Annotated[str, Field(pattern=VARIABLE_PATTERN, title="Host variable")]


class Volume(Frozen):
    """A directory or file of this machine, mounted into the box."""

    from_: str = Field(alias="from", examples=["./cache"], json_schema_extra=HOST_PATH)
    """The host's directory or file, relative to the recipe."""
    to: str = Field(pattern=r"^/.*[^/]$", examples=["/root/.cache"])
    """Where it appears in the box; absolute."""
    read_only: bool = True
    """Whether the box may not write to it."""


class Registry(Frozen):
    """A registry that images are pulled from, besides the public ones."""

    host: str = Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?$", examples=["registry.example:5000"])
    """Its host, and its port where that is not the usual one."""
    plain_http: bool = False
    """Whether it is spoken to without TLS: on loopback only."""
    search: bool = False
    """Whether images without a host are looked for in it."""
    username: str | None = None
    """Who is to pull."""
    password_env: Variable | None = Field(None, examples=["REGISTRY_PASSWORD"])
    """The name of the host variable that holds the password."""


class BoxliteConfig(BackendConfig):
    """A micro-VM by BoxLite: on this machine, or on a BoxLite server where `url` is set."""

    type: Literal["boxlite"] = "boxlite"
    box: str | None = Field(None, pattern=NAME_PATTERN, examples=["my-box"])
    """The id or name of a box to connect to, started if it is stopped and never removed; else one
    is created."""
    url: str | None = Field(None, examples=["https://boxlite.example"])
    """The BoxLite server. Defaults to `BOXLITE_REST_URL`; else boxes run on this machine."""
    api_key_env: Variable = KEY_ENV
    """The name of the host variable that holds the server's key."""
    path_prefix: str | None = Field(None, max_length=128, examples=["team-42"])
    """The server's routing prefix. Defaults to `BOXLITE_REST_PATH_PREFIX`."""
    home: str | None = Field(None, examples=["/var/lib/boxlite"])
    """The directory with the boxes and images of this machine; one process at a time can use it.
    Defaults to `BOXLITE_HOME`, then to `~/.boxlite`."""
    rootfs: str | None = Field(None, examples=["./image"], json_schema_extra=HOST_PATH)
    """A directory with an OCI image layout, relative to the recipe, instead of `image`."""
    cpus: int = Field(2, ge=1, le=32)
    """Virtual CPUs."""
    memory: Size = Field(2 * GIB, ge=128 * MIB, json_schema_extra={"default": "2GiB"})
    """The box's memory."""
    disk: Size | None = Field(None, ge=GIB, examples=["10GiB"])
    """The box's disk; it takes only the room that is used."""
    user: str | None = Field(None, pattern=r"^[a-zA-Z0-9_.-]+(:[a-zA-Z0-9_.-]+)?$")
    """Who commands run as, `name` or `uid`, with `:group` if one likes; the image's by default."""
    volumes: tuple[Volume, ...] = ()
    """Parts of this machine that the box may see; only for boxes on this machine."""
    registries: tuple[Registry, ...] = ()
    """Where images come from; only for boxes on this machine."""
    start_timeout: Duration = Field(600.0, json_schema_extra={"default": "10m"})
    """How long pulling the image and starting the box may take."""


def config_of(recipe: Recipe) -> BoxliteConfig:
    """The recipe's own fields for this backend."""
    assert isinstance(recipe.backend, BoxliteConfig)  # the recipe's `type` chose this backend
    return recipe.backend


def server_url(config: BoxliteConfig, environ: Mapping[str, str]) -> str | None:
    """The server's address; None for boxes on this machine."""
    return config.url or environ.get(URL_ENV) or None


def home_of(config: BoxliteConfig | None, environ: Mapping[str, str]) -> Path:
    """The directory of this machine's boxes."""
    given = (config.home if config else None) or environ.get(HOME_ENV)
    return Path(given) if given else Path(environ.get("HOME") or Path.home()) / ".boxlite"


def problems(recipe: Recipe, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Everything that is wrong or missing, found without the network."""
    config = config_of(recipe)
    url = server_url(config, environ)
    if recipe.workdir and not recipe.workdir.startswith("/"):
        yield Problem(path="workdir", message="`workdir` must be absolute in a box")
    chosen = recipe.image not in (None, IMAGE, environ.get(IMAGE_ENV))
    if config.rootfs and chosen:
        message = f"`rootfs` takes the place of the image, and `image` says {recipe.image}"
        yield Problem(path="backend.rootfs", message=message, hint="remove one of them")
    if recipe.image and not config.rootfs and not _IMAGE.fullmatch(recipe.image):
        yield Problem(
            path="image",
            message=f"{recipe.image!r} is not the name of an OCI image",
            hint="write it like python:3.12-slim or ghcr.io/owner/name:tag",
        )
    if url:
        yield from _of_server(url, recipe, environ)
    else:
        yield from _of_machine(environ)
        yield from _of_files(config)
        yield from _of_registries(config, environ)


def _of_server(url: str, recipe: Recipe, environ: Mapping[str, str]) -> Iterator[Problem]:
    config = config_of(recipe)
    path = "backend.url" if config.url else ""
    for name in ("rootfs", "volumes", "registries", "home"):
        if getattr(config, name):
            message = f"`{name}` belongs to boxes on this machine, and a BoxLite server is used"
            hint = "remove it, or the server's address (`backend.url`, BOXLITE_REST_URL)"
            yield Problem(path=f"backend.{name}", message=message, hint=hint)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        hint = "write it like https://boxlite.example"
        yield Problem(path=path, message=f"{url!r} is not the address of a server", hint=hint)
        return
    key = environ.get(config.api_key_env)
    loopback = is_loopback(parts.hostname)
    if not key and (config.api_key_env != KEY_ENV or not loopback):
        hint = f"export {config.api_key_env}, or name another variable with `backend.api_key_env`"
        message = f"the BoxLite server's key is missing: {config.api_key_env} is not set"
        yield Problem(message=message, hint=hint)
    if parts.scheme == "http" and not loopback and (key or recipe.secrets):
        message = f"secrets would travel in clear to {parts.hostname}"
        yield Problem(path=path, message=message, hint="use https")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _of_machine(environ: Mapping[str, str]) -> Iterator[Problem]:
    fault = kvm_fault()
    if fault:
        yield Problem(message=fault[0], hint=fault[1])
    home = home_of(None, environ)
    if not home.is_absolute():
        yield Problem(message=f"{HOME_ENV} must be an absolute path, and is {str(home)!r}")


def kvm_fault() -> tuple[str, str] | None:
    """Why no micro-VM can start on this machine, and what to do; None says only that one may."""
    if sys.platform != "linux":
        return None
    if not KVM.exists():
        return (
            "this machine has no KVM: there is no /dev/kvm",
            f"switch virtualisation on in the firmware, `modprobe kvm`; or {ELSEWHERE}",
        )
    if not os.access(KVM, os.R_OK | os.W_OK):
        return (
            "/dev/kvm may not be used by this user",
            f"`sudo usermod -aG kvm $USER` and log in again; or {ELSEWHERE}",
        )
    return None


def _of_files(config: BoxliteConfig) -> Iterator[Problem]:
    if config.home is not None and not Path(config.home).is_absolute():
        yield Problem(path="backend.home", message="`home` must be an absolute path")
    if config.rootfs is not None and not (Path(config.rootfs) / "oci-layout").is_file():
        message = f"{config.rootfs} is not an OCI image layout: it has no file `oci-layout`"
        hint = "make one with `skopeo copy docker://python:3.12-slim oci:image`"
        yield Problem(path="backend.rootfs", message=message, hint=hint)
    for index, volume in enumerate(config.volumes):
        if not Path(volume.from_).exists():
            message = f"there is no {volume.from_} on this machine"
            yield Problem(path=f"backend.volumes[{index}].from", message=message)


def _of_registries(config: BoxliteConfig, environ: Mapping[str, str]) -> Iterator[Problem]:
    for index, registry in enumerate(config.registries):
        path = f"backend.registries[{index}]"
        if (registry.username is None) != (registry.password_env is None):
            yield Problem(path=path, message="`username` and `password_env` go together")
        if registry.password_env and not environ.get(registry.password_env):
            message = f"a registry's password is missing: {registry.password_env} is not set"
            yield Problem(message=message, hint=f"export {registry.password_env}")
        if registry.plain_http and not is_loopback(registry.host.partition(":")[0]):
            message = f"{registry.host} would be spoken to without TLS"
            hint = "`plain_http` is for a registry on this machine"
            yield Problem(path=f"{path}.plain_http", message=message, hint=hint)
