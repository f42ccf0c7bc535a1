"""Envd's process service of one E2B sandbox: raw RPC, with deadlines, and errors as OSError.

The SDK's own `commands.run` goes through `bash -l -c` and decodes output as text; the RPC below it
takes an argv and gives exact bytes (e2b 2.63, `envd/process/process_connect.py`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any

from kaos_runner.kaos.e2b_fate import Fate
from kaos_runner.kaos.e2b_stream import INPUT, Stream, messages, selector, stdin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from e2b import AsyncSandbox

    from kaos_runner.errors import SandboxLostError

REQUEST = 30.0
"""Seconds for a request."""
SEND = 600.0
"""Seconds for stdin to be taken, by a process that may be busy."""
KEEPALIVE = 20
"""Seconds after which envd is asked to say that a silent stream lives."""

_log = logging.getLogger(__name__)

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
        self.fate = Fate(sandbox, on_lost)
        self._environ = dict(environ)
        self._rpc: ProcessClient = create_rpc_client(ProcessClient, sandbox.envd_api_url, config)

    async def start(self, argv: Sequence[str], *, cwd: str, stdin: bool) -> Stream:
        """Start a process; its stream begins after the event that tells its pid.

        Raises:
            ConnectionError: the connection broke; the process may or may not have been started.
            OSError: envd refuses.
        """
        from e2b.envd.process import process_pb as pb

        self.fate.check()
        config = pb.ProcessConfig(cmd=argv[0], args=list(argv[1:]), envs=self._environ, cwd=cwd)
        request = pb.StartRequest(process=config, stdin=stdin, tag=secrets.token_hex(8))
        headers = {"Keepalive-Ping-Interval": str(KEEPALIVE)}
        stream = Stream(self.fate, self._rpc.start(request, headers=headers))
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
            elif self.fate.lost is None:
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
            await self._unary(self._rpc.stream_input(messages(pid, data), timeout_ms=_ms(SEND)))
            return
        request = pb.SendInputRequest(process=selector(pid), input=stdin(data))
        await self._unary(self._rpc.send_input(request, timeout_ms=_ms(SEND)))

    async def close_stdin(self, pid: int) -> None:
        """Let a process read EOF."""
        from e2b.envd.process import process_pb as pb

        request = pb.CloseStdinRequest(process=selector(pid))
        await self._unary(self._rpc.close_stdin(request, timeout_ms=_ms(REQUEST)))

    async def _unary(self, call: Any) -> None:
        try:
            self.fate.check()
        except ConnectionError:
            call.close()
            raise
        try:
            await call
        except Exception as error:
            raise await self.fate.failure(error) from error


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
