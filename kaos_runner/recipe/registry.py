"""The registered backends, ours and third parties', found by entry point."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kaos_runner.recipe.model import BackendConfig

GROUP = "kaos_runner.backends"


class BackendInfo(Protocol):
    """What the recipe language needs to know of a backend; `kaos_runner.backends.base.Backend` has
    it all."""

    name: str
    config: type[BackendConfig]
    defaults: Any
    features: Any


@cache
def backend_classes() -> dict[str, type[Any]]:
    """Every registered backend's class by name, sorted; modules are imported, provider SDKs are
    not."""
    found = {entry.name: entry.load() for entry in entry_points(group=GROUP)}
    return dict(sorted(found.items()))
