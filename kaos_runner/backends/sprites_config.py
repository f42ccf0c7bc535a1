"""What a recipe may say about Sprites, and what of it cannot be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kaos_runner.errors import Problem
from kaos_runner.recipe.model import BackendConfig, Size

if TYPE_CHECKING:
    from sprites.types import NetworkPolicy

    from kaos_runner.recipe.model import Network, Recipe

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$"
"""The name and the organisation's must fit one DNS label together."""


_ADDRESS = re.compile(r"^[0-9.]+(/[0-9]+)?$|:|/")


class SpritesConfig(BackendConfig):
    """A sandbox in Fly.io Sprites."""

    type: Literal["sprites"] = "sprites"
    name: str | None = Field(default=None, pattern=NAME_PATTERN)
    """The sprite to connect to, never deleted. Defaults to `SPRITE_NAME`; else one is created."""
    create_as: str | None = Field(default=None, pattern=NAME_PATTERN)
    """The name of the sprite that is created. Defaults to `kimi-agent-` and eight characters."""
    region: str | None = None
    """Where it is created; the service may ignore it."""
    cpus: int | None = Field(default=None, ge=1)
    """The service may ignore it."""
    memory: Size | None = None
    """The service may ignore it."""
    storage: Size | None = None
    """The service may ignore it."""
    wait_for_capacity: bool = False
    """Wait until there is room for one more sprite, rather than fail."""
    url: Literal["sprite", "public"] | None = None
    """Who may open the sprite's URL: the organisation's members, or everybody."""
    checkpoint: Literal["before_run"] | None = None
    """Make a checkpoint of the files before anything is changed."""
    restore: Literal["on_failure"] | None = None
    """Bring that checkpoint back after a run that did not succeed, once the artifacts are home."""


def config_of(recipe: Recipe) -> SpritesConfig:
    """The recipe's own fields for Sprites."""
    assert isinstance(recipe.backend, SpritesConfig)  # the recipe's `type` chose this backend
    return recipe.backend


def of_fields(recipe: Recipe) -> list[Problem]:
    """What cannot be meant, or cannot be done."""
    config, found = config_of(recipe), []
    if recipe.image is not None:
        hint = "leave `image` out, and install what is needed in `setup`"
        found.append(Problem(path="image", message="a sprite has no image", hint=hint))
    if recipe.workdir and not recipe.workdir.startswith("/"):
        found.append(Problem(path="workdir", message="`workdir` must be absolute on Sprites"))
    if config.restore and not config.checkpoint:
        hint = "add `checkpoint: before_run`"
        message = "`restore` needs a checkpoint to go back to"
        found.append(Problem(path="backend.restore", message=message, hint=hint))
    if config.name and config.create_as:
        message = "`name` connects and `create_as` creates: only one can be meant"
        found.append(Problem(path="backend.create_as", message=message))
    return found


def of_hosts(network: Network) -> list[Problem]:
    """Addresses among the hosts: the service filters names."""
    found = []
    for key in ("allow", "deny"):
        for index, host in enumerate(getattr(network, key)):
            if _ADDRESS.search(host):
                message = f"Sprites filters by name, and {host!r} is not one"
                found.append(Problem(path=f"network.{key}[{index}]", message=message))
    return found


def sizes_of(config: SpritesConfig) -> dict[str, int | str]:
    """What the service may ignore, as it calls it."""
    wanted = {
        "region": config.region,
        "cpus": config.cpus,
        "ram_mb": config.memory and max(1, config.memory // 2**20),
        "storage_gb": config.storage and max(1, config.storage // 2**30),
    }
    return {key: value for key, value in wanted.items() if value is not None}


def wishes_of(config: SpritesConfig) -> dict[str, object]:
    """What a create is asked for."""
    from sprites.types import SpriteConfig, URLSettings

    sizes = sizes_of(config)
    return {
        "config": SpriteConfig(**sizes) if sizes else None,  # type: ignore[arg-type]
        "url_settings": URLSettings(auth=config.url) if config.url else None,
        "wait_for_capacity": config.wait_for_capacity,
    }


def policy_of(network: Network) -> NetworkPolicy | None:
    """The policy; None where nothing is restricted, and a connected sprite keeps its own."""
    from sprites.types import NetworkPolicy, PolicyRule

    if network.default == "allow" and not network.deny:
        return None
    listed = network.allow if network.default == "deny" else network.deny
    other = "allow" if network.default == "deny" else "deny"
    rules = [PolicyRule(domain=host, action=other) for host in listed]
    return NetworkPolicy([*rules, PolicyRule(domain="*", action=network.default)])
