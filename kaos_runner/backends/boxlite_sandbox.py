"""One live box, as the runner holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos_runner.backends.boxlite_errors import mapped
from kaos_runner.errors import SandboxError
from kaos_runner.kaos.boxlite import BoxliteTransport
from kaos_runner.kaos.boxlite_sdk import call
from kaos_runner.kaos.posix import PosixKaos

if TYPE_CHECKING:
    from datetime import timedelta

    from kaos import Kaos

    from kaos_runner.backends.base import SandboxRequest
    from kaos_runner.backends.boxlite_runtime import Place
    from kaos_runner.kaos.boxlite_sdk import Box, Execution, Runtime

STOP_SECONDS = 60.0
"""How long a stop or a removal may take: the guest has ten seconds to shut down."""
GONE = frozenset({"stopping", "stopped", "failed"})

# $1 the workdir. Prints one line: `home` and the user's, `lacks` and a program that the Kaos needs,
# or `fails` and why; then it waits, since output that comes with the exit may be lost.
PREPARE = r"""say() { printf '%s %s\n' "$1" "$2"; read -r q; exit; }
for t in base64 cat dd find head mkdir setsid stat tail tr; do
command -v "$t" >/dev/null 2>&1 || say lacks "$t"; done
h=${HOME:-} me=$(id -u)
[ -n "$h" ] || while IFS=: read -r n p u g c d s; do [ "$u" = "$me" ] && h=$d; done </etc/passwd
e=$(mkdir -p "$1" 2>&1 && cd "$1" 2>&1) || say fails "$(printf %s "$e" | tr '\n' ' ')"
say home "${h:-/}"
"""


class BoxliteSandbox:
    """A box that was created here, or one that was there before."""

    isolation: str | None = None

    def __init__(
        self, place: Place, box: Box, kaos: PosixKaos, transport: BoxliteTransport
    ) -> None:
        self.id = box.id
        self.kaos: Kaos = kaos
        self._kaos = kaos
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
        await self._kaos.aclose()
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
    said, _, text = (await call("exec", lambda: _first_line(execution))).partition(" ")
    text = text.strip()
    if said == "home":
        return text
    if said == "fails":
        msg = f"cannot make the workdir {workdir}: {text}"
        raise SandboxError(msg, hint="choose a `workdir` that the box's user can write")
    lacking = f"`{text}`" if said == "lacks" else "POSIX shell"
    msg = f"the image has no {lacking}: sh, and coreutils and util-linux or busybox, are needed"
    raise SandboxError(msg, hint="choose an image like python:3.12-slim or alpine")


async def _first_line(execution: Execution) -> str:
    said = ""
    async for frame in execution.stdout():
        said += frame
        if "\n" in said:
            break
    await execution.stdin().close()
    return said
