"""Sandboxes in E2B: micro-VMs made from a template, which live for as long as they are renewed."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import uuid
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kaos_runner.backends.base import Defaults, Diagnosis, Feature, OwnedSandbox
from kaos_runner.errors import KaosRunnerError, Problem, SandboxError
from kaos_runner.kaos.e2b_errors import KEY_HINT
from kaos_runner.recipe.model import BackendConfig, Duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from e2b import AsyncSandbox, SandboxInfo

    from kaos_runner.backends.base import Labels, SandboxRequest
    from kaos_runner.backends.e2b_sandbox import E2bSandbox
    from kaos_runner.backends.e2b_service import E2bService
    from kaos_runner.kaos.e2b import E2bTransport
    from kaos_runner.recipe.model import Network, Recipe

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"

UNDO_PATIENCE = 30.0
"""Seconds that a cancelled create may take to end, before what it left is looked for."""

_RUN, _RECIPE = "kaos-runner-run-id", "kaos-runner-recipe"


class E2bConfig(BackendConfig):
    """A sandbox in E2B. Its template is the recipe's `image`."""

    type: Literal["e2b"] = "e2b"
    sandbox_id: str | None = Field(default=None, pattern=ID_PATTERN)
    """The sandbox to connect to, woken if it is paused and never deleted. Defaults to
    `E2B_SANDBOX_ID`; else one is created."""
    timeout: Duration = 900.0
    """How long the sandbox outlives the run's last sign of life; a live run renews it.
    E2B allows one hour at most, or 24 with a Pro account."""
    on_timeout: Literal["kill", "pause"] = "kill"
    """What E2B does when that time is up. A paused sandbox keeps its files and its memory."""


class E2bBackend:
    """Makes, finds and ends E2B sandboxes."""

    name: ClassVar[str] = "e2b"
    config: ClassVar[type[BackendConfig]] = E2bConfig
    defaults: ClassVar[Defaults] = Defaults(
        workdir="/home/user/kimi-workdir", image="base", has_image=True
    )
    features: ClassVar[Mapping[str, Feature]] = {
        "image": Feature("honours", "the name of an E2B template, not of an OCI image"),
        "network.deny": Feature("honours", "addresses and networks only: E2B denies no names"),
        "cleanup": Feature("honours", "what is kept is paused, which is not billed as running"),
    }
    environ: ClassVar[Sequence[str]] = (
        "E2B_API_KEY",
        "E2B_SANDBOX_ID",
        "E2B_DOMAIN",
        "E2B_API_URL",
        "E2B_SANDBOX_URL",
    )

    def sandbox_id(self, recipe: Recipe, environ: Mapping[str, str]) -> str | None:
        """The sandbox to connect to: the recipe's, or `E2B_SANDBOX_ID`."""
        return _config(recipe).sandbox_id or environ.get("E2B_SANDBOX_ID") or None

    def problems(self, recipe: Recipe, environ: Mapping[str, str]) -> list[Problem]:
        """What is missing or cannot be, found without the network."""
        found = _of_network(recipe.network)
        if recipe.workdir and not recipe.workdir.startswith("/"):
            found.append(Problem(path="workdir", message="`workdir` must be absolute on E2B"))
        if _config(recipe).timeout > 24 * 3600:
            message = "E2B keeps no sandbox for more than 24 hours without a renewal"
            found.append(Problem(path="backend.timeout", message=message))
        if not environ.get("E2B_API_KEY"):
            found.append(Problem(message="the E2B API key is missing", hint=KEY_HINT))
        given = environ.get("E2B_SANDBOX_ID")
        if given and not re.fullmatch(ID_PATTERN, given):
            found.append(Problem(message="E2B_SANDBOX_ID is not the id of a sandbox"))
        return found

    # -- create and connect

    async def create(self, request: SandboxRequest, labels: Labels) -> E2bSandbox:
        """Create a sandbox with its workdir; if this fails or is cancelled, it is killed again.

        Raises:
            PrerequisiteError: E2B refuses the key, or cannot be reached.
            SandboxError: anything else.
        """
        config, service = _config(request.recipe), _service(request)
        metadata = labels.as_dict()
        creating = asyncio.ensure_future(
            service.create(
                request.recipe.image or "base",
                timeout=math.ceil(config.timeout),
                on_timeout=config.on_timeout,
                network=request.recipe.network,
                metadata=metadata,
                key=str(uuid.uuid4()),
            )
        )
        try:
            sandbox = await asyncio.shield(creating)
            return await _open(service, sandbox, request, created=True)
        except BaseException:
            service.stop()
            left = await _finished(_undo(_service(request), creating, metadata))
            if left is not None:
                where = f"look at https://e2b.dev/dashboard for {_RUN}={labels.run_id}"
                request.notify("warning", f"a sandbox may be left behind ({left}); {where}")
            raise

    async def connect(self, request: SandboxRequest, sandbox_id: str) -> E2bSandbox:
        """Take up a sandbox; a paused one is resumed.

        Raises:
            SandboxError: it does not exist any more, or does not answer.
        """
        service = _service(request)
        seconds = math.ceil(_config(request.recipe).timeout)
        sandbox = await service.connect(sandbox_id, seconds)
        await service.restrict(sandbox, request.recipe.network)
        return await _open(service, sandbox, request, created=False)

    # -- what there is

    async def owned(self, environ: Mapping[str, str]) -> AsyncIterator[OwnedSandbox]:
        """Every sandbox that carries our labels, running or paused, over all pages."""
        from kaos_runner.backends.e2b_service import E2bService

        async for info in E2bService(environ).all():
            if _RUN in info.metadata:
                yield _owned(info)

    def connect_command(self, sandbox_id: str) -> str:
        """A terminal in the sandbox, by E2B's own command line; it resumes a paused one."""
        return f"npx @e2b/cli sandbox connect {sandbox_id}"

    def remove_command(self, sandbox_id: str) -> str:
        """Its end by hand, by the SDK that is installed beside us."""
        return f"python -c 'import e2b; e2b.Sandbox.kill(\"{sandbox_id}\")'"

    async def diagnose(self, environ: Mapping[str, str], *, online: bool) -> list[Diagnosis]:
        """The SDK and the key, and with `online` whether E2B takes it."""
        from importlib.metadata import version

        found = [Diagnosis(subject="e2b SDK", ok=True, detail=version("e2b"))]
        key = bool(environ.get("E2B_API_KEY"))
        detail = "E2B_API_KEY is set" if key else "E2B_API_KEY is not set"
        hint = None if key else KEY_HINT
        found.append(Diagnosis(subject="e2b key", ok=key, detail=detail, hint=hint))
        if online and key:
            found.append(await _asked(environ))
        return found


def _config(recipe: Recipe) -> E2bConfig:
    assert isinstance(recipe.backend, E2bConfig)  # the recipe's `type` chose this backend
    return recipe.backend


def _service(request: SandboxRequest) -> E2bService:
    from kaos_runner.backends.e2b_service import E2bService

    return E2bService(request.environ, request.on_retry)


def _of_network(network: Network) -> list[Problem]:
    """What E2B's firewall cannot do: names can be allowed, but not denied."""
    found = []
    for index, host in enumerate(network.deny):
        try:
            ipaddress.ip_network(host, strict=False)
        except ValueError:
            message = f"E2B denies addresses and networks only, and {host!r} is a name"
            hint = "write `default: deny` and list under `allow` what must be reachable"
            found.append(Problem(path=f"network.deny[{index}]", message=message, hint=hint))
    return found


async def _open(
    service: E2bService, sandbox: AsyncSandbox, request: SandboxRequest, *, created: bool
) -> E2bSandbox:
    from kaos_runner.backends.e2b_sandbox import E2bSandbox
    from kaos_runner.kaos.e2b import E2bTransport
    from kaos_runner.kaos.e2b_envd import Envd
    from kaos_runner.kaos.posix import PosixKaos

    recipe = request.recipe
    env = {"LANG": "C.UTF-8", "TERM": "dumb", **recipe.env, **request.secrets}
    transport = E2bTransport(Envd(sandbox, env, request.on_lost), request.on_retry)
    workdir = recipe.workdir or E2bBackend.defaults.workdir or "/"
    home = await _make_workdir(transport, workdir)
    kaos = PosixKaos(transport, name=E2bBackend.name, home=home, cwd=workdir)
    timeout = _config(recipe).timeout
    return E2bSandbox(service, sandbox, kaos, transport, timeout=timeout, created=created)


async def _make_workdir(transport: E2bTransport, workdir: str) -> str:
    """Make the workdir, and learn the user's HOME on the way.

    Raises:
        SandboxError: it cannot be made, or nothing in the sandbox answers.
    """
    script = 'mkdir -p "$1" && cd "$1" && printf %s "$HOME"'
    try:
        argv = ["/bin/sh", "-c", script, "sh", workdir]
        done = await transport.run(argv, cwd=None, repeatable=True)
    except OSError as error:
        msg = f"the sandbox was made, but does not answer: {error}"
        raise SandboxError(msg) from error
    said = done.stderr.decode(errors="replace").strip()
    if done.exit_code and "setsid" in said:
        msg = f"the template has no setsid: {said}"
        raise SandboxError(msg, hint="build it on a Debian image, as E2B's own templates are")
    if done.exit_code:
        msg = f"cannot make the workdir {workdir}: {said}"
        raise SandboxError(msg, hint="choose a `workdir` that the template's user can write")
    return done.stdout.decode(errors="replace") or "/home/user"


async def _undo(
    service: E2bService, creating: asyncio.Future[AsyncSandbox], metadata: dict[str, str]
) -> None:
    """Kill whatever a create that failed or was cancelled has made, by its run's label."""
    await asyncio.wait([creating], timeout=UNDO_PATIENCE)  # cut short, it could still succeed
    creating.cancel()
    await asyncio.wait([creating])
    if not creating.cancelled() and creating.exception() is None:
        await service.kill(creating.result().sandbox_id)
    elif _may_have_made_one(creating):
        async for info in service.all({_RUN: metadata[_RUN]}):
            await service.kill(info.sandbox_id)


def _may_have_made_one(creating: asyncio.Future[AsyncSandbox]) -> bool:
    """Whether there may be a sandbox although create failed: the connection broke on the way."""
    import httpx

    if creating.cancelled():
        return True
    cause = getattr(creating.exception(), "__cause__", None)
    return isinstance(cause, httpx.TransportError) and not isinstance(cause, httpx.ConnectError)


async def _finished(work: Coroutine[object, object, None]) -> BaseException | None:
    """Let clean-up come to its end, whatever is cancelled meanwhile; what went wrong in it."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    return None if task.cancelled() else task.exception()


def _owned(info: SandboxInfo) -> OwnedSandbox:
    return OwnedSandbox(
        backend=E2bBackend.name,
        id=info.sandbox_id,
        run_id=info.metadata[_RUN],
        recipe=info.metadata.get(_RECIPE, ""),
        created_at=info.started_at,
        state=info.state.value,
    )


async def _asked(environ: Mapping[str, str]) -> Diagnosis:
    from kaos_runner.backends.e2b_service import E2bService

    try:
        total = len([info async for info in E2bService(environ).all()])
    except KaosRunnerError as error:
        return Diagnosis(subject="e2b service", ok=False, detail=error.message, hint=error.hint)
    return Diagnosis(subject="e2b service", ok=True, detail=f"answers; {total} sandboxes")
