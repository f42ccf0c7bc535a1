"""An emulated Sprites service on loopback that the real SDK talks to.

    with SpritesEmulator() as emulator:
        environ = {"SPRITE_TOKEN": emulator.token, "SPRITES_BASE_URL": emulator.url}

As a command: `python -m tests.emulators.sprites --port 8642`. It prints the variables to set.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from tests.emulators.sprites_faults import Behaviour, Fault, Kind, Log
from tests.emulators.sprites_machine import missing_packages
from tests.emulators.sprites_service import Service

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Coroutine

    from tests.emulators.sprites_fleet import Sprite

TOKEN = "emulated-org/1/sprite-token-of-the-emulator"


class SpritesEmulator:
    """The service in a thread with a loop of its own; deletes everything when it is left."""

    def __init__(self, *, port: int = 0, **behaviour: Any) -> None:
        self.token = TOKEN
        self.url = ""
        self.behaviour = Behaviour(**behaviour)
        self.log = Log()
        self._port = port
        self._folder = tempfile.TemporaryDirectory(prefix="sprites-", ignore_cleanup_errors=True)
        self._service = Service(Path(self._folder.name), TOKEN, self.behaviour, self.log)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sprites", daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._do(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._do(self._runner.cleanup())
        self._do(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.cleanup()

    async def _start(self) -> None:
        self._runner = web.AppRunner(
            self._service.application(),
            access_log=None,
            shutdown_timeout=0.1,
            handler_cancellation=True,
            max_line_size=2**20,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def _do[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    @property
    def environ(self) -> dict[str, str]:
        """The provider variables that lead here."""
        return {"SPRITE_TOKEN": self.token, "SPRITES_BASE_URL": self.url}

    @property
    def names(self) -> list[str]:
        """All sprites, sorted."""
        return sorted(self._service.fleet.sprites)

    def sprite(self, name: str) -> Sprite:
        """One sprite, to look into."""
        return self._service.fleet.sprites[name]

    def counts(self) -> Counter[str]:
        """How many requests of each operation have come in."""
        return self.log.counts()

    def forget(self) -> None:
        """Begin counting anew."""
        self.log.seen.clear()

    def fail(self, operation: str, kind: Kind, **details: Any) -> None:
        """Plan a failure; see `Fault`."""
        self.log.faults.append(Fault(operation=operation, kind=kind, **details))

    def sleep(self, name: str) -> None:
        """Send a sprite to sleep: it goes cold, its processes end."""
        self._do(self._service.fleet.sleep(self.sprite(name)))

    def lose(self, name: str) -> None:
        """Make a sprite vanish, as when somebody else deletes it."""
        self._do(self._service.fleet.remove(self.sprite(name)))

    def processes(self) -> list[str]:
        """The command lines of everything that runs in any sprite."""
        machines = [sprite.machine for sprite in list(self._service.fleet.sprites.values())]
        return [line for machine in machines for line in machine.processes()]

    def settled(self, *, patience: float = 20.0) -> list[str]:
        """What still runs after a moment's patience: a process needs time to end."""
        until = time.monotonic() + patience
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.02)
        return left


def main() -> None:
    """Run the emulator until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulators.sprites")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--listing", choices=["children", "self"], default="children")
    for option in ("latency", "cold-wake", "restore-after"):
        parser.add_argument(f"--{option}", type=float, default=None, metavar="SECONDS")
    options = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    if missing := missing_packages():
        parser.exit(3, f"missing Debian packages: {' '.join(missing)}\n")
    with SpritesEmulator(**options) as emulator, contextlib.suppress(KeyboardInterrupt):
        for name, value in emulator.environ.items():
            print(f"export {name}={value}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
