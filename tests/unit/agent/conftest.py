"""Sessions over the real SDK, the real loop and a real sandbox directory."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from kaos_runner.agent import AgentSession, Provider, SessionSpec, claim, open_session
from kaos_runner.recipe.model import Agent, Limits
from tests.unit.agent.host import HostTransport, host_kaos
from tests.unit.agent.upstream import Replies, Upstream, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kaos_runner.events import AnyEvent
    from kaos_runner.kaos.posix import PosixKaos


@dataclass
class Desk:
    """A sandbox directory, and what a session in it says."""

    root: Path
    home: Path
    kaos: PosixKaos
    events: list[AnyEvent] = field(default_factory=list)

    @property
    def transport(self) -> HostTransport:
        assert isinstance(self.kaos.transport, HostTransport)
        return self.kaos.transport

    def of(self, kind: str) -> list[Any]:
        """The events of one type."""
        return [event for event in self.events if event.type == kind]

    def results(self) -> dict[int, tuple[bool, str]]:
        """What came of each call, by its number."""
        return {e.call: (e.ok, e.output) for e in self.of("tool_result")}

    def cassette(self, text: str) -> Path:
        path = self.home / "cassette.yaml"
        path.write_text("cassette: 1\nturns:\n" + text, "utf-8")
        return path

    def spec(self, **given: Any) -> SessionSpec:
        """A session that acts in `root`; whatever is given replaces the defaults."""
        settings: dict[str, Any] = {
            "agent": Agent(),
            "provider": Provider(model="unused"),
            "kaos": self.kaos,
            "backend": "local",
            "isolation": "none",
            "workdir": str(self.root),
            "limits": Limits(),
            "emit": self.events.append,
            "mask": lambda text: text,
            "session_dir": self.home / "session",
        }
        return SessionSpec(**(settings | given))

    @contextlib.asynccontextmanager
    async def opened(
        self, replies: Replies, **given: Any
    ) -> AsyncIterator[tuple[Upstream, AgentSession]]:
        """A session over a scripted provider."""
        async with (
            scripted(replies) as upstream,
            open_session(self.spec(provider=upstream.provider, **given)) as session,
        ):
            yield upstream, session


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return new_desk(tmp_path)


def new_desk(home: Path) -> Desk:
    root = home / "work"
    root.mkdir(parents=True)
    return Desk(root, home, host_kaos(root))


@pytest.fixture(autouse=True)
def _claimed() -> None:
    """As the runner does it: nothing of the host's variables steers the SDK."""
    claim(os.environ)
