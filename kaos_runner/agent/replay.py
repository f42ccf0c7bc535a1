"""Plays a cassette: a server on loopback that answers the real client as the provider would."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kaos_runner.agent import placeholders
from kaos_runner.agent.journal import NAMES, ROOT
from kaos_runner.agent.spec import Provider
from kaos_runner.agent.wire import CONVERSATION_HEADER
from kaos_runner.errors import CassetteDriftError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from kaos_runner.agent.cassette import Call, Cassette, Expect, ModelTurn
    from kaos_runner.agent.journal import Answer

_SDK_NAMES = {ours: theirs for theirs, ours in NAMES.items()}
_HINT = "record it again with --record, or write the cassette by hand to fit the run"


@dataclass(slots=True)
class _Line:
    """A conversation: its turns, and how many were played."""

    place: str
    turns: Sequence[ModelTurn]
    played: int = 0


class Replay:
    """The state of one cassette in one session.

    The client names the conversation that a request belongs to: the main agent's, or that of the
    Task call which started a subagent. Within one, requests come one after another, so the next
    turn is the next answer.
    """

    def __init__(self, cassette: Cassette, workdir: str) -> None:
        self._workdir = workdir
        self._token = secrets.token_urlsafe(32)
        self._run = secrets.token_hex(4)
        self._calls: dict[str, tuple[str, Call]] = {}
        self._lines = {ROOT: _Line("turns", cassette.turns)}
        self.drift: CassetteDriftError | None = None
        self.model = cassette.model or "cassette"
        self.url = ""

    def provider(self, max_context: int | None) -> Provider:
        """What the session is opened with in place of the recipe's model."""
        return Provider(
            base_url=self.url, api_key=self._token, model=self.model, max_context=max_context
        )

    def skip(self, answers: int) -> None:
        """Begin after the answers that a resumed conversation already holds."""
        self._lines[ROOT].played = answers

    def check_played(self) -> None:
        """Raise when the run ended before the cassette did.

        Raises:
            CassetteDriftError: turns are left.
        """
        for line in self._all_lines():
            if line.played < len(line.turns):
                msg = (
                    f"the run ended after turn {line.played} of `{line.place}` in the cassette, "
                    f"which holds {len(line.turns)}"
                )
                hint = "remove the turns that are left, or find out what ended it"
                raise CassetteDriftError(msg, hint=hint)

    def _all_lines(self) -> Iterator[_Line]:
        """Every conversation, also those of subagents that never began."""
        yield from self._lines.values()
        for call_id, (place, call) in self._calls.items():
            if call_id not in self._lines:
                yield _Line(f"{place}.turns", call.turns)

    # The model's side

    def routes(self) -> web.Application:
        """The server's application."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if not secrets.compare_digest(
            request.headers.get("Authorization", ""), f"Bearer {self._token}"
        ):
            return web.json_response({"error": {"message": "not your cassette"}}, status=401)
        conversation = request.headers.get(CONVERSATION_HEADER, ROOT)
        turn = self._next(conversation, await request.json())
        if turn is None:
            assert self.drift is not None  # `_next` says why
            return web.json_response({"error": {"message": self.drift.message}}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in self._chunks(*turn):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    def _next(self, conversation: str, body: dict[str, Any]) -> tuple[str, ModelTurn] | None:
        line = self._lines.get(conversation)
        if line is None:
            place, call = self._calls.get(conversation, ("?", None))
            line = _Line(f"{place}.turns", call.turns if call else ())
            self._lines[conversation] = line
        number = line.played + 1
        if number > len(line.turns):
            self._drift(
                f"the cassette holds {len(line.turns)} turns in `{line.place}`; the agent asks for "
                f"turn {number}, after: {_last(body)}"
            )
            return None
        line.played = number
        return f"{line.place}[{number - 1}]", line.turns[number - 1]

    def _drift(self, message: str) -> CassetteDriftError:
        self.drift = self.drift or CassetteDriftError(message, hint=_HINT)
        return self.drift

    def _chunks(self, place: str, turn: ModelTurn) -> Iterator[dict[str, Any]]:
        if turn.think:
            yield self._delta(reasoning_content=self._filled(turn.think))
        if turn.text:
            yield self._delta(content=self._filled(turn.text))
        for index, call in enumerate(turn.tools):
            yield self._delta(tool_calls=[self._call(f"{place}.tools[{index}]", index, call)])
        yield self._delta(finish="tool_calls" if turn.tools else "stop")
        if turn.usage:
            yield self._chunk(
                [],
                usage={
                    "prompt_tokens": turn.usage.input,
                    "completion_tokens": turn.usage.output,
                    "total_tokens": turn.usage.input + turn.usage.output,
                    "prompt_tokens_details": {"cached_tokens": turn.usage.cache_read},
                },
            )

    def _call(self, place: str, index: int, call: Call) -> dict[str, Any]:
        call_id = f"call_{self._run}_{len(self._calls) + 1}"
        self._calls[call_id] = (place, call)
        args = placeholders.over(call.args, self._filled)
        return {
            "index": index,
            "id": call_id,
            "type": "function",
            "function": {
                "name": _SDK_NAMES.get(call.tool, call.tool),
                "arguments": args if isinstance(args, str) else json.dumps(args),
            },
        }

    def _filled(self, text: str) -> str:
        return placeholders.fill(text, self._workdir)

    def _delta(self, *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": finish}])

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": f"cassette-{self._run}",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self.model,
            "choices": choices,
            **more,
        }

    # The tools' side

    def answered(self, conversation: str, answer: Answer) -> None:
        """Nothing to check: the answer is ours."""

    def finished(self, call_id: str, ok: bool, output: str) -> None:
        """Hold the result against what the cassette expects."""
        place, call = self._calls.get(call_id, ("", None))
        if call is None or call.expect is None:
            return
        difference = _difference(call.expect, ok, output, self._workdir)
        if difference:
            msg = f"the result of `{place}` ({call.tool}) differs: {difference}"
            raise self._drift(msg)


def _difference(expect: Expect, ok: bool, output: str, workdir: str) -> str | None:
    actual = placeholders.put(output, workdir).strip()
    if expect.ok is not None and expect.ok != ok:
        outcome = "it succeeded" if ok else "it failed"
        return f"{outcome}, with the output:\n{_shown(actual)}"
    if expect.text is not None and expect.text.strip() != actual:
        lines = difflib.unified_diff(
            expect.text.strip().splitlines(), actual.splitlines(), "cassette", "run", lineterm=""
        )
        return "\n" + "\n".join(lines)
    if expect.contains is not None and expect.contains not in actual:
        return f"it does not contain {expect.contains!r}, but is:\n{_shown(actual)}"
    if expect.sha256 is not None and expect.sha256 != digest(actual):
        return f"its digest is {digest(actual)}; it is:\n{_shown(actual)}"
    return None


def digest(text: str) -> str:
    """What `expect.sha256` holds for an output."""
    return hashlib.sha256(text.strip().encode()).hexdigest()


def _shown(text: str) -> str:
    return text if len(text) <= 2000 else text[:2000] + "…"


def _last(body: dict[str, Any]) -> str:
    """The end of what the agent sent, for people."""
    message = (body.get("messages") or [{}])[-1]
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content)
    return f"{message.get('role')}: {_shown(str(content))}"


@contextlib.asynccontextmanager
async def serving(cassette: Cassette, workdir: str) -> AsyncIterator[Replay]:
    """A server for one session, on a free port of loopback, with a token of its own."""
    replay = Replay(cassette, workdir)
    runner = web.AppRunner(
        replay.routes(), handle_signals=False, access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        replay.url = f"http://{host}:{port}/v1"
        yield replay
    finally:
        await runner.cleanup()
