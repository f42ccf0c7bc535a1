"""What an emulated service can be told to do wrong, and what it has seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Literal

Kind = Literal["status", "reset", "lost", "truncate", "close", "abort", "error_event"]


@dataclass(slots=True, kw_only=True)
class Fault:
    """One planned failure of the next `times` requests whose operation matches."""

    operation: str
    """A pattern over operation names such as `create`, `exec`, `fs.*`."""
    kind: Kind
    """What happens.

    `status`: answered with `status`. `reset`: the connection is reset before anything is done.
    `lost`: done, then reset before the answer. `truncate`: half of the body, then a reset.
    `close`, `abort`: an exec's WebSocket ends before the exit code, with or without a close frame.
    `error_event`: an `error` event under HTTP 200.
    """
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"error": "unavailable", "message": "try again"}'
    after: int = 0
    """Bytes of output before a `close` or `abort`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came in."""

    operation: str
    method: str
    url: str
    """Path and query, still encoded."""


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """How the service behaves where the real one leaves it open, or can be better or worse."""

    latency: float = 0.0
    """Seconds before each answer."""
    cold_wake: float = 0.0
    """Seconds that a request to a sleeping sprite waits for it."""
    idle: float | None = None
    """Seconds without a request or a session after which a sprite sleeps."""
    listing: Literal["children", "self"] = "children"
    kill: Literal["leader", "group"] = "leader"
    """Whom a session's kill reaches. The service does not say; `leader` is the harder case."""
    own_group: bool = True
    """Whether a command leads a process group. The service does not say."""
    url_limit: int = 4096
    page_size: int = 50
    linger: float = 0.5
    """Seconds that an exit waits for pipes which children keep open."""
    run_on: float = 10.0
    """Seconds that a command without terminal runs on after its client has gone."""
    restore_after: float = 0.2
    """Seconds after the answer at which a restore takes place: it is asynchronous."""
    labels_kept: bool = True
    """Whether a new sprite has the labels that it was asked for with."""
    labels_listed: bool = True
    """Whether the list of sprites shows labels, or only the single sprite does."""


class Log:
    """Every request, and the faults still to come."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []

    def counts(self) -> Counter[str]:
        """How many requests of each operation have come in."""
        return Counter(seen.operation for seen in self.seen)

    def due(self, operation: str) -> Fault | None:
        """Take the fault that this request meets, if any."""
        for fault in self.faults:
            if fault.times > 0 and fnmatch(operation, fault.operation):
                fault.times -= 1
                return fault
        return None
