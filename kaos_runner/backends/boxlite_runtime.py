"""Where boxes live: this machine's runtime, one per process and home, or a server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_runner.backends.boxlite_config import PREFIX_ENV, home_of, server_url
from kaos_runner.backends.boxlite_errors import mapped
from kaos_runner.errors import PrerequisiteError
from kaos_runner.kaos.boxlite_sdk import sdk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kaos_runner.backends.boxlite_config import BoxliteConfig, Registry
    from kaos_runner.kaos.boxlite_sdk import Runtime


@dataclass(frozen=True, slots=True)
class Server:
    """A BoxLite server."""

    url: str
    prefix: str
    key: str | None

    def endpoint(self, path: str) -> str:
        """The address of something behind the prefix."""
        return "/".join(part for part in (self.url, "v1", self.prefix, path) if part)


@dataclass(slots=True)
class Place:
    """An open runtime, and how a person reaches it."""

    runtime: Runtime
    command: str
    """How the BoxLite command line is called to see the same boxes."""
    server: Server | None = None
    home: _Home | None = None

    async def release(self, *, failed: bool = False) -> None:
        """Let go; a home that was made for a box that failed disappears again."""
        home, self.home = self.home, None
        if home is not None:
            await home.release(failed=failed)


@dataclass(slots=True)
class _Home:
    """This machine's runtime on one directory: a second one in the same process is refused."""

    path: Path
    registries: tuple[Registry, ...]
    made: bool
    runtime: Runtime | None
    unpacked: Unpacked
    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def release(self, *, failed: bool) -> None:
        self.users -= 1
        if self.users or self.runtime is None:
            return
        empty = failed and self.made and not await self.runtime.list_info()
        if empty:
            _homes.pop(self.path, None)
            self.runtime = None
            await asyncio.to_thread(gc.collect)
            await asyncio.to_thread(self.disappear)

    def disappear(self) -> None:
        """Delete what was made for a box that never was."""
        if self.made:
            shutil.rmtree(self.path, ignore_errors=True)
            self.unpacked.disappear()


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Where the SDK unpacks its own programs when it is first used: 70 MB in the user's data."""

    missing: tuple[Path, ...]
    """Its directory and those above, from the lowest, that were not there before."""

    @classmethod
    def look(cls) -> Unpacked:
        """What there is now; the SDK reads the process' own variables."""
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        place = Path(base) / "boxlite"
        return cls(tuple(path for path in (place, *place.parents) if not path.exists()))

    def disappear(self) -> None:
        """Delete them, as far as nothing else has come to lie there."""
        if self.missing:
            shutil.rmtree(self.missing[0], ignore_errors=True)
            with contextlib.suppress(OSError):
                for path in self.missing[1:]:
                    path.rmdir()


_homes: dict[Path, _Home] = {}


async def open_place(config: BoxliteConfig | None, environ: Mapping[str, str]) -> Place:
    """Open the runtime that a recipe, or without one the host's variables, ask for.

    Raises:
        PrerequisiteError: this machine cannot run boxes, or the home is in use.
    """
    from kaos_runner.backends.boxlite_config import BoxliteConfig

    config = config or BoxliteConfig()
    url = server_url(config, environ)
    return _server(url, config, environ) if url else await _machine(config, environ)


def _server(url: str, config: BoxliteConfig, environ: Mapping[str, str]) -> Place:
    boxlite = sdk()
    prefix = config.path_prefix or environ.get(PREFIX_ENV) or ""
    server = Server(url.rstrip("/"), prefix.strip("/"), environ.get(config.api_key_env))
    options = boxlite.BoxliteRestOptions(
        url=server.url,
        credential=boxlite.ApiKeyCredential(server.key) if server.key else None,
        path_prefix=server.prefix or None,
    )
    try:
        runtime = boxlite.Boxlite.rest(options)
    except RuntimeError as error:
        raise mapped(error, "use the BoxLite server") from error
    return Place(runtime, f"BOXLITE_REST_URL={url} boxlite", server)


async def _machine(config: BoxliteConfig, environ: Mapping[str, str]) -> Place:
    path = home_of(config, environ)
    home = _homes.get(path)
    if home is None:
        home = _homes[path] = _Home(
            path, config.registries, not path.exists(), None, Unpacked.look()
        )
    home.users += 1
    try:
        async with home.lock:
            if home.runtime is None:
                home.runtime = await asyncio.to_thread(_open, home, environ)
    except BaseException:
        home.users -= 1
        if not home.users:
            _homes.pop(path, None)
        raise
    if home.registries != config.registries:
        await home.release(failed=False)
        msg = f"the BoxLite home {path} is open in this process with other registries"
        raise PrerequisiteError(msg, hint="give one of the recipes a `backend.home` of its own")
    return Place(home.runtime, f"BOXLITE_HOME={path} boxlite", home=home)


def _open(home: _Home, environ: Mapping[str, str]) -> Runtime:
    boxlite = sdk()
    options = boxlite.Options(
        home_dir=str(home.path),
        image_registries=[_registry(registry, environ) for registry in home.registries],
    )
    try:
        runtime: Runtime = boxlite.Boxlite(options)
    except RuntimeError as error:
        home.disappear()
        raise mapped(error, "open the BoxLite runtime") from error
    return runtime


def _registry(registry: Registry, environ: Mapping[str, str]) -> object:
    return sdk().ImageRegistry(
        registry.host,
        transport="http" if registry.plain_http else "https",
        search=registry.search,
        username=registry.username,
        password=environ.get(registry.password_env) if registry.password_env else None,
    )
