"""What is asked of BoxLite for a recipe: the box's name and its options."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from kaos_runner.backends.base import OwnedSandbox
from kaos_runner.backends.boxlite_config import GIB, MIB, config_of
from kaos_runner.kaos.boxlite_sdk import sdk

if TYPE_CHECKING:
    from kaos_runner.backends.base import Labels, SandboxRequest
    from kaos_runner.backends.boxlite_listing import Listed
    from kaos_runner.recipe.model import Network

PREFIX = "kaos-runner"
IDLE_SECONDS = 600
"""How much longer than the recipe's wall limit a server keeps an idle box running."""


def box_name(labels: Labels) -> str:
    """The labels as a name: letters, digits, `.`, `_` and `-`, at most 128 of them."""
    recipe = re.sub(r"[^A-Za-z0-9_-]", "-", labels.recipe)[:60]
    return f"{PREFIX}.{labels.run_id}.{labels.digest.rpartition(':')[2][:12]}.{recipe}"


def owned(box: Listed) -> OwnedSandbox | None:
    """The box as one of ours, if its name says so."""
    prefix, _, rest = box.name.partition(".")
    if prefix != PREFIX or rest.count(".") < 2:
        return None
    run_id, _digest, recipe = rest.split(".", 2)
    return OwnedSandbox(
        backend="boxlite",
        id=box.id,
        run_id=run_id,
        recipe=recipe,
        created_at=box.created_at,
        state=box.state,
    )


def options(request: SandboxRequest, *, remote: bool) -> object:
    """The SDK's options; secrets are no part of them, they go to each command."""
    recipe, config = request.recipe, config_of(request.recipe)
    # A server stops an idle box after 15 minutes of its own accord, whatever runs in it.
    idle = {"auto_stop": math.ceil(recipe.limits.wall) + IDLE_SECONDS} if remote else {}
    return sdk().BoxOptions(
        image=None if config.rootfs else recipe.image,
        rootfs_path=config.rootfs,
        cpus=config.cpus,
        memory_mib=config.memory // MIB,
        disk_size_gb=config.disk and math.ceil(config.disk / GIB),
        volumes=[(volume.from_, volume.to, volume.read_only) for volume in config.volumes],
        network=_network(recipe.network),
        user=config.user,
        auto_remove=False,
        **idle,
    )


def _network(network: Network) -> object:
    return sdk().NetworkSpec(outbound=outbound(network))


def outbound(network: Network) -> object:
    closed = network.default == "deny" and not network.allow
    return sdk().OutboundNetworkSpec(
        mode="disabled" if closed else "enabled",
        allow_net=list(network.allow) if network.default == "deny" else [],
    )
