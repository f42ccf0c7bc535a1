"""The agent: the only importer of the SDK, which loads when a session opens and not before.

The names load when they are used: `claim` and `cassette` serve commands that never open a session.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaos_runner.agent.environment import claim
    from kaos_runner.agent.session import AgentSession, open_session
    from kaos_runner.agent.spec import ApprovalQuestion, Provider, SessionSpec, Totals, Turn

__all__ = [
    "AgentSession",
    "ApprovalQuestion",
    "Provider",
    "SessionSpec",
    "Totals",
    "Turn",
    "claim",
    "open_session",
]

_HOMES = {"claim": "environment"} | dict.fromkeys(("AgentSession", "open_session"), "session")


def __getattr__(name: str) -> Any:
    """The public name, from the module that defines it."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'spec')}"), name)
