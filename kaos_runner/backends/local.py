"""Sandboxes on this machine: a directory for each run, isolated by bubblewrap where that works."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from kaos_runner.backends.base import Defaults, Diagnosis, Feature, OwnedSandbox
from kaos_runner.errors import PrerequisiteError, Problem, SandboxError
from kaos_runner.recipe.model import BackendConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from kaos_runner.backends.base import Labels, SandboxRequest
    from kaos_runner.backends.local_sandbox import LocalSandbox, Place
    from kaos_runner.recipe.model import Recipe

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NONE_HINT = "`--isolation none` runs it without, with all that your user may do"
UNSAFE_WORKDIRS = (
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root",
    "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var",
)  # fmt: skip


class LocalConfig(BackendConfig):
    """A sandbox on this machine."""

    type: Literal["local"] = "local"
    isolation: Literal["auto", "bubblewrap"] = "auto"
    """`bubblewrap` never goes without it. `auto` does for a cassette of the recipe's own work
    tree; `none` is the command line's word alone: `--isolation none`."""


class LocalBackend:
    """Makes, finds and ends sandboxes on this machine."""

    name: ClassVar[str] = "local"
    config: ClassVar[type[BackendConfig]] = LocalConfig
    defaults: ClassVar[Defaults] = Defaults(workdir=None)
    features: ClassVar[Mapping[str, Feature]] = {
        "image": Feature("refuses", "a local sandbox has the machine's own programs"),
        "workdir": Feature("honours", "a new directory by default; one of yours is never deleted"),
        "network.default": Feature("honours", "`deny` needs bubblewrap"),
        "network.allow": Feature("refuses", "a local sandbox has the whole network or none"),
        "network.deny": Feature("refuses", "a local sandbox has the whole network or none"),
    }
    environ: ClassVar[Sequence[str]] = ()

    def sandbox_id(self, recipe: Recipe, environ: Mapping[str, str]) -> str | None:  # noqa: ARG002
        """None: a run makes its own."""
        return None

    def problems(self, recipe: Recipe, environ: Mapping[str, str]) -> list[Problem]:
        """Fields that a local sandbox cannot honour, and a platform without isolation."""
        found = []
        for part in ("allow", "deny"):
            if getattr(recipe.network, part):
                message = "a local sandbox has the whole network or none, not single hosts"
                found.append(Problem(path=f"network.{part}", message=message))
        if recipe.image is not None:
            message = "a local sandbox has no image: it has the machine's own programs"
            found.append(Problem(path="image", message=message))
        if recipe.workdir is not None and (fault := _workdir_fault(recipe.workdir, environ)):
            found.append(Problem(path="workdir", message=fault))
        if sys.platform != "linux" and _config(recipe).isolation == "bubblewrap":
            found.append(Problem(message="there is no bubblewrap on this platform"))
        return found

    # -- create and connect

    async def create(self, request: SandboxRequest, labels: Labels) -> LocalSandbox:
        """Make a directory with work/, home/ and tmp/ in it, and start the sandbox there.

        Raises:
            PrerequisiteError: it cannot be isolated as asked for, with what to do about it.
            SandboxError: anything else.
        """
        from kaos_runner.backends import local_sandbox

        isolation = await _isolation(request)
        try:
            place = local_sandbox.make(labels, request.recipe.workdir)
        except OSError as error:
            msg = f"the local sandbox cannot be made: {error}"
            raise SandboxError(msg) from error
        try:
            return await _open(place, request, isolation)
        except BaseException:
            await local_sandbox.remove(place)
            raise

    async def connect(self, request: SandboxRequest, sandbox_id: str) -> LocalSandbox:
        """Start a sandbox in a directory that was kept; its processes ended with the last run.

        Raises:
            SandboxError: there is no such directory, or none of ours.
        """
        from kaos_runner.backends import local_sandbox

        place = local_sandbox.find(Path(sandbox_id))
        if place is None:
            msg = f"there is no local sandbox {sandbox_id}"
            raise SandboxError(msg, hint="`kaos-runner runs` lists what was kept")
        return await _open(place, request, await _isolation(request))

    # -- what there is

    async def owned(self, environ: Mapping[str, str]) -> AsyncIterator[OwnedSandbox]:  # noqa: ARG002
        """Every directory of ours under the directory for temporary files."""
        from kaos_runner.backends import local_sandbox

        for place in local_sandbox.places(Path(tempfile.gettempdir())):
            yield OwnedSandbox(
                backend=self.name,
                id=str(place.root),
                run_id=place.labels["kaos-runner-run-id"],
                recipe=place.labels["kaos-runner-recipe"],
                created_at=place.created_at,
                state="in use" if place.in_use() else "kept",
            )

    def connect_command(self, sandbox_id: str) -> str:
        """Go to its working directory."""
        from shlex import quote

        from kaos_runner.backends import local_sandbox

        place = local_sandbox.find(Path(sandbox_id))
        return f"cd {quote(str(place.workdir) if place else sandbox_id)}"

    def remove_command(self, sandbox_id: str) -> str:
        """Delete the directory, with what the agent made unwritable."""
        from shlex import quote

        directory = quote(sandbox_id)
        return f"chmod -R u+rwX {directory}; rm -rf {directory}"

    async def diagnose(self, environ: Mapping[str, str], *, online: bool) -> list[Diagnosis]:  # noqa: ARG002
        """Whether bubblewrap works here, and if not, what to do."""
        from kaos_runner.backends import bubblewrap

        finding = await bubblewrap.examine()
        if finding.works:
            detail = f"{finding.reason} isolates local sandboxes"
            return [Diagnosis(subject="bubblewrap", ok=True, detail=detail)]
        hint = f"{finding.hint}; {NONE_HINT}" if finding.hint else NONE_HINT
        return [Diagnosis(subject="bubblewrap", ok=False, detail=finding.reason, hint=hint)]


async def _isolation(request: SandboxRequest) -> Literal["bubblewrap", "none"]:
    """What isolates the sandbox; an error where it has to be isolated and cannot be."""
    from kaos_runner.backends import bubblewrap

    wanted = request.isolation or _config(request.recipe).isolation
    finding = None if wanted == "none" else await bubblewrap.examine()
    if finding is not None and finding.works:
        return "bubblewrap"
    if finding is None or (wanted == "auto" and request.allow_unisolated):
        if request.recipe.network.default == "deny":
            msg = "`network: deny` cannot be kept on this machine without bubblewrap"
            raise PrerequisiteError(msg, hint=finding.hint if finding else None)
        return "none"
    msg = f"a local sandbox cannot be isolated: {finding.reason}"
    hint = NONE_HINT if wanted == "auto" else None
    hints = [part for part in (finding.hint, hint) if part]
    raise PrerequisiteError(msg, hint="; ".join(hints) or None)


async def _open(
    place: Place, request: SandboxRequest, isolation: Literal["bubblewrap", "none"]
) -> LocalSandbox:
    """Start the sandbox's first process and bind a Kaos to it."""
    from kaos_runner.backends import bubblewrap
    from kaos_runner.backends.local_sandbox import LocalSandbox
    from kaos_runner.kaos.local import LocalTransport
    from kaos_runner.kaos.posix import PosixKaos

    network = request.recipe.network.default == "allow"
    wrapper = [] if isolation == "none" else bubblewrap.wrapper(place.view(network=network))
    environ = {"PATH": PATH, "HOME": str(place.home), "LANG": "C.UTF-8", "TERM": "dumb"}
    environ |= {**request.recipe.env, **request.secrets}
    place.lock()
    try:
        transport = await LocalTransport.open(wrapper, environ, on_lost=request.on_lost)
    except OSError as error:
        place.unlock()
        msg = f"the local sandbox does not start: {error}"
        raise SandboxError(msg) from error
    except BaseException:
        place.unlock()
        raise
    kaos = PosixKaos(
        transport, name="kaos-runner-local", home=environ["HOME"], cwd=str(place.workdir)
    )
    return LocalSandbox(place, kaos, transport, isolation)


def _workdir_fault(workdir: str, environ: Mapping[str, str]) -> str | None:
    path = Path(workdir)
    if not path.is_absolute():
        return "`workdir` must be absolute on the local backend; leave it out for a new directory"
    if str(path) in UNSAFE_WORKDIRS or ".." in path.parts or str(path) == environ.get("HOME"):
        return f"`{workdir}` as the workdir would hand much more than a project to the agent"
    return None


def _config(recipe: Recipe) -> LocalConfig:
    assert isinstance(recipe.backend, LocalConfig)  # told apart by its type
    return recipe.backend
