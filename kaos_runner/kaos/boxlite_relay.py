"""How exact bytes leave a box, and how a sender is slowed down.

The SDK hands output over as text in which every byte that is not UTF-8 is lost, and it buffers
without bound. So a shell script in the box runs the command in a session of its own and sends its
output as base64, in ASCII only:

- `AAAA;` one chunk of a stream, as soon as it was written; line ends in it mean nothing;
- `<r12>` the relay's process id, before anything else;
- `<p12>` the command's process id, its group's too; `<e12>` the process that sends this stream;
- `<x3>` the exit code, at once, whoever still holds the pipes;
- `<z>` the end of the stream, with nothing missing;
- `<i>` a piece of input has reached the command, `<b>` it does not read any more;
- `<n>` there is no such program, `<f>` it may not be executed, `<d>` there is no such directory.

A mark is written in one piece but may stand within a chunk: another process writes that.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# dd takes what one read gives, so that output arrives while the command runs; base64 alone would
# wait until its buffer is full. dd tells on stderr whether there was anything.
_LIVE = r"""enc() {
read -r q r </proc/self/stat && printf '<e%s>' "$q"
exec 7>&1
while case $({ dd bs=65536 count=1 | base64 >&7; } 2>&1) in 1+0*|0+1*);; *) false;; esac
do printf ';'; done
printf '<z>'
}
"""
_WHOLE = r"""enc() { base64; printf '<z>'; }
"""

# Each way of input ends by waiting for the end of the relay's own, which comes when everything has
# arrived: the SDK now and then drops output that reaches it together with the news of the exit.
_NO_INPUT = r"""inp() { exec >/dev/null; read -r n; }
"""
_ALL_INPUT = r"""inp() { read -r n; head -c "$n"; exec >/dev/null; cat; }
"""
# The SDK does not read while it cannot write: input that piles up would block output for good. So
# it comes in pieces, each behind a line with its length, 0 for the end, and each is confirmed.
_LIVE_INPUT = r"""inp() {
while read -r n; do
if [ "$n" = 0 ]; then exec >/dev/null; continue; fi
dd bs="$n" count=1 iflag=fullblock 2>/dev/null || {
[ $? = 1 ] && dd bs=1 count="$n" 2>/dev/null; } || break
printf '<i>' >&4
done
printf '<b>' >&4
exec >/dev/null; cat
}
"""

# $1 the program below, $2 the working directory, then the command
_RELAY = r"""printf '<r%s>' "$$" >&2
exec 3>&1 4>&2
cd -- "$2" 2>/dev/null || { printf '<z>'; printf '<d><x127><z>' >&2; cat >/dev/null; exit; }
k=$1; shift 2
cmd() { setsid sh -c "$k" sh "$@" 2>&5 3>&- 5>&-; printf '<x%d>' "$?" >&4; }
inp 3>&- | { { cmd "$@" | enc >&3 4>&- 5>&-; } 5>&1 | enc >&4 3>&-; }
"""

_COMMAND = r"""unset OLDPWD
case $1 in
*/*) [ -e "$1" ] || [ -L "$1" ] || { printf '<n>' >&4; exit 127; }
[ -x "$1" ] && ! [ -d "$1" ] || { printf '<f>' >&4; exit 126; };;
*) command -v -- "$1" >/dev/null 2>&1 || { printf '<n>' >&4; exit 127; };;
esac
printf '<p%s>' "$$" >&4
exec "$@" 4>&-
"""

# A process belongs to the tree when its parent, group or session does. It is stopped when it is
# found, so that it starts nothing more; once no further one is found, all are killed.
_KILL = r"""kill -STOP "$1" 2>/dev/null
s=" $1 " more=1
while [ "$more" ]; do
more=
for f in /proc/[0-9]*/stat; do
{ read -r line <"$f"; } 2>/dev/null || continue
p=${line%% *}; set -- ${line##*) }
case $s in *" $p "*) continue;; esac
case $s in *" $2 "*|*" $3 "*|*" $4 "*) kill -STOP "$p"; s="$s$p " more=1;; esac
done; done
set -- $s
kill -KILL "$@" 2>/dev/null; :
"""

type How = Literal["live", "input", "alone"]

_MARK = re.compile(r"<([a-z])(\d*)>")


def relayed(argv: list[str], cwd: str, how: How) -> list[str]:
    """The arguments of `sh` that run `argv` in `cwd` behind the relay.

    `live` streams, at the price of three processes for a chunk; otherwise a stream is sent whole:
    `input` takes one, `alone` takes none.
    """
    ways = {
        "live": _LIVE + _LIVE_INPUT,
        "input": _WHOLE + _ALL_INPUT,
        "alone": _WHOLE + _NO_INPUT,
    }
    return ["-c", ways[how] + _RELAY, "relay", _COMMAND, cwd, *argv]


def kill_tree(pid: int) -> str:
    """The script that kills a process with its session and everything that it started."""
    return f"set -- {pid}\n{_KILL}"


class Decoder:
    """Bytes and marks from the text of one stream; `marked` is called for each mark, in order."""

    def __init__(self, marked: Callable[[str, int], None]) -> None:
        self._marked = marked
        self._rest = ""

    def feed(self, text: str) -> bytes:
        """What the next frame adds.

        Raises:
            ValueError: this is not what the relay sends.
        """
        text = self._rest + text
        cut = text.rfind("<")
        held = text[cut:] if cut >= 0 and ">" not in text[cut:] else ""
        text = text.removesuffix(held)
        for name, number in _MARK.findall(text):
            self._marked(name, int(number or 0))
        *whole, tail = _MARK.sub("", text).replace("\n", "").split(";")
        whole.append(tail[: len(tail) - len(tail) % 4])
        self._rest = tail[len(whole[-1]) :] + held
        return b"".join(binascii.a2b_base64(chunk, strict_mode=True) for chunk in whole if chunk)


class Valve:
    """Stops and continues the process that sends a stream, as its reader asks for."""

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._wanted = self._stopped = False
        self._turning: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """The reader has enough for now."""
        self._turn(stopped=True)

    def go_on(self) -> None:
        """The reader has caught up."""
        self._turn(stopped=False)

    async def settle(self) -> None:
        """Leave the sender going, and no task behind."""
        if self._stopped or self._wanted:
            self._turn(stopped=False)
        if self._turning is not None:
            await self._turning

    def _turn(self, *, stopped: bool) -> None:
        self._wanted = stopped
        if self._turning is None or self._turning.done():
            self._turning = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while self._wanted != self._stopped:
            wanted = self._wanted
            await self._send("STOP" if wanted else "CONT")
            self._stopped = wanted
