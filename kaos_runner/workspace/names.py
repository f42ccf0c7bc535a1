"""Names: of a recipe, which must stay below the workdir; of a sandbox, which may hold any byte."""

from __future__ import annotations

import posixpath

from kaos_runner.errors import UsageError


def below(path: str, what: str) -> str:
    """The path of a recipe, relative to the workdir and normalised; `.` for the workdir itself.

    Raises:
        UsageError: it is absolute, or leaves the workdir.
    """
    name = posixpath.normpath(path or ".")
    leaves = name.startswith(("/", "../")) or name == ".."
    if leaves or "\0" in name or any("\ud800" <= c <= "\udfff" for c in name):
        msg = f"{what} {shown(path)} is not below the workdir"
        raise UsageError(msg, hint="write it relative to the workdir, without `..`")
    return name


def decoded(name: bytes) -> str:
    """A sandbox's name as text; bytes that are not UTF-8 become lone surrogates."""
    return name.decode("utf-8", "surrogateescape")


def encoded(name: str) -> bytes:
    """The bytes of a sandbox's name."""
    return name.encode("utf-8", "surrogateescape")


def shown(name: str) -> str:
    """A name for terminals, messages and JSON: one line that does nothing and can be encoded."""
    return "".join(c if c.isprintable() else _escape(c) for c in name)


def placed(name: str) -> str:
    """A name for the host's file system: what something would trip over becomes `%XX`."""
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(c if c.isprintable() and c not in "%\\" else _percent(c) for c in name)


def joined(*parts: str) -> str:
    """Relative names put together, without `./`."""
    return posixpath.normpath(posixpath.join(*(p or "." for p in parts)))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
