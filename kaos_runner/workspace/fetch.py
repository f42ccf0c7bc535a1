"""Named files brought out of a sandbox in one stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kaos_runner.workspace.incoming import PlainReader, TarReader
from kaos_runner.workspace.names import encoded
from kaos_runner.workspace.script import CHUNK, run_script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kaos import Kaos

    from kaos_runner.workspace.incoming import Reader, Receiver
    from kaos_runner.workspace.script import Ended

NO_TAR = 97
_TAR = f"""
command -v tar >/dev/null 2>&1 || exit {NO_TAR}
unset TAR_OPTIONS
cd -- "$1" && exec xargs -0 tar -chf -
"""
_PLAIN = r"""
cd -- "$1" && exec xargs -0 /bin/sh -c '
  for f; do
    [ -f "$f" ] && [ -r "$f" ] || { echo "$f cannot be read" >&2; continue; }
    if [ -x "$f" ]; then printf "x%s\0" "$f"; else printf -- "-%s\0" "$f"; fi
    base64 <"$f"; printf "\0"
  done' sh
"""


async def fetch(kaos: Kaos, workdir: str, names: Sequence[str], receiver: Receiver) -> Ended:
    """Send the named files to `receiver`: one operation, a second one where tar is missing.

    Symlinks are followed: the caller has looked where they point. A file that is missing or cannot
    be read is not sent; the exit code is then not 0, and stderr says why.

    Raises:
        SandboxError: what comes is not what was agreed, or what `receiver` raises.
        SandboxLostError: the sandbox went away.
    """
    ended = await _stream(kaos, _TAR, workdir, names, TarReader(receiver))
    if ended.exit_code == NO_TAR:
        ended = await _stream(kaos, _PLAIN, workdir, names, PlainReader(receiver))
    return ended


async def _stream(
    kaos: Kaos, script: str, workdir: str, names: Sequence[str], reader: Reader
) -> Ended:
    async def take(chunk: bytes) -> None:
        await asyncio.to_thread(reader.feed, chunk)

    ended = await run_script(kaos, script, workdir, stdin=_named(names), take=take)
    if ended.exit_code != NO_TAR:
        reader.finish()
    return ended


async def _named(names: Sequence[str]) -> AsyncIterator[bytes]:
    batch = bytearray()
    for name in names:
        batch += b"./" + encoded(name) + b"\0"
        if len(batch) >= CHUNK:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)
