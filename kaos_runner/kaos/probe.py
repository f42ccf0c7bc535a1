"""One request that learns about many paths: what is asked for, and how the answer is read."""

from __future__ import annotations

import calendar
import errno
import os
import secrets
from dataclasses import dataclass, field
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import TYPE_CHECKING

from kaos_runner.kaos import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kaos import StatResult

    from kaos_runner.kaos.glob import Kind

MODE_ONLY = "%f"

type Outcome = StatResult | OSError
"""What a stat gives."""


@dataclass(frozen=True, slots=True)
class Item:
    """One path of a request: its stat and content, or its entries."""

    path: str
    """Absolute."""
    listing: bool = False
    limit: int | None = None
    """For a stat: bytes of content that are welcome. For a listing: its depth; None: no limit."""
    name: str = "*"

    def arguments(self) -> list[str]:
        """The script's four arguments for it."""
        kind = "d" if self.listing else "s"
        limit = "" if self.limit is None else str(self.limit)
        return [kind, self.path, limit, self.name]


@dataclass(slots=True)
class Facts:
    """What is known of one path."""

    target: Outcome
    """With symlinks followed."""
    link: Outcome | None
    """Of the path itself; None where it is not known."""
    content: bytes | None = None
    """The whole content, or its beginning."""
    complete: bool = False


@dataclass(slots=True)
class Entries:
    """What is in a directory, by path relative to it."""

    failure: OSError | None = None
    modes: dict[str, int] = field(default_factory=dict)
    """Of the entries themselves."""
    target_modes: dict[str, int] = field(default_factory=dict)
    """Of what symlinks lead to, where they lead anywhere."""
    stats: dict[str, StatResult] = field(default_factory=dict)
    target_stats: dict[str, StatResult] = field(default_factory=dict)

    def kinds(self) -> dict[str, Kind]:
        """The entries as a glob sees them."""
        return {name: self._kind(name, mode) for name, mode in self.modes.items()}

    def is_broken_link(self, name: str) -> bool:
        """Whether an entry is a symlink that leads nowhere."""
        return S_ISLNK(self.modes[name]) and name not in self.target_modes

    def _kind(self, name: str, mode: int) -> Kind:
        if S_ISDIR(mode):
            return "directory"
        if S_ISLNK(mode) and S_ISDIR(self.target_modes.get(name, 0)):
            return "link"
        return "other"


def request(items: Sequence[Item], *, full: bool) -> tuple[str, list[str]]:
    """The token that parts the records of the answer, and the argv."""
    token = secrets.token_hex(16)
    listed = scripts.STAT_FORMAT if full else MODE_ONLY
    arguments = [token, scripts.STAT_FORMAT, listed]
    for item in items:
        arguments += item.arguments()
    return token, scripts.command(scripts.PROBE, arguments)


def read(token: str, items: Sequence[Item], answer: bytes, *, full: bool) -> list[Facts | Entries]:
    """What the answer says of each item, in order; `full` as in the request.

    Raises:
        OSError: the answer is cut short or garbled.
    """
    results: list[Facts | Entries] = []
    for record in answer.split(token.encode())[1:]:
        kind, body = record[:1], record[1:]
        if kind == b"s":
            results.append(_facts(items[len(results)].path, body))
        elif kind == b"d":
            path = items[len(results)].path
            code = int(body)
            results.append(Entries(failure=scripts.error(code, path) if code else None))
        elif kind == b"c":
            _add_content(results[-1], body)
        else:
            _add_entry(results[-1], kind, body, full=full)
    if len(results) != len(items):
        raise OSError(errno.EIO, "the sandbox's answer was cut short", items[len(results)].path)
    for item, result in zip(items, results, strict=True):
        if isinstance(result, Facts) and item.limit:
            _settle(item, result)
    return results


def stat_result(line: bytes) -> StatResult:
    """A stat from the fields of `scripts.STAT_FORMAT`."""
    from kaos import StatResult

    f = line.split(b" ", scripts.STAT_FIELDS)
    return StatResult(
        st_mode=int(f[1], 16),
        st_ino=int(f[2]),
        st_dev=int(f[3]),
        st_nlink=int(f[4]),
        st_uid=int(f[5]),
        st_gid=int(f[6]),
        st_size=int(f[0]),
        st_atime=_seconds(f[7], f[8]),
        st_mtime=_seconds(f[10], f[11]),
        st_ctime=_seconds(f[13], f[14]),
    )


def _seconds(day: bytes, time: bytes) -> float:
    year, month, date = day.rsplit(b"-", 2)
    clock, _, fraction = time.partition(b".")
    hour, minute, second = clock.split(b":")
    whole = calendar.timegm((int(year), int(month), int(date), int(hour), int(minute), int(second)))
    return whole + 1e-9 * int(fraction or b"0")


def _facts(path: str, body: bytes) -> Facts:
    codes, target, link = body.split(b"\n")[:3]
    target_code, link_code = (int(code) for code in codes.split())
    return Facts(
        target=scripts.error(target_code, path) if target_code else stat_result(target),
        link=scripts.error(link_code, path) if link_code else stat_result(link),
    )


def _settle(item: Item, facts: Facts) -> None:
    """Decide whether the content is complete; an empty file sends none."""
    if isinstance(facts.target, OSError) or not S_ISREG(facts.target.st_mode):
        return
    pseudo = item.path.startswith(("/proc/", "/sys/", "/dev/"))
    if facts.target.st_size == 0 and not pseudo and facts.link == facts.target:
        facts.content, facts.complete = b"", True
    elif facts.content is not None:
        facts.complete = len(facts.content) == facts.target.st_size


def _add_content(result: Facts | Entries, body: bytes) -> None:
    assert isinstance(result, Facts)  # the script sends content after a stat only
    result.content = body


def _add_entry(result: Facts | Entries, kind: bytes, body: bytes, *, full: bool) -> None:
    assert isinstance(result, Entries)  # the script sends entries after a listing only
    fields = body.split(b" ", scripts.STAT_FIELDS if full else 1)
    name = os.fsdecode(fields[-1])[2:-1]
    modes, stats = (
        (result.modes, result.stats) if kind == b"l" else (result.target_modes, result.target_stats)
    )
    modes[name] = int(fields[1 if full else 0], 16)
    if full:
        stats[name] = stat_result(body)
