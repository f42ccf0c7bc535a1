"""What happens to one process in an E2B sandbox, event by event, and the messages about it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from e2b.envd.process import process_pb as pb

    from kaos_runner.kaos.e2b_fate import Fate

START = 30.0
"""Seconds for a process to start."""
SILENCE = 110.0
"""Seconds without even a keepalive after which a stream is broken; envd's own interval is 90."""
INPUT = 256 * 1024
"""Bytes of stdin in one message."""

type Chunk = tuple[Literal["stdout", "stderr"], bytes]


class Stream:
    """What happens to one process, from its start to its end."""

    def __init__(self, fate: Fate, events: AsyncIterator[pb.StartResponse]) -> None:
        self._fate = fate
        self._events = events
        self.pid = 0
        """Envd's: the process that was started, inside the sandbox."""

    async def begin(self) -> None:
        """Wait for the event that tells the pid."""
        event = await self._event(START)
        self.pid = getattr(event, "pid", 0)
        if not self.pid:
            msg = "envd did not say that the process has started"
            raise ConnectionError(msg)

    async def next(self) -> Chunk | pb.ProcessEvent.EndEvent:
        """A chunk of output, or the end; the next one is not fetched before it is asked for.

        Raises:
            ConnectionError: the stream broke before the end.
        """
        from e2b.envd.process import process_pb as pb
        from protobuf import Oneof

        while True:
            match await self._event(SILENCE):
                case pb.ProcessEvent.DataEvent(output=Oneof(field="stdout", value=chunk)):
                    return "stdout", chunk
                case pb.ProcessEvent.DataEvent(output=Oneof(field="stderr", value=chunk)):
                    return "stderr", chunk
                case pb.ProcessEvent.EndEvent() as end:
                    return end
                case None:
                    msg = "the stream of the process ended before the process did"
                    raise ConnectionError(msg)

    async def _event(self, seconds: float) -> Any:
        """The next event; None at the end of the stream."""
        try:
            async with asyncio.timeout(seconds) as deadline:
                response = await anext(self._events, None)
        except TimeoutError as error:
            raise await self._fate.silent() from error
        except Exception as error:
            # connectrpc makes an error of its own of the cancellation by which a timeout works
            if deadline.expired():
                raise await self._fate.silent() from error
            raise await self._fate.failure(error) from error
        if response is None:
            return None
        event = response.event.event if response.event is not None else None
        return event.value if event is not None else ()

    async def aclose(self) -> None:
        """Let go of the stream; the process lives on."""
        with contextlib.suppress(Exception):
            await self._events.aclose()  # type: ignore[attr-defined]  # it is a generator


def selector(pid: int) -> pb.ProcessSelector:
    """A process by its pid."""
    from e2b.envd.process import process_pb as pb
    from protobuf import Oneof

    chosen: Oneof[Literal["pid"], int] = Oneof("pid", pid)
    return pb.ProcessSelector(selector=chosen)


def stdin(data: bytes) -> pb.ProcessInput:
    """Bytes for its stdin."""
    from e2b.envd.process import process_pb as pb
    from protobuf import Oneof

    given: Oneof[Literal["stdin"], bytes] = Oneof("stdin", data)
    return pb.ProcessInput(input=given)


async def messages(pid: int, data: bytes) -> AsyncIterator[pb.StreamInputRequest]:
    """One ordered stream of input, in pieces that a message may hold."""
    from e2b.envd.process import process_pb as pb
    from protobuf import Oneof

    opening = pb.StreamInputRequest.StartEvent(process=selector(pid))
    opened: Oneof[Literal["start"], pb.StreamInputRequest.StartEvent] = Oneof("start", opening)
    yield pb.StreamInputRequest(event=opened)
    for at in range(0, len(data), INPUT):
        part = pb.StreamInputRequest.DataEvent(input=stdin(data[at : at + INPUT]))
        piece: Oneof[Literal["data"], pb.StreamInputRequest.DataEvent] = Oneof("data", part)
        yield pb.StreamInputRequest(event=piece)
