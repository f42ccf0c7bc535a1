"""The seam that a backend implements; third parties register theirs under `kaos_runner.backends`.

A backend's module is imported for every `validate`, so it imports no provider SDK at module level.
Every exception of
a provider is mapped at the backend's boundary to an error of `kaos_runner.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime, timedelta

    from kaos import Kaos

    from kaos_runner.errors import Problem, SandboxLostError
    from kaos_runner.recipe.model import BackendConfig, Cleanup, Recipe

Support = Literal["honours", "emulates", "refuses"]
Isolation = Literal["auto", "bubblewrap", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a recipe gets on this backend where it says nothing."""

    workdir: str | None
    """Absolute; None for a directory that the backend makes."""
    image: str | None = None
    image_env: str | None = None
    """A provider variable that gives the image, such as `BOXLITE_IMAGE`."""
    has_image: bool = False
    cleanup: Cleanup = "always"
    cleanup_env: tuple[str, Cleanup] | None = None
    """A provider variable that, set to `1`, stands for another policy: `SPRITE_DELETE_ON_EXIT`."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Whether a backend can do what a field of the recipe asks, and why or how."""

    support: Support
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What every sandbox of ours carries, so that it can be found again."""

    run_id: str
    recipe: str
    digest: str
    version: str

    def as_dict(self) -> dict[str, str]:
        """Label names with values, as providers store them."""
        return {
            "kaos-runner-run-id": self.run_id,
            "kaos-runner-recipe": self.recipe,
            "kaos-runner-digest": self.digest,
            "kaos-runner-version": self.version,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """Everything that create and connect need, resolved: the recipe, and what it may not hold
    itself."""

    recipe: Recipe
    environ: Mapping[str, str]
    """The host's variables as they were at the start; provider keys are read from here, never from
    `os.environ`."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Name and value of each of `recipe.secrets`: part of the sandbox's environment."""
    isolation: Isolation | None = None
    """The command line's word; local only."""
    allow_unisolated: bool = False
    """Whether `auto` may do without isolation where there is none: only a cassette of the recipe's
    own work tree plays, so what runs is as much to be trusted as the recipe itself."""
    notify: Callable[[str, str], None] = lambda _level, _message: None
    """Tells the user: level (`info`, `warning`) and message."""
    on_retry: Callable[[str, int, str, float], None] = lambda _op, _attempt, _reason, _wait: None
    """Tells of a transient failure that is tried again: operation, attempt from 1, reason, seconds
    of waiting."""
    on_lost: Callable[[SandboxLostError], None] = lambda _error: None
    """Called once, by the Kaos, when it finds that the sandbox is gone: tools swallow an OSError,
    the run must not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedSandbox:
    """A sandbox that carries our labels, as the provider lists it."""

    backend: str
    id: str
    run_id: str
    recipe: str
    created_at: datetime | None
    state: str


class Sandbox(Protocol):
    """One live sandbox."""

    id: str
    """The provider's; enough to connect again."""
    kaos: Kaos
    """KAOS bound to this sandbox, its working directory the recipe's workdir, which exists. It
    never ends the sandbox."""
    isolation: str | None
    """What separates it from the host where that is not the provider's business: `bubblewrap`,
    `none`; else None."""

    async def keepalive(self, ttl: timedelta) -> None:
        """Make the provider keep it for at least `ttl` from now; a no-op where nothing expires."""
        ...

    async def detach(self) -> None:
        """Close local handles; the sandbox lives on. Idempotent."""
        ...

    async def suspend(self) -> bool:
        """Keep it as cheaply as the provider can (pause, stop) and detach; False where it simply
        lives on."""
        ...

    async def destroy(self) -> None:
        """Delete and detach; already gone is success."""
        ...


@runtime_checkable
class Checkpointing(Protocol):
    """What a sandbox has besides where its provider can go back in time and the recipe asks for
    it."""

    async def before_run(self) -> None:
        """Called once, after create or connect and before anything is changed."""
        ...

    async def after_failure(self) -> None:
        """Called once after a run that did not succeed: artifacts are home, cleanup comes next.

        Raises:
            SandboxError: the old state could not be brought back.
        """
        ...


class Backend(Protocol):
    """A provider of sandboxes. Made without arguments and without I/O."""

    name: ClassVar[str]
    config: ClassVar[type[BackendConfig]]
    """The mapping form of `backend:`; its `type` is a `Literal` of `name`."""
    defaults: ClassVar[Defaults]
    features: ClassVar[Mapping[str, Feature]]
    """By the path of a recipe field, such as `network.allow`; what is not named is honoured."""
    environ: ClassVar[Sequence[str]]
    """Provider variables that work without a line in the recipe."""

    def sandbox_id(self, recipe: Recipe, environ: Mapping[str, str]) -> str | None:
        """The sandbox to connect to, from the recipe's own fields or a provider variable; None
        means create."""
        ...

    def problems(self, recipe: Recipe, environ: Mapping[str, str]) -> list[Problem]:
        """Everything missing or unusable, found without the network: keys, packages, devices,
        fields.

        A problem about a field of the recipe names it in `path`, and the loader finds its place. A
        problem about
        the machine (a key, a package, a device) has an empty `path`: exit code 3, where the others
        mean 2.
        """
        ...

    async def create(self, request: SandboxRequest, labels: Labels) -> Sandbox:
        """Make a sandbox with its workdir; if it raises or is cancelled, nothing is left behind.

        Raises:
            PrerequisiteError: the provider refuses the key, or cannot be reached at all.
            SandboxError: anything else.
        """
        ...

    async def connect(self, request: SandboxRequest, sandbox_id: str) -> Sandbox:
        """Take up an existing sandbox, waking it when it sleeps.

        Raises:
            SandboxError: it does not exist any more, or does not answer.
        """
        ...

    def owned(self, environ: Mapping[str, str]) -> AsyncIterator[OwnedSandbox]:
        """Every sandbox that carries our labels, over all pages."""
        ...

    def connect_command(self, sandbox_id: str) -> str:
        """The shell command by which a person comes back to a kept sandbox."""
        ...

    def remove_command(self, sandbox_id: str) -> str:
        """The shell command that removes it by hand."""
        ...

    async def diagnose(self, environ: Mapping[str, str], *, online: bool) -> list[Diagnosis]:
        """What `doctor` says about this backend on this machine; asks servers only when
        `online`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One line of `doctor`."""

    subject: str
    ok: bool | None
    """None: not needed, or not asked."""
    detail: str
    hint: str | None = None
