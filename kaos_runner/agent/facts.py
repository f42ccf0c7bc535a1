"""What the agent is told about its sandbox, asked inside it and in one operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaos_runner.agent import processes
from kaos_runner.errors import SandboxError

if TYPE_CHECKING:
    from kaos import Kaos

TIMEOUT = 60.0
MAX_ENTRIES = 200
MAX_AGENTS_MD = 64 << 10
"""Bytes of AGENTS.md that the agent is given."""

# For POSIX sh with coreutils or busybox. AGENTS.md comes last because it may hold anything.
_SCRIPT = f"""
uname -s 2>/dev/null || echo unknown
uname -m 2>/dev/null || echo unknown
for s in /bin/bash /usr/bin/bash /usr/local/bin/bash /bin/sh; do
  if [ -x "$s" ]; then break; fi
done
echo "$s"
ls -1Ap . 2>/dev/null | head -n {MAX_ENTRIES + 1} | sed 's/^/ /'
echo .
for f in AGENTS.md agents.md; do
  if [ -f "$f" ]; then head -c {MAX_AGENTS_MD} "$f"; break; fi
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The sandbox as it is."""

    system: str
    machine: str
    shell: str
    """An absolute path: bash where there is one, else sh."""
    entries: tuple[str, ...]
    """The workdir's entries, a directory with a slash at its end."""
    agents_md: str

    @property
    def shell_name(self) -> str:
        """`bash` or `sh`."""
        return self.shell.rpartition("/")[2]


async def detect(kaos: Kaos) -> Facts:
    """Look around in the Kaos' working directory.

    Raises:
        SandboxError: no POSIX shell answers there.
    """
    try:
        output = await processes.run(kaos, "/bin/sh", "-c", _SCRIPT, timeout=TIMEOUT)
    except (OSError, TimeoutError) as error:
        msg = f"the sandbox does not run /bin/sh: {error or 'no answer'}"
        raise SandboxError(
            msg, hint="its image needs a POSIX sh and the usual coreutils"
        ) from error
    return _parse(output.stdout.decode("utf-8", "replace"))


def _parse(text: str) -> Facts:
    lines = text.split("\n")
    if len(lines) < 4 or "." not in lines:
        msg = "the sandbox's /bin/sh gives no sensible answer"
        raise SandboxError(msg, hint="its image needs a POSIX sh and the usual coreutils")
    end = lines.index(".", 3)
    return Facts(
        system=lines[0],
        machine=lines[1],
        shell=lines[2],
        entries=tuple(line[1:] for line in lines[3:end]),
        agents_md="\n".join(lines[end + 1 :]).strip(),
    )
