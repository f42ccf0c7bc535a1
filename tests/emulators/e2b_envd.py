"""E2B's envd, emulated: process and filesystem RPC, file transfer, and the proxy in front of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any, Literal

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.filesystem import filesystem_pb as fs
from e2b.envd.filesystem.filesystem_connect import Filesystem, FilesystemASGIApplication
from e2b.envd.process import process_pb as pb
from e2b.envd.process.process_connect import Process, ProcessASGIApplication
from protobuf import Oneof
from protobuf.wkt.google.protobuf.timestamp_pb import Timestamp

from tests.emulators.e2b_box import Box, GoneError
from tests.emulators.e2b_guest_wire import Header, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from connectrpc.request import RequestContext

    from tests.emulators.e2b_fleet import Fleet

    type Context = RequestContext[Any, Any]
    type Frame = tuple[Header, bytes]

KEEPALIVE = Oneof[Literal["keepalive"], pb.ProcessEvent.KeepAlive](
    "keepalive", pb.ProcessEvent.KeepAlive()
)
USERS = ("user", "root")
KILL = 9


def applications(fleet: Fleet) -> tuple[ProcessASGIApplication, FilesystemASGIApplication]:
    """The two RPC services over a fleet; whom a request means is in its headers."""

    def box(ctx: Context) -> Box:
        return fleet.sandboxes[ctx.request_headers["e2b-sandbox-id"]].box

    return ProcessASGIApplication(Processes(box)), FilesystemASGIApplication(Files(box))


class Processes(Process):
    """The process service."""

    def __init__(self, box: Callable[[Context], Box]) -> None:
        self._box = box

    async def list(self, request: pb.ListRequest, ctx: Context) -> pb.ListResponse:  # noqa: ARG002
        """Every process that was started by RPC and still runs."""
        with _mapped():
            answer = await self._box(ctx).call({"op": "list"})
        return pb.ListResponse(processes=[_info(p) for p in answer["processes"]])

    async def start(
        self, request: pb.StartRequest, ctx: Context
    ) -> AsyncGenerator[pb.StartResponse]:
        """Start a process and stream what happens to it."""
        if request.pty is not None:
            raise ConnectError(Code.UNIMPLEMENTED, "a pty is not emulated")
        _check_user(ctx)
        config = request.process or pb.ProcessConfig()
        header = {
            "op": "start",
            "argv": [config.cmd, *config.args],
            "env": dict(config.envs),
            "cwd": config.cwd if config.has_field("cwd") else "",
            # Unset means open: clients older than the field always had a stdin.
            "stdin": request.stdin if request.has_field("stdin") else True,
            "tag": request.tag if request.has_field("tag") else None,
        }
        async with contextlib.aclosing(self._events(header, ctx)) as events:
            async for event in events:
                yield pb.StartResponse(event=event)

    async def connect(
        self, request: pb.ConnectRequest, ctx: Context
    ) -> AsyncGenerator[pb.ConnectResponse]:
        """Stream what happens to a process from now on."""
        header = {"op": "connect", **_selector(request.process)}
        async with contextlib.aclosing(self._events(header, ctx)) as events:
            async for event in events:
                yield pb.ConnectResponse(event=event)

    async def _events(self, header: Header, ctx: Context) -> AsyncGenerator[pb.ProcessEvent]:
        """Events, keepalives while nothing happens; the deadline kills the leader only."""
        box, pid = self._box(ctx), 0
        interval = float(ctx.request_headers.get("keepalive-ping-interval") or 90)
        deadline = None if ctx.timeout_ms is None else _now() + ctx.timeout_ms / 1000
        with _mapped():
            async with contextlib.aclosing(_prefetched(box.stream(header))) as arrivals:
                async for arrival in arrivals:
                    async for _ in _silences(arrival, interval, deadline):
                        yield pb.ProcessEvent(event=KEEPALIVE)
                    if not arrival.done():
                        await box.call({"op": "signal", "pid": pid, "signal": KILL})
                        raise ConnectError(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
                    frame = await arrival
                    if frame is None:
                        return
                    pid = frame[0].get("pid", pid)
                    yield _event(*frame)

    async def send_input(self, request: pb.SendInputRequest, ctx: Context) -> pb.SendInputResponse:
        """Write once to stdin."""
        await self._input(_selector(request.process), request.input, ctx)
        return pb.SendInputResponse()

    async def stream_input(
        self, request: AsyncIterator[pb.StreamInputRequest], ctx: Context
    ) -> pb.StreamInputResponse:
        """Write to stdin in order."""
        selector: Header = {}
        async for message in request:
            match message.event:
                case Oneof(value=pb.StreamInputRequest.StartEvent() as start):
                    selector = _selector(start.process)
                case Oneof(value=pb.StreamInputRequest.DataEvent() as part):
                    await self._input(selector, part.input, ctx)
        return pb.StreamInputResponse()

    async def _input(self, selector: Header, part: pb.ProcessInput | None, ctx: Context) -> None:
        match part.input if part is not None else None:
            case Oneof(field="stdin", value=chunk):
                with _mapped():
                    await self._box(ctx).call({"op": "input", **selector}, chunk)
            case _:
                raise ConnectError(Code.UNIMPLEMENTED, "only stdin is emulated")

    async def close_stdin(
        self, request: pb.CloseStdinRequest, ctx: Context
    ) -> pb.CloseStdinResponse:
        """Close stdin."""
        with _mapped():
            await self._box(ctx).call({"op": "close_stdin", **_selector(request.process)})
        return pb.CloseStdinResponse()

    async def send_signal(
        self, request: pb.SendSignalRequest, ctx: Context
    ) -> pb.SendSignalResponse:
        """Signal the leader."""
        header = {"op": "signal", "signal": int(request.signal), **_selector(request.process)}
        with _mapped():
            await self._box(ctx).call(header)
        return pb.SendSignalResponse()


class Files(Filesystem):
    """The filesystem service; watching is not emulated."""

    def __init__(self, box: Callable[[Context], Box]) -> None:
        self._box = box

    async def _call(self, ctx: Context, **header: Any) -> Header:
        _check_user(ctx)
        with _mapped():
            return await self._box(ctx).call(header)

    async def stat(self, request: fs.StatRequest, ctx: Context) -> fs.StatResponse:
        """One entry."""
        answer = await self._call(ctx, op="stat", path=request.path)
        return fs.StatResponse(entry=_entry(answer["entry"]))

    async def list_dir(self, request: fs.ListDirRequest, ctx: Context) -> fs.ListDirResponse:
        """Entries down to a depth."""
        depth = request.depth or 1
        answer = await self._call(ctx, op="list_dir", path=request.path, depth=depth)
        return fs.ListDirResponse(entries=[_entry(e) for e in answer["entries"]])

    async def make_dir(self, request: fs.MakeDirRequest, ctx: Context) -> fs.MakeDirResponse:
        """A directory with its parents."""
        answer = await self._call(ctx, op="make_dir", path=request.path)
        return fs.MakeDirResponse(entry=_entry(answer["entry"]))

    async def move(self, request: fs.MoveRequest, ctx: Context) -> fs.MoveResponse:
        """Rename."""
        answer = await self._call(
            ctx, op="move", path=request.source, destination=request.destination
        )
        return fs.MoveResponse(entry=_entry(answer["entry"]))

    async def remove(self, request: fs.RemoveRequest, ctx: Context) -> fs.RemoveResponse:
        """Remove; nothing there is a success."""
        await self._call(ctx, op="remove", path=request.path)
        return fs.RemoveResponse()


@contextlib.contextmanager
def _mapped() -> Any:
    try:
        yield
    except Refusal as refusal:
        raise ConnectError(Code(refusal.code), refusal.message) from refusal
    except GoneError as error:
        message = f"the connection to sandbox {error} ended before the stream completed"
        raise ConnectError(Code.UNAVAILABLE, message) from error


def _check_user(ctx: Context) -> None:
    word = ctx.request_headers.get("authorization") or ""
    name = base64.b64decode(word.removeprefix("Basic ")).decode().partition(":")[0]
    if name and name not in USERS:
        raise ConnectError(Code.UNAUTHENTICATED, f"invalid username: '{name}'")


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _prefetched(
    frames: AsyncGenerator[Frame],
) -> AsyncGenerator[asyncio.Task[Frame | None]]:
    """Frames as tasks, so that waiting for one can be interrupted; None is the end."""

    async def following() -> Frame | None:
        return await anext(frames, None)

    task: asyncio.Task[Frame | None] | None = None
    try:
        while True:
            task = asyncio.create_task(following())
            yield task
    finally:
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Refusal, GoneError):
                await task
        await frames.aclose()


async def _silences(
    task: asyncio.Task[Any], interval: float, deadline: float | None
) -> AsyncIterator[None]:
    """One item per interval in which the task does not end; ends with it or at the deadline."""
    while not task.done():
        left = interval if deadline is None else min(interval, deadline - _now())
        if left <= 0:
            return
        await asyncio.wait({task}, timeout=left)
        if not task.done() and left == interval:
            yield


def _selector(selector: pb.ProcessSelector | None) -> Header:
    match selector.selector if selector is not None else None:
        case Oneof(field=name, value=value):
            return {name: value}
    raise ConnectError(Code.INVALID_ARGUMENT, "a process must be selected")


def _info(found: Header) -> pb.ProcessInfo:
    config = pb.ProcessConfig(
        cmd=found["argv"][0], args=found["argv"][1:], envs=found["env"], cwd=found["cwd"]
    )
    return pb.ProcessInfo(config=config, pid=found["pid"], tag=found["tag"])


def _event(header: Header, payload: bytes) -> pb.ProcessEvent:
    rest = {k: v for k, v in header.items() if k != "event"}
    match header["event"]:
        case "start":
            start = pb.ProcessEvent.StartEvent(**rest)
            started: Oneof[Literal["start"], pb.ProcessEvent.StartEvent] = Oneof("start", start)
            return pb.ProcessEvent(event=started)
        case "end":
            end = pb.ProcessEvent.EndEvent(**rest)
            ended: Oneof[Literal["end"], pb.ProcessEvent.EndEvent] = Oneof("end", end)
            return pb.ProcessEvent(event=ended)
        case "stdout":
            out: Oneof[Literal["stdout"], bytes] = Oneof("stdout", payload)
            part = pb.ProcessEvent.DataEvent(output=out)
        case _:
            err: Oneof[Literal["stderr"], bytes] = Oneof("stderr", payload)
            part = pb.ProcessEvent.DataEvent(output=err)
    part_of: Oneof[Literal["data"], pb.ProcessEvent.DataEvent] = Oneof("data", part)
    return pb.ProcessEvent(event=part_of)


def _entry(found: Header) -> fs.EntryInfo:
    seconds, nanos = divmod(found["mtime_ns"], 10**9)
    rest = {k: v for k, v in found.items() if k not in {"mtime_ns", "type"}}
    return fs.EntryInfo(
        **rest,
        type=fs.FileType(found["type"]),
        modified_time=Timestamp(seconds=seconds, nanos=nanos),
    )
