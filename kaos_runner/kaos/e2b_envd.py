"""Envd's process service of one E2B sandbox: raw RPC, with deadlines, and errors as OSError.

The SDK's own `commands.run` goes through `bash -l -c` and decodes output as text; the RPC below it
takes an argv and gives exact bytes (e2b 2.63, `envd/process/process_connect.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Any, Literal

from kaos_runner.kaos.e2b_errors import cancellation, lost, os_error, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from e2b import AsyncSandbox
    from e2b.envd.process import process_pb as pb

    from kaos_runner.errors import SandboxLostError

REQUEST = 30.0
"""Seconds for a request, and for a process to start."""
KEEPALIVE = 20
"""Seconds after which envd is asked to say that a silent stream lives."""
SILENCE = 110.0
"""Seconds without even a keepalive after which a stream is broken; envd's own interval is 90."""
PATIENCE = 30.0
"""Seconds for which an unreachable sandbox is asked again before it counts as lost."""
INPUT = 256 * 1024
"""Bytes of stdin in one message."""

_log = logging.getLogger(__name__)

type Chunk = tuple[Literal["stdout", "stderr"], bytes]

# PID: kills it, its group, its session, and all that they started, sessions of their own included.
# Each is stopped when it is found, so that none starts another meanwhile.
_KILL = r"""s=" $1 "; kill -STOP "$1"
while n=$s; do
for f in /proc/[0-9]*/stat; do
read -r l <"$f" || continue
p=${f#/proc/} p=${p%/stat}; set -- ${l##*) }
case $s in *" $p "*) continue;; *" $2 "*|*" $3 "*|*" $4 "*) kill -STOP "$p"; s="$s$p ";; esac
done
[ "$n" != "$s" ] || break
done
for p in $s; do kill -9 "$p"; done; exit 0
"""


class Envd:
    """The calls that a transport needs, for one sandbox."""

    def __init__(
        self,
        sandbox: AsyncSandbox,
        environ: Mapping[str, str],
        on_lost: Callable[[SandboxLostError], None],
    ) -> None:
        from e2b.envd.client_async import create_rpc_client
        from e2b.envd.process.process_connect import ProcessClient

        config = sandbox.connection_config
        self.sandbox = sandbox
        self._environ = dict(environ)
        self._on_lost = on_lost
        self._lost: SandboxLostError | None = None
        self._rpc: ProcessClient = create_rpc_client(ProcessClient, sandbox.envd_api_url, config)

    async def start(self, argv: Sequence[str], *, cwd: str, stdin: bool) -> Stream:
        """Start a process; its stream begins after the event that tells its pid.

        Raises:
            ConnectionError: the connection broke; the process may or may not have been started.
            OSError: envd refuses.
        """
        from e2b.envd.process import process_pb as pb

        self._check()
        config = pb.ProcessConfig(cmd=argv[0], args=list(argv[1:]), envs=self._environ, cwd=cwd)
        request = pb.StartRequest(process=config, stdin=stdin, tag=secrets.token_hex(8))
        headers = {"Keepalive-Ping-Interval": str(KEEPALIVE)}
        stream = Stream(self, self._rpc.start(request, headers=headers))
        beginning = asyncio.create_task(stream.begin())
        try:
            await asyncio.shield(beginning)
        except BaseException:
            # Cut off now it could still start, unseen: it is let begin, and then killed.
            await asyncio.shield(asyncio.create_task(self._undo(stream, beginning, request.tag)))
            raise
        return stream

    async def _undo(self, stream: Stream, beginning: asyncio.Task[None], tag: str) -> None:
        """Kill what a start that failed or was cancelled may have started."""
        await asyncio.wait({beginning})
        try:
            if beginning.exception() is None:
                await self.kill(stream.pid)
            elif self._lost is None:
                await self._kill_tagged(tag)
        except Exception as error:
            _log.debug("a process may be left behind: %s", error)
        finally:
            await stream.aclose()

    async def kill(self, group: int) -> None:
        """Kill a process group and all that it started; one that is gone already is a success.

        Raises:
            OSError: it may still live.
        """
        argv = ["/bin/sh", "-c", f"exec 2>/dev/null\n{_KILL}", "sh", str(group)]
        await asyncio.shield(asyncio.ensure_future(self._run_out(argv)))

    async def _run_out(self, argv: Sequence[str]) -> None:
        stream = await self.start(argv, cwd="/", stdin=False)
        try:
            while isinstance(await stream.next(), tuple):
                pass
        finally:
            await stream.aclose()

    async def _kill_tagged(self, tag: str) -> None:
        """Kill what was started although nobody heard of it."""
        from e2b.envd.process import process_pb as pb

        found = await self._rpc.list(pb.ListRequest(), timeout_ms=_ms(REQUEST))
        for process in found.processes:
            if process.tag == tag:
                await self.kill(process.pid)

    async def send(self, pid: int, data: bytes) -> None:
        """Write to a process' stdin, in one request."""
        from e2b.envd.process import process_pb as pb

        if len(data) > INPUT:
            await self._unary(self._rpc.stream_input(_messages(pid, data), timeout_ms=_ms(REQUEST)))
            return
        request = pb.SendInputRequest(process=_selector(pid), input=_stdin(data))
        await self._unary(self._rpc.send_input(request, timeout_ms=_ms(REQUEST)))

    async def close_stdin(self, pid: int) -> None:
        """Let a process read EOF."""
        from e2b.envd.process import process_pb as pb

        request = pb.CloseStdinRequest(process=_selector(pid))
        await self._unary(self._rpc.close_stdin(request, timeout_ms=_ms(REQUEST)))

    async def _unary(self, call: Any) -> None:
        try:
            self._check()
        except ConnectionError:
            call.close()
            raise
        try:
            await call
        except Exception as error:
            raise await self.failure(error) from error

    def _check(self) -> None:
        if self._lost is not None:
            raise ConnectionError(str(self._lost))

    async def failure(self, error: Exception) -> BaseException:
        """What a failed call means, after asking whether the sandbox still lives."""
        import e2b
        from e2b.envd.rpc import ahandle_rpc_exception_with_health, is_transport_failure

        if (cancelled := cancellation(error)) is not None:
            return cancelled
        told = await ahandle_rpc_exception_with_health(error, self._is_running)
        if isinstance(told, (e2b.SandboxNotRunningException, e2b.SandboxNotFoundException)):
            return await self._gone()
        if isinstance(told, e2b.SandboxUnreachableException):
            return await self._verdict(told)
        if isinstance(told, e2b.AuthenticationException):
            return self._give_up("does not take its access token any more")
        if is_transport_failure(error):
            return ConnectionError(f"the connection to the sandbox broke: {words(error)}")
        return os_error(told)

    async def gone(self) -> SandboxLostError:
        """Find out what became of a sandbox that the control plane does not know any more."""
        await self._gone()
        assert self._lost is not None  # that is what it was asked for
        return self._lost

    async def silent(self) -> BaseException:
        """What it means that a stream has not even given a keepalive."""
        from e2b import SandboxUnreachableException

        return await self._verdict(SandboxUnreachableException("the sandbox has fallen silent"))

    async def _is_running(self) -> bool:
        return await self.sandbox.is_running(request_timeout=5)

    async def _verdict(self, error: Exception) -> BaseException:
        """Ask for a while whether the sandbox answers."""
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay
        from tenacity import wait_exponential as wait

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait(multiplier=0.5, max=5),
            stop=stop_after_delay(PATIENCE),
        )
        try:
            running: bool = await retrying(self._is_running)
        except Exception:
            return self._give_up(f"cannot be reached: {words(error)}")
        if not running:
            return await self._gone()
        return ConnectionError(f"the connection to the sandbox broke: {words(error)}")

    async def _gone(self) -> BaseException:
        """Ask the control plane what became of it."""
        from e2b import SandboxNotFoundException, SandboxState

        if self._lost is not None:
            return ConnectionError(str(self._lost))
        try:
            info = await self.sandbox.get_info(request_timeout=10)
        except SandboxNotFoundException:
            return self._give_up("is gone: it was killed, or its time was up")
        except Exception as error:
            return self._give_up(f"does not run any more ({words(error)})")
        if info.state is SandboxState.PAUSED:
            return self._give_up("was paused: its time was up, or somebody paused it")
        return self._give_up("runs, but nothing in it answers")

    def _give_up(self, why: str) -> ConnectionError:
        """Tell once that the sandbox is lost."""
        if self._lost is None:
            self._lost = lost(self.sandbox.sandbox_id, why)
            self._on_lost(self._lost)
        return ConnectionError(str(self._lost))


class Stream:
    """What happens to one process, from its start to its end."""

    def __init__(self, envd: Envd, events: AsyncIterator[pb.StartResponse]) -> None:
        self._envd = envd
        self._events = events
        self.pid = 0
        """Envd's: the process that was started, inside the sandbox."""

    async def begin(self) -> None:
        """Wait for the event that tells the pid."""
        event = await self._event(REQUEST)
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
            raise await self._envd.silent() from error
        except Exception as error:
            # connectrpc makes an error of its own of the cancellation by which a timeout works
            if deadline.expired():
                raise await self._envd.silent() from error
            raise await self._envd.failure(error) from error
        if response is None:
            return None
        event = response.event.event if response.event is not None else None
        return event.value if event is not None else ()

    async def aclose(self) -> None:
        """Let go of the stream; the process lives on."""
        with contextlib.suppress(Exception):
            await self._events.aclose()  # type: ignore[attr-defined]  # it is a generator


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _selector(pid: int) -> pb.ProcessSelector:
    from e2b.envd.process import process_pb as pb
    from protobuf import Oneof

    chosen: Oneof[Literal["pid"], int] = Oneof("pid", pid)
    return pb.ProcessSelector(selector=chosen)


def _stdin(data: bytes) -> pb.ProcessInput:
    from e2b.envd.process import process_pb as pb
    from protobuf import Oneof

    given: Oneof[Literal["stdin"], bytes] = Oneof("stdin", data)
    return pb.ProcessInput(input=given)


async def _messages(pid: int, data: bytes) -> AsyncIterator[pb.StreamInputRequest]:
    """One ordered stream of input, in pieces that a message may hold."""
    from e2b.envd.process import process_pb as pb
    from protobuf import Oneof

    opening = pb.StreamInputRequest.StartEvent(process=_selector(pid))
    opened: Oneof[Literal["start"], pb.StreamInputRequest.StartEvent] = Oneof("start", opening)
    yield pb.StreamInputRequest(event=opened)
    for at in range(0, len(data), INPUT):
        part = pb.StreamInputRequest.DataEvent(input=_stdin(data[at : at + INPUT]))
        piece: Oneof[Literal["data"], pb.StreamInputRequest.DataEvent] = Oneof("data", part)
        yield pb.StreamInputRequest(event=piece)
