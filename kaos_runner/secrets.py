"""Secrets: taken from the host's variables, handed to the sandbox, masked everywhere else.

Masking is best effort: it knows a value as it is, by lines, in base64 (at each of the three
alignments), in hex, in
URL, JSON and shell quoting. A value that an agent takes apart letter by letter passes.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from kaos_runner.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MASK = "***"
MINIMUM = 8
"""Characters: a shorter value would mask ordinary words, and is refused."""


def resolve(
    names: Iterable[str], environ: Mapping[str, str]
) -> tuple[dict[str, str], list[Problem]]:
    """The value of each declared secret, and a problem for each that is not set or too short."""
    values, problems = {}, []
    for name in names:
        if fault := _fault(name, environ):
            problems.append(fault)
        else:
            values[name] = environ[name]
    return values, problems


def _fault(name: str, environ: Mapping[str, str]) -> Problem | None:
    value = environ.get(name)
    if not value:
        return Problem(
            message=f"the secret {name} is not set on this machine",
            hint=f"export {name}, or name a file that sets it with --env-file",
        )
    if len(value) < MINIMUM:
        return Problem(
            message=f"the secret {name} is shorter than {MINIMUM} characters",
            hint="a value that short cannot be masked without masking ordinary words",
        )
    return None


class Mask:
    """Replaces every known form of some values by `***`.

    The coded forms are also found where a tool has wrapped its lines, as `base64` and `xxd` do.
    """

    def __init__(self, values: Iterable[str]) -> None:
        secrets = [part for value in values for part in _parts(value)]
        self._plain = _any_of({form for part in secrets for form in _plain_forms(part)})
        self._coded = _any_of({form for part in secrets for form in _coded_forms(part)})

    def __call__(self, text: str) -> str:
        """The text with every known form masked."""
        if self._plain:
            text = self._plain.sub(MASK, text)
        if self._coded and self._coded.search(_GAPS.sub("", text)):
            text = _with_gaps(self._coded).sub(MASK, text)
        return text

    def scan(self) -> Scan:
        """A search over bytes that come in chunks."""
        return Scan(self._plain, self._coded)


class Scan:
    """Finds a secret in bytes that come in chunks, also across their borders."""

    def __init__(self, plain: re.Pattern[str] | None, coded: re.Pattern[str] | None) -> None:
        self._searches = [
            _Search(re.compile(_bytes(pattern.pattern)), gaps)
            for pattern, gaps in ((plain, False), (coded, True))
            if pattern
        ]

    def __call__(self, chunk: bytes) -> bool:
        """Whether a secret has come to an end in this chunk."""
        return any([search(chunk) for search in self._searches])  # noqa: C419 - all must be fed


class _Search:
    """One pattern over chunks; `gaps` leaves white space out first."""

    def __init__(self, pattern: re.Pattern[bytes], gaps: bool) -> None:
        self._pattern = pattern
        self._gaps = gaps
        self._overlap = len(pattern.pattern)  # no form is longer than the pattern of them all
        self._tail = b""

    def __call__(self, chunk: bytes) -> bool:
        window = self._tail + (chunk.translate(None, b" \t\r\n") if self._gaps else chunk)
        self._tail = window[-self._overlap :]
        return self._pattern.search(window) is not None


_GAPS = re.compile(r"[ \t\r\n]+")


def _any_of(forms: set[str]) -> re.Pattern[str] | None:
    """The longest first, so that a part never hides the whole."""
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


@cache
def _with_gaps(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """The same forms with white space anywhere inside; coded forms hold no `|`."""
    letters = (re.findall(r"\\?.", form) for form in pattern.pattern.split("|"))
    return re.compile("|".join(r"[ \t\r\n]*".join(form) for form in letters))


def _parts(value: str) -> set[str]:
    """The value, and its lines, each of at least `MINIMUM` characters."""
    parts = {value, *(line.strip() for line in value.splitlines())}
    return {part for part in parts if len(part) >= MINIMUM}


def _plain_forms(part: str) -> Iterator[str]:
    """As it is, and as JSON, URLs and the shell quote it."""
    quoted = quote(part, safe="", errors="replace")
    yield from (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1])
    yield from (quoted, quote(part, errors="replace"), quote_plus(part, errors="replace"))
    yield re.sub("%[0-9A-F]{2}", lambda m: m.group().lower(), quoted)
    yield shlex.quote(part)


def _coded_forms(part: str) -> Iterator[str]:
    """In hex, and in base64 at each alignment."""
    raw = _bytes(part)
    yield from (raw.hex(), raw.hex().upper())
    yield from (form for form in _base64_forms(raw) if len(form) >= MINIMUM)


def _base64_forms(raw: bytes) -> Iterator[str]:
    """What base64 of any text that holds `raw` contains: one core for each alignment."""
    for shift in range(3):
        # Characters that also depend on the neighbours' bits are left out at both ends.
        start = -(-shift * 8 // 6)
        end = (shift + len(raw)) * 8 // 6
        coded = base64.b64encode(bytes(shift) + raw + bytes(2)).decode()[start:end]
        yield coded
        yield coded.replace("+", "-").replace("/", "_")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
