"""A process in a box, behind the relay."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from kaos_runner.kaos.boxlite_relay import Decoder, Valve, kill_tree
from kaos_runner.kaos.boxlite_sdk import CALL_SECONDS
from kaos_runner.kaos.streams import ByteReader, ByteWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from kaos import AsyncReadable, AsyncWritable

    from kaos_runner.kaos.boxlite_sdk import Execution

INPUT_PIECE = 2**17
INPUT_WINDOW = 4
"""Pieces of input that may be under way to a live command."""


class _Output:
    """One of the two streams of a process."""

    def __init__(self, tell: Callable[[str], Awaitable[None]]) -> None:
        self.valve = Valve(self._turn)
        self.reader = ByteReader(pause=self.valve.stop, resume=self.valve.go_on)
        self.ended = False
        self.sender = 0
        self._tell = tell

    async def _turn(self, word: str) -> None:
        if self.sender:
            await self._tell(f"kill -{word} {self.sender}")


class BoxliteProcess:
    """One command; it implements `kaos.KaosProcess`.

    `tell` runs a shell script in the box, whatever becomes of it; `heard` is called at every sign
    of life; `suspect` finds out whether the box is gone, and calls `fail` if it is.
    """

    def __init__(
        self,
        execution: Execution,
        tell: Callable[[str], Awaitable[None]],
        heard: Callable[[], None],
        suspect: Callable[[], Awaitable[None]],
    ) -> None:
        self._execution = execution
        self._tell = tell
        self._heard = heard
        self._suspect = suspect
        self._marks: dict[str, int] = {}
        self._spoke: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._killed = False
        self._input = execution.stdin()
        self._writer = ByteWriter(self._send, self._send_end)
        self.stdin: AsyncWritable = self._writer
        self._writer_ended = False
        self._dismissal: asyncio.Task[None] | None = None
        self._window = asyncio.Semaphore(INPUT_WINDOW)
        self._outputs = (_Output(tell), _Output(tell))
        self.stdout: AsyncReadable = self._outputs[0].reader
        self.stderr: AsyncReadable = self._outputs[1].reader
        frames = (execution.stdout(), execution.stderr())
        self._pumps = [
            asyncio.create_task(self._pump(stream, output))
            for stream, output in zip(frames, self._outputs, strict=True)
        ]
        self.ended = asyncio.create_task(self._end())
        """Done when the command and its streams have ended."""

    @property
    def pid(self) -> int:
        """The process id inside the box; its group has the same."""
        return self._marks.get("p", 0)

    @property
    def returncode(self) -> int | None:
        """The exit code; negative for a process that `kill` ended."""
        if not self._exit.done() or self._exit.exception():
            return None
        return self._exit.result()

    async def began(self) -> str | None:
        """Wait for its first mark: `p`, or why there is no process; None when it ended without.

        Raises:
            ConnectionError: the box is gone.
        """
        await asyncio.wait([self._began, self.ended], return_when=asyncio.FIRST_COMPLETED)
        found = next((mark for mark in "nfdp" if mark in self._marks), None)
        if found is None and self._exit.done():
            self._exit.result()
        return found

    async def wait(self) -> int:
        """The exit code, as soon as the command has ended.

        Raises:
            ConnectionError: the box is gone.
        """
        return await asyncio.shield(self._exit)

    async def kill(self) -> None:
        """Kill it with all that it started; no effect once all of it has ended."""
        if self._complete:
            return
        self._killed = self._killed or not self._exit.done()
        await asyncio.wait(
            [self._spoke, self.ended],
            timeout=CALL_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not self.ended.done():
            await self._tell(kill_tree(self.pid or self._marks.get("r", 0)))
            for output in self._outputs:
                await output.valve.settle()

    async def kill_hard(self) -> None:
        """Kill it and see it end; also the relay, if something else still holds that."""
        await self.kill()
        if not (await asyncio.wait([self.ended], timeout=2))[0]:
            await self._tell(kill_tree(self._marks.get("r", 0)))
            with contextlib.suppress(RuntimeError, TimeoutError):
                async with asyncio.timeout(CALL_SECONDS):
                    await self._execution.kill()
            await asyncio.wait([self.ended], timeout=2)

    def fail(self, error: Exception) -> None:
        """End everything that waits: the box is gone."""
        for pump in self._pumps:
            pump.cancel()
        for output in self._outputs:
            if not output.ended:
                output.reader.fail(error)
        if not self._exit.done():
            self._exit.set_exception(error)
            self._exit.exception()  # nobody has to ask for it
        self._writer.abort(error)
        self._window.release()

    async def give(self, data: bytes | None) -> None:
        """Send all the input of a command that is not live; None where it takes none."""
        if data is None:
            return
        with contextlib.suppress(RuntimeError):  # the streams tell what became of it
            await self._input.send_input(b"%d\n" % len(data))
            for start in range(0, len(data), INPUT_PIECE):
                await self._input.send_input(data[start : start + INPUT_PIECE])

    async def _send(self, chunk: bytes) -> None:
        for start in range(0, len(chunk), INPUT_PIECE):
            piece = chunk[start : start + INPUT_PIECE]
            await self._window.acquire()
            if self._writer_ended:
                return
            await self._input.send_input(b"%d\n%b" % (len(piece), piece))

    async def _send_end(self) -> None:
        await self._input.send_input(b"0\n")

    async def _pump(self, frames: AsyncIterator[str], output: _Output) -> None:
        decoder = Decoder(lambda name, number: self._marked(output, name, number))
        with contextlib.suppress(RuntimeError, ValueError):  # told by the missing end of the stream
            async for frame in frames:
                self._heard()
                output.reader.feed_data(decoder.feed(frame))
                if output.ended:
                    output.reader.feed_eof()
        if not output.ended:
            if self._killed:
                output.reader.feed_eof()
            else:
                await self._suspect()
                output.reader.fail(ConnectionError("output of the command was lost"))

    def _marked(self, output: _Output, name: str, number: int) -> None:
        if name == "e":
            output.sender = number
        elif name == "z":
            output.ended = True
        elif name == "x":
            self._set_exit(number)
        elif name == "i":
            self._window.release()
        elif name == "b":
            self._end_input()
        else:
            self._marks[name] = number
            told = self._spoke if name == "r" else self._began
            if not told.done():
                told.set_result(None)
        if self._complete and self._dismissal is None:
            self._dismissal = asyncio.create_task(self._dismiss())

    def _set_exit(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(-9 if self._killed and code in (137, -9) else code)
            self._end_input()

    def _end_input(self) -> None:
        """Nobody reads any more."""
        self._writer_ended = True
        self._writer.abort()
        self._window.release()

    @property
    def _complete(self) -> bool:
        """Whether everything has arrived."""
        return self._exit.done() and all(output.ended for output in self._outputs)

    async def _dismiss(self) -> None:
        """Let the relay end, which waits for this."""
        with contextlib.suppress(RuntimeError):
            await self._input.close()

    async def _end(self) -> None:
        """See both streams end, and take the SDK's word where the relay gave none."""
        await asyncio.gather(*self._pumps, return_exceptions=True)
        if self._dismissal is not None:
            await self._dismissal
        if self._exit.done():
            return
        try:
            async with asyncio.timeout(CALL_SECONDS):
                self._set_exit((await self._execution.wait()).exit_code)
        except (RuntimeError, TimeoutError) as error:
            self.fail(ConnectionError(f"how the command ended was not told: {error}"))
