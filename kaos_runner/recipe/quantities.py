"""Durations, sizes and counts as they are written, without the types' import."""

from __future__ import annotations

import re
from typing import Any

_DURATION = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_COUNT = {"": 1, "k": 1000, "m": 1_000_000}

# Nine digits keep every value inside what a timedelta and a 64-bit count can hold; zero is refused.
_NUMBER = r"^(?=.*[1-9])[0-9]{1,9}(\.[0-9]{1,9})?"
DURATION_PATTERN = _NUMBER + r"(ms|s|m|h|d)$"
SIZE_PATTERN = _NUMBER + r"(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)$"
COUNT_PATTERN = _NUMBER + r"[km]?$"


def _unit(value: Any, pattern: str, units: dict[str, Any], example: str) -> Any:
    if not isinstance(value, str):
        return value
    if not re.match(pattern, value):
        msg = f"`{value[:40]}` has no known unit; write it like {example}"
        raise ValueError(msg)
    number = re.match(r"[0-9.]+", value)
    assert number is not None  # the pattern begins with a number
    return float(number.group()) * units[value[number.end() :]]


def parse_duration(value: Any) -> Any:
    """Seconds from `90s`, `15m`, `2h`; a number is taken as it is (the schema refuses it)."""
    return _unit(value, DURATION_PATTERN, _DURATION, "90s, 15m or 2h")


def parse_size(value: Any) -> Any:
    """Bytes from `512MiB`, `8GiB`; an int is bytes."""
    number = _unit(value, SIZE_PATTERN, _SIZE, "512MiB or 8GiB")
    return int(number) if isinstance(number, float) else number


def parse_count(value: Any) -> Any:
    """An int from `400k`, `2m` or a plain int."""
    number = _unit(value, COUNT_PATTERN, _COUNT, "400k")
    return int(number) if isinstance(number, float) else number


def write_duration(seconds: float) -> str:
    """Seconds as people write them: the largest unit that leaves a whole number."""
    return _write(seconds, {unit: _DURATION[unit] for unit in ("d", "h", "m", "s", "ms")})


def write_size(size: float) -> str:
    """Bytes as people write them: the largest binary unit that leaves a whole number."""
    return _write(size, {unit: _SIZE[unit] for unit in ("TiB", "GiB", "MiB", "KiB", "B")})


def _write(value: float, units: dict[str, Any]) -> str:
    for unit, factor in units.items():
        if value >= factor and (value / factor).is_integer():
            return f"{int(value / factor)}{unit}"
    return f"{value:g}{'s' if 's' in units else 'B'}"
