"""The shell scripts behind every file operation, for POSIX `sh` with coreutils, or busybox.

A script says what went wrong by its exit code, or by the code in a record: it finds the reason with
tests of its own, since messages differ between systems. All paths are absolute, and so never
mistaken for an option.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN = 50
"""The script's code where its tests found no reason; the message may know one."""

CODES = {
    40: errno.ENOENT,
    41: errno.ENOTDIR,
    42: errno.EISDIR,
    43: errno.EEXIST,
    44: errno.EACCES,
    45: errno.ELOOP,
    46: errno.ENAMETOOLONG,
}

_MESSAGES = {
    os.strerror(code): code
    for code in (
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.ETXTBSY,
        errno.EINVAL,
        errno.ENXIO,
        errno.ENODEV,
        errno.EIO,
        errno.EPERM,
    )
}

# why PATH: sets c to the reason why PATH cannot be reached, walking it from the root.
_WHY = r"""LC_ALL=C TZ=UTC0; export LC_ALL TZ; unset CDPATH
why() { d=/ r=$1
while :; do
while :; do case $r in /*) r=${r#/};; *) break;; esac; done
[ -n "$r" ] || { c=50; return; }
n=${r%%/*}; r=${r#"$n"}
[ -x "$d" ] || { c=44; return; }
[ ${#n} -le 255 ] || { c=46; return; }
d=$d$n
[ -e "$d" ] || { c=40
[ -L "$d" ] && case $(stat -L "$d" 2>&1) in
*"oo many levels of symbolic links"|*" link loop") c=45;; *denied) c=44;; esac
return; }
[ -z "$r" ] || [ -d "$d" ] || { c=41; return; }
d=$d/
done; }
"""

STAT_FORMAT = "%s %f %i %d %h %u %g %x %y %z"
STAT_FIELDS = 16

# TOKEN STAT_FORMAT LIST_FORMAT, then KIND PATH NUMBER NAME for each item.
# s: the stat of PATH, and up to NUMBER bytes of a regular file (a head of it where it is longer).
# d: the entries of PATH down to the depth NUMBER (empty: all); but for directories and links, only
# those like NAME.
# Records begin with the token, which no file can hold: it is made anew for each request.
PROBE = (
    _WHY
    + r"""T=$1 F=$2 G=$3; shift 3
while [ $# -gt 0 ]; do
k=$1 p=$2 m=$3 w=$4; shift 4; c=0
if [ $k = s ]; then
x=$(stat -L -c "$F" "$p" 2>/dev/null) || why "$p"
y=$x l=$c
[ -L "$p" ] && { l=0; y=$(stat -c "$F" "$p"); }
printf '%ss%s %s\n%s\n%s\n' "$T" $c $l "$x" "$y"
[ "$m" -gt 0 ] && [ $c = 0 ] && [ -f "$p" ] && [ -r "$p" ] || continue
s=${x%% *}; case $p in /proc/*|/sys/*|/dev/*) continue;; esac
[ "$s" -gt 0 ] || continue
[ "$s" -le "$m" ] || m=4096
printf '%sc' "$T"; head -c "$m" "$p"
else
if [ -d "$p" ]; then [ -r "$p" ] && [ -x "$p" ] || c=44; else why "$p"; [ $c = 50 ] && c=41; fi
printf '%sd%s\n' "$T" $c
[ $c = 0 ] && (cd -P "$p" && find . -mindepth 1 ${m:+-maxdepth $m} \
\( -type d -o -type l -o -name "$w" \) \
-exec stat -c "${T}l$G %n" {} + -type l -exec stat -L -c "${T}t$G %n" {} +) 2>/dev/null
fi
done; exit 0
"""
)

# PATH [COUNT]
READ = (
    _WHY
    + r"""[ -d "$1" ] && exit 42
if [ $# -gt 1 ]; then head -c "$2" "$1"; else cat "$1"; fi && exit 0
why "$1"; [ $c = 50 ] && ! [ -r "$1" ] && c=44; exit $c
"""
)

# PATH OFFSET: everything after the first OFFSET bytes
READ_REST = r"""exec tail -c "+$(($2 + 1))" "$1"
"""

_WRITE_FAILED = r"""why "$1"
if [ $c = 50 ]; then [ -w "$1" ] || c=44
elif [ $c = 40 ] && [ "$d" = "$1" ] && [ -d "${1%/*}/" ] && ! [ -w "${1%/*}/" ]; then c=44; fi
exit $c
"""

# PATH STAT_FORMAT: stdin becomes the content; the new stat is printed.
WRITE = (
    _WHY
    + r"""[ -d "$1" ] && exit 42
cat >"$1" && { stat -L -c "$2" "$1"; exit 0; }
"""
    + _WRITE_FAILED
)

# PATH STAT_FORMAT SIZE MARK: stdin is appended in one write(2), without its first MARK bytes where
# PATH is not empty.
APPEND = (
    _WHY
    + r"""[ -d "$1" ] && exit 42
n=$3
[ "$4" -gt 0 ] && [ -s "$1" ] && { dd bs=1 count="$4" of=/dev/null 2>/dev/null; n=$((n - $4)); }
w='iflag=fullblock oflag=append conv=notrunc'
if [ "$n" -gt 4096 ] && dd if=/dev/null of=/dev/null $w 2>/dev/null; then dd of="$1" bs="$n" $w
else cat >>"$1"; fi && { stat -L -c "$2" "$1"; exit 0; }
"""
    + _WRITE_FAILED
)

# PATH PARENT PARENTS EXIST_OK
MKDIR = (
    _WHY
    + r"""[ "$1" != / ] && mkdir "$1" 2>/dev/null && exit 0
if ! [ -e "$1" ] && ! [ -L "$1" ] && [ "$3" = 1 ]; then
mkdir -p "$2" 2>/dev/null; mkdir "$1" 2>/dev/null && exit 0; fi
[ "$4" = 1 ] && [ -d "$1" ] && exit 0
{ [ -e "$1" ] || [ -L "$1" ]; } && exit 43
why "$2"
[ $c = 40 ] && [ "$3" = 1 ] && {
if [ -L "$d" ]; then c=43; else d=${d%/*}; [ -w "$d/" ] || c=44; fi; }
if [ $c = 50 ]; then if ! [ -d "$2" ]; then c=41; else
why "$1"; [ $c = 40 ] && ! [ -w "$2" ] && c=44; fi; fi
[ -d "$2" ] && mkdir "$1" && exit 0
exit $c
"""
)

CHDIR = (
    _WHY
    + r"""cd -P "$1" 2>/dev/null && { pwd -P; printf x; exit 0; }
why "$1"; if [ $c = 50 ]; then if [ -d "$1" ]; then c=44; else c=41; fi; fi; exit $c
"""
)

# How an argument that is not UTF-8 survives a transport that carries text: as octal escapes.
_DECODE = r"""i=$#; while [ $i -gt 0 ]; do
a=$(printf '%b.' "$1"); shift; set -- "$@" "${a%.}"; i=$((i - 1)); done
"""


def command(script: str, arguments: Sequence[str]) -> list[str]:
    """The argv that runs `script` with `arguments`, in characters that every transport carries."""
    if all(_is_text(argument) for argument in arguments):
        return ["/bin/sh", "-c", script, "sh", *arguments]
    return ["/bin/sh", "-c", _DECODE + script, "sh", *(_escaped(a) for a in arguments)]


def program(arguments: Sequence[str]) -> list[str]:
    """The argv of a user's program, wrapped only where an argument is not UTF-8."""
    if all(_is_text(argument) for argument in arguments):
        return list(arguments)
    return command('exec "$@"\n', arguments)


def error(code: int, path: str, stderr: bytes = b"") -> OSError:
    """The error that LocalKaos would raise.

    `code` is a script's; `stderr` decides where the script's tests could not.
    """
    number = CODES.get(code, errno.EIO)
    text = stderr.decode("utf-8", "replace").rstrip()
    ends = tuple(text.splitlines())
    if number in (errno.EIO, errno.EACCES, errno.ENOENT):
        number = next((n for m, n in _MESSAGES.items() if any(e.endswith(m) for e in ends)), number)
    reason = os.strerror(number)
    if number == errno.EIO and text:
        reason = f"{reason} ({text[-500:]})"
    return OSError(number, reason, path)


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(argument: str) -> str:
    encoded = os.fsencode(argument)
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"\\0{b:03o}" for b in encoded)
