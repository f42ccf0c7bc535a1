"""What a recipe may reach on the host, and which powers it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaos_runner.recipe.names import HOST_TOOLS
from kaos_runner.recipe.nodes import format_path, problem_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kaos_runner.errors import Problem
    from kaos_runner.recipe.nodes import Node
    from kaos_runner.recipe.nodes import Path as Path_
    from kaos_runner.recipe.render import Rendered


MAX_PATH = 4096


@dataclass(frozen=True, slots=True)
class Fence:
    """The folders that a recipe's host paths must resolve into, symlinks followed."""

    roots: tuple[Path, ...]

    @classmethod
    def around(cls, recipe: Path, allowed: Iterable[Path] = ()) -> Fence:
        """The recipe's git work tree, or else its folder, and what the user allows besides."""
        folder = recipe.absolute().parent.resolve()
        tree = next((f for f in (folder, *folder.parents) if (f / ".git").exists()), folder)
        return cls((tree, *(path.resolve() for path in allowed)))

    def holds(self, path: Path) -> bool:
        """Whether the path leads to a place inside."""
        if len(str(path)) > MAX_PATH:
            return False  # no file system takes it, and resolving it takes its time
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError):
            return False
        return any(real.is_relative_to(root) for root in self.roots)


@dataclass(frozen=True, slots=True)
class Power:
    """Something that a recipe may do beyond its sandbox, or that somebody pays for."""

    kind: str
    detail: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail} ({self.path})"


def refuse_powers(document: Node) -> Iterator[Problem]:
    """A problem for each power that an untrusted recipe may not have."""
    for kind, detail, node, path in _found(document):
        yield problem_at(
            node,
            f"an untrusted recipe may not use {detail}",
            hint=f"{kind}; run it without --untrusted if you trust it",
            path=path,
        )


def _found(node: Node, path: Path_ = ()) -> Iterator[tuple[str, str, Node, Path_]]:
    """Every field that gives a power over the host, wherever it stands."""
    for key, value in (node.entries or {}).items():
        below = (*path, key)
        if key.startswith("x-") or (below == ("prompts",) and value.items is None):
            continue
        told = _power(below, key, value)
        if told:
            yield (*told, value, below)
        elif below[-2:] != ("output", "schema"):
            yield from _found(value, below)
    for index, item in enumerate(node.items or ()):
        yield from _found(item, (*path, index))


def _power(path: Path_, key: str, value: Node) -> tuple[str, str] | None:
    if path == ("secrets",):
        return ("it hands host variables to the sandbox", "`secrets`") if value.items else None
    if path[0] == "params":
        return (
            ("it reads a host variable", "`env` of a parameter")
            if key == "env" and len(path) == 3
            else None
        )
    if path[0] == "env":
        return None
    if key.endswith("_env"):
        return "it names a host variable", f"`{key}`"
    if key in ("url", "base_url") or key.endswith("_url"):
        return "it names a server of its own", f"`{key}`"
    if key in ("volumes", "mounts") or path == ("backend", "home"):
        return "it reaches into the host's files", f"`{key}`"
    if path == ("agent", "tools"):
        tools = [item.value for item in value.items or () if item.value in HOST_TOOLS]
        return ("it acts on the host", f"the tool `{tools[0]}`") if tools else None
    return None


def powers(rendered: Rendered) -> list[Power]:
    """Everything that the recipe asks for beyond its own sandbox, for `explain`."""
    recipe = rendered.recipe
    found = [
        Power(kind, detail.replace("`", ""), format_path(path))
        for kind, detail, _, path in _found(rendered.tree)
    ]
    found += [
        Power("it hands a host variable to the sandbox", name, f"secrets[{i}]")
        for i, name in enumerate(recipe.secrets)
    ]
    found = [power for power in found if power.path != "secrets"]
    if recipe.network.default == "allow":
        found.append(Power("network", "the sandbox may reach any host", "network"))
    for index, file in enumerate(recipe.files):
        own = getattr(file, "from_", None) or getattr(file, "git", "")
        found.append(Power("it reads from the host", str(own), f"files[{index}]"))
    if recipe.agent.settings.replay is None:
        key = recipe.agent.settings.api_key_env
        found.append(Power("the model is paid by", f"the owner of {key}", "agent.model"))
    return found
