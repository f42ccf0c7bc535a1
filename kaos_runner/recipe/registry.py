"""The registered backends, ours and third parties', found by entry point."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kaos_runner.recipe.model import BackendConfig

GROUP = "kaos_runner.backends"


class BackendInfo(Protocol):
    """What the recipe language needs to know of a backend; `Backend` in `backends.base` has it
    all."""

    name: str
    config: type[BackendConfig]
    defaults: Any
    features: Any


@cache
def backend_classes() -> dict[str, type[Any]]:
    """Every registered backend's class by name, sorted.

    Their modules are imported, provider SDKs are not. One that cannot be imported is left out:
    `broken_backends` says why.
    """
    return {name: found for name, found in _found().items() if not isinstance(found, str)}


def broken_backends() -> dict[str, str]:
    """Every registered backend that cannot be used, with the reason."""
    return {name: found for name, found in _found().items() if isinstance(found, str)}


@cache
def _found() -> dict[str, Any]:
    # Ours win over a third party that takes one of our names.
    entries = sorted(entry_points(group=GROUP), key=lambda entry: not _is_ours(entry))
    found: dict[str, Any] = {}
    for entry in entries:
        if entry.name not in found:
            found[entry.name] = _load(entry)
    return dict(sorted(found.items()))


def _is_ours(entry: EntryPoint) -> bool:
    return entry.value.startswith("kaos_runner.")


def _load(entry: EntryPoint) -> Any:
    try:
        backend = entry.load()
    except Exception as error:  # whatever a third party's module raises must not stop the others
        return f"{type(error).__name__}: {error}"
    needed = ("name", "config", "defaults", "features")
    missing = [name for name in needed if not hasattr(backend, name)]
    return f"it has no {', '.join(missing)}" if missing else backend
