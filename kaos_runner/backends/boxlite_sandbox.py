"""One live box, as the runner holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos_runner.backends.boxlite_errors import mapped
from kaos_runner.errors import SandboxError
from kaos_runner.kaos.boxlite import BoxliteTransport
from kaos_runner.kaos.boxlite_sdk import CALL_SECONDS, call
from kaos_runner.kaos.posix import PosixKaos

if TYPE_CHECKING:
    from datetime import timedelta

    from kaos_runner.backends.base import SandboxRequest
    from kaos_runner.backends.boxlite_runtime import Place
    from kaos_runner.kaos.boxlite_sdk import Box, Runtime

STOP_SECONDS = 60.0
"""How long a stop or a removal may take: the guest has ten seconds to shut down."""
GONE = frozenset({"stopping", "stopped", "failed"})

LACKS = 41
# $1 the workdir; prints the user's HOME. What the Kaos needs is looked for first.
PREPARE = rf"""for t in base64 cat dd find head mkdir setsid stat tail; do
command -v "$t" >/dev/null 2>&1 || {{ echo "$t" >&2; exit {LACKS}; }}; done
h=${{HOME:-}} me=$(id -u)
[ -n "$h" ] || while IFS=: read -r n p u g c d s; do [ "$u" = "$me" ] && h=$d; done </etc/passwd
mkdir -p "$1" && cd "$1" && printf %s "${{h:-/}}"
"""


class BoxliteSandbox:
    """A box that was created here, or one that was there before."""

    isolation = None

    def __init__(
        self, place: Place, box: Box, kaos: PosixKaos, transport: BoxliteTransport
    ) -> None:
        self.id = box.id
        self.kaos = kaos
        self._place, self._box, self._transport = place, box, transport

    async def keepalive(self, ttl: timedelta) -> None:
        """A box does not expire; one on a server outlasts the recipe's wall limit."""

    async def detach(self) -> None:
        """Kill what was started here, and let go; the box lives on."""
        await self._let_go()
        await self._place.release()

    async def suspend(self) -> bool:
        """Stop it: its disk is kept, and it costs no memory."""
        await self._let_go()
        try:
            await call("stop box", self._box.stop, seconds=STOP_SECONDS)
        except (RuntimeError, TimeoutError) as error:
            raise mapped(error, f"stop the box {self.id}") from error
        finally:
            await self._place.release()
        return True

    async def destroy(self) -> None:
        """Remove it with its disk; gone already is a success."""
        await self._let_go()
        try:
            await remove(self._place.runtime, self.id)
        finally:
            await self._place.release()

    async def _let_go(self) -> None:
        await self.kaos.aclose()
        await self._transport.aclose()


async def remove(runtime: Runtime, id_or_name: str) -> None:
    """Remove a box, running or not; one that is gone already is a success.

    Raises:
        SandboxError: it may still be there.
    """
    try:
        await call(
            "remove box", lambda: runtime.remove(id_or_name, force=True), seconds=STOP_SECONDS
        )
    except (RuntimeError, TimeoutError) as error:
        if getattr(error, "code", "") != "not_found":
            raise mapped(error, f"remove the box {id_or_name}") from error


async def open_box(place: Place, box: Box, request: SandboxRequest, workdir: str) -> BoxliteSandbox:
    """A running box with its workdir made and its Kaos.

    Raises:
        SandboxError: the image lacks what is needed, or the workdir cannot be made.
    """
    recipe = request.recipe
    env = {"LANG": "C.UTF-8", "TERM": "dumb", **recipe.env, **request.secrets}
    try:
        home = await _prepare(box, env, workdir)
    except (RuntimeError, TimeoutError) as error:
        raise mapped(error, "prepare the box") from error

    async def alive() -> bool:
        info = await place.runtime.get_info(box.id)
        return info is not None and info.state.status not in GONE

    transport = BoxliteTransport(
        box,
        env={"HOME": home, **env},
        alive=alive,
        on_lost=request.on_lost,
        on_retry=request.on_retry,
    )
    kaos = PosixKaos(transport, name="boxlite", home=home, cwd=workdir)
    return BoxliteSandbox(place, box, kaos, transport)


async def _prepare(box: Box, env: dict[str, str], workdir: str) -> str:
    """Make the workdir; the user's HOME."""
    args = ["-c", PREPARE, "sh", workdir]
    execution = await call("exec", lambda: box.exec("sh", args, list(env.items())))

    async def finish() -> tuple[str, str, int]:
        await execution.stdin().close()
        said = "".join([frame async for frame in execution.stdout()])
        told = "".join([frame async for frame in execution.stderr()]).strip()
        return said, told, (await execution.wait()).exit_code

    said, told, code = await call("exec", finish, seconds=CALL_SECONDS)
    if code == LACKS:
        msg = f"the image has no `{told}`: sh, and coreutils and util-linux or busybox, are needed"
        raise SandboxError(msg, hint="choose an image like python:3.12-slim or alpine")
    if code:
        msg = f"cannot make the workdir {workdir}: {told or f'exit code {code}'}"
        raise SandboxError(msg, hint="choose a `workdir` that the box's user can write")
    return said
