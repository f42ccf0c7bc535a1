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
    """Replaces every known form of some values by `***`."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
        self._longest = max((len(_bytes(form)) for form in forms), default=0)
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None
        self._bytes = (
            re.compile(b"|".join(re.escape(_bytes(form)) for form in forms)) if forms else None
        )

    def __call__(self, text: str) -> str:
        """The text with every known form masked."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def scan(self) -> Scan:
        """A search over bytes that come in chunks."""
        return Scan(self._bytes, self._longest)


class Scan:
    """Finds a secret in bytes that come in chunks, also across their borders."""

    def __init__(self, pattern: re.Pattern[bytes] | None, longest: int) -> None:
        self._pattern = pattern
        self._overlap = longest - 1
        self._tail = b""

    def __call__(self, chunk: bytes) -> bool:
        """Whether a secret has come to an end in this chunk."""
        if self._pattern is None:
            return False
        window = self._tail + chunk
        self._tail = window[-self._overlap :]
        return self._pattern.search(window) is not None


def _forms(value: str) -> Iterator[str]:
    """Every form under which the value is recognised, each of at least `MINIMUM` characters."""
    parts = {value, *(line.strip() for line in value.splitlines())}
    for part in (p for p in parts if len(p) >= MINIMUM):
        raw = _bytes(part)
        quoted = quote(part, safe="", errors="replace")
        yield from (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1])
        yield from (quoted, quote(part, errors="replace"), quote_plus(part, errors="replace"))
        yield re.sub("%[0-9A-F]{2}", lambda m: m.group().lower(), quoted)
        yield from (shlex.quote(part), raw.hex(), raw.hex().upper())
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
