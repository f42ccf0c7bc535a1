"""The agent: the only importer of the SDK, which loads when a session opens and not before."""

from kaos_runner.agent.environment import claim
from kaos_runner.agent.preload import preload
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
    "preload",
]
