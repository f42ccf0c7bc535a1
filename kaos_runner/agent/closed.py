"""A Kaos that reaches nothing: what the SDK itself sees, so that only a bound tool acts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, NoReturn

from kaos import reset_current_kaos, set_current_kaos
from kaos.path import KaosPath

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping
    from pathlib import PurePath

    from kaos import Kaos, KaosProcess, StatResult, StrOrKaosPath


_NOTHING: tuple[KaosPath, ...] = ()


@contextlib.contextmanager
def bound(kaos: Kaos) -> Iterator[None]:
    """Make `kaos` the current one of this task."""
    token = set_current_kaos(kaos)
    try:
        yield
    finally:
        reset_current_kaos(token)


class ClosedKaos:
    """Answers the pure questions about paths like the real one; every operation fails.

    While a session opens, the SDK lists the workdir, looks for AGENTS.md, a shell and skills (some
    twenty operations); here all of that is simply absent, and our own facts take its place.
    """

    def __init__(self, real: Kaos, workdir: str) -> None:
        self._real = real
        self._workdir = workdir
        self.name = real.name

    def pathclass(self) -> type[PurePath]:
        """As the real one."""
        return self._real.pathclass()

    def normpath(self, path: StrOrKaosPath) -> KaosPath:
        """As the real one."""
        return self._real.normpath(path)

    def gethome(self) -> KaosPath:
        """As the real one."""
        return self._real.gethome()

    def getcwd(self) -> KaosPath:
        """The workdir."""
        return KaosPath(self._workdir)

    async def chdir(self, path: StrOrKaosPath) -> None:
        """Stay: the real one already is in the workdir."""

    async def stat(
        self,
        path: StrOrKaosPath,
        *,
        follow_symlinks: bool = True,  # noqa: ARG002
    ) -> StatResult:
        """Nothing exists."""
        raise FileNotFoundError(str(path))

    async def iterdir(self, path: StrOrKaosPath) -> AsyncGenerator[KaosPath]:  # noqa: ARG002
        """Nothing is there."""
        for nothing in _NOTHING:
            yield nothing

    async def glob(
        self,
        path: StrOrKaosPath,  # noqa: ARG002
        pattern: str,  # noqa: ARG002
        *,
        case_sensitive: bool = True,  # noqa: ARG002
    ) -> AsyncGenerator[KaosPath]:
        """Nothing matches."""
        for nothing in _NOTHING:
            yield nothing

    async def readbytes(self, path: StrOrKaosPath, n: int | None = None) -> bytes:  # noqa: ARG002
        """Refuse."""
        self._refuse()

    async def readtext(
        self,
        path: StrOrKaosPath,  # noqa: ARG002
        *,
        encoding: str = "utf-8",  # noqa: ARG002
        errors: Literal["strict", "ignore", "replace"] = "strict",  # noqa: ARG002
    ) -> str:
        """Refuse."""
        self._refuse()

    async def readlines(
        self,
        path: StrOrKaosPath,  # noqa: ARG002
        *,
        encoding: str = "utf-8",  # noqa: ARG002
        errors: Literal["strict", "ignore", "replace"] = "strict",  # noqa: ARG002
    ) -> AsyncGenerator[str]:
        """Refuse."""
        self._refuse()
        yield ""

    async def writebytes(self, path: StrOrKaosPath, data: bytes) -> int:  # noqa: ARG002
        """Refuse."""
        self._refuse()

    async def writetext(
        self,
        path: StrOrKaosPath,  # noqa: ARG002
        data: str,  # noqa: ARG002
        *,
        mode: Literal["w", "a"] = "w",  # noqa: ARG002
        encoding: str = "utf-8",  # noqa: ARG002
        errors: Literal["strict", "ignore", "replace"] = "strict",  # noqa: ARG002
    ) -> int:
        """Refuse."""
        self._refuse()

    async def mkdir(
        self,
        path: StrOrKaosPath,  # noqa: ARG002
        parents: bool = False,  # noqa: ARG002
        exist_ok: bool = False,  # noqa: ARG002
    ) -> None:
        """Refuse."""
        self._refuse()

    async def exec(self, *args: str, env: Mapping[str, str] | None = None) -> KaosProcess:  # noqa: ARG002
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        msg = "this call is not bound to the sandbox"
        raise PermissionError(msg)
