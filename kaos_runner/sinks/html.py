"""One run as one page: no script, no request, and nothing of the content is markup.

The page's own policy forbids both, so a mistake here would still not run anything.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

from kaos_runner import events as ev
from kaos_runner.sinks import words
from kaos_runner.sinks.markdown import cut
from kaos_runner.sinks.narrate import artifact_text, sandbox_end
from kaos_runner.sinks.safe import one_line, visible
from kaos_runner.sinks.summary import tokens
from kaos_runner.sinks.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LONGEST = 100_000
"""Characters of one tool result, or of one patch."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #c4281d; --warn: #9a6700 }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; --warn: #d4a72c } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: .2rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
pre { font: 13px/1.45 ui-monospace, monospace; background: #8881; padding: .6rem .8rem;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  border-radius: 4px; margin: .4rem 0 }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere }
details { border-left: 3px solid var(--line); padding-left: .8rem; margin: .5rem 0 }
summary { cursor: pointer } summary code { overflow-wrap: anywhere }
.good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--warn) }
.dim { opacity: .65 } .add { color: var(--good) } .del { color: var(--bad) }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(records: Iterable[ev.Record], patches: Mapping[str, str]) -> str:
    """The page; `patches` holds the text of patches by the name of their artifact."""
    tally = Tally()
    story = _Story()
    told = []
    for record in records:
        tally.add(record)
        told.append(story.told(record.event))
    told.append(story.hush())
    title = one_line(tally.started.recipe if tally.started else tally.run_id)
    body = [_head(tally, title), _checks(tally), _artifacts(tally, patches), "<h2>The run</h2>"]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}: {tally.outcome.replace('_', ' ')}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{''.join([*body, *told])}</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return escape(visible(text))


def _pre(text: str) -> str:
    return f"<pre>{_text(cut(text, LONGEST).strip(chr(10)))}</pre>\n"


def _code(text: str) -> str:
    return f"<code>{escape(one_line(text, 300))}</code>"


def _table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    """A table of cells that are markup already."""
    lines = ["".join(f"<th>{name}</th>" for name in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "<table>\n" + "".join(f"<tr>{line}</tr>\n" for line in lines if line) + "</table>\n"


def _mark(*, ok: bool, bad: str = "failed") -> str:
    return '<span class="good">ok</span>' if ok else f'<span class="bad">{bad}</span>'


def _head(tally: Tally, title: str) -> str:
    finished = tally.finished
    code = finished.exit_code if finished else None
    kind = "good" if code == 0 else "bad"
    page = (
        f'<h1>{escape(title)} <span class="{kind}">{tally.outcome.replace("_", " ")}</span></h1>\n'
    )
    if finished and code is not None:
        page += f"<p>Exit code {code}: {escape(words.MEANING.get(code, 'unknown'))}.</p>\n"
        if code:
            page += _pre(f"{finished.message}\n{finished.hint or ''}")
    if not tally.isolated:
        page += f'<p class="warn"><strong>{words.NOT_ISOLATED}</strong></p>\n'
    rows = [["run", _code(tally.run_id)]]
    if tally.began:
        rows.append(["began", f"{tally.began:%Y-%m-%d %H:%M:%S} UTC"])
    if tally.started:
        replay = ", replayed from a cassette" if tally.started.replay else ""
        rows += [
            ["recipe", _code(tally.started.recipe_file)],
            ["backend", _code(tally.started.backend)],
            ["model", _code(tally.started.model) + replay],
        ]
    phases = ", ".join(f"{p.phase} {words.seconds(p.seconds)}" for p in tally.phases)
    rows += [["time", words.seconds(finished.seconds) if finished else ""], ["phases", phases]]
    rows.append(["tokens", tokens(tally)])
    if tally.ended:
        rows.append(["sandbox", _text(sandbox_end(tally.ended)).replace("\n", "<br>")])
    return page + _table(rows)


def _checks(tally: Tally) -> str:
    if not tally.checks:
        return ""
    rows = []
    for check in tally.checks:
        belongs = "recipe" if check.prompt is None else f"prompt {check.prompt + 1}"
        detail = "" if check.ok else _pre(check.detail)
        place = _code(words.check_place(check)) if check.file else ""
        rows.append([_mark(ok=check.ok), _code(check.name) + detail, belongs, place])
    return "<h2>Checks</h2>\n" + _table(rows, ("", "check", "of", "declared"))


def _artifacts(tally: Tally, patches: Mapping[str, str]) -> str:
    if not tally.artifacts:
        return ""
    rows, shown = [], ""
    for artifact in tally.artifacts:
        mark = _mark(ok=artifact.ok, bad="missing" if artifact.required else "absent")
        rows.append([mark, escape(artifact_text(artifact)), _code((artifact.sha256 or "")[:16])])
        if artifact.ok and artifact.name in patches:
            shown += f"<details open><summary>{_code(artifact.name)}</summary>\n"
            shown += f"<pre>{_diff(patches[artifact.name])}</pre></details>\n"
    return "<h2>Artifacts</h2>\n" + _table(rows, ("", "artifact", "sha256")) + shown


def _diff(patch: str) -> str:
    lines = []
    for line in visible(cut(patch, LONGEST)).split("\n"):
        kind = {"+": "add", "-": "del", "@": "dim"}.get(line[:1])
        lines.append(f'<span class="{kind}">{escape(line)}</span>' if kind else escape(line))
    return "\n".join(lines)


class _Story:
    """What happened, in order; a tool call opens to its arguments and its result."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._saying = ("text", False)
        self._calls: dict[int, ev.ToolCall] = {}

    def told(self, event: ev.AnyEvent) -> str:
        if isinstance(event, ev.Text | ev.Think):
            saying = (event.type, event.subagent)
            before = "" if saying == self._saying else self.hush()
            self._saying = saying
            self._said.append(event.text)
            return before
        return self.hush() + "".join(self._section(event))

    def hush(self) -> str:
        said = "".join(self._said).strip()
        self._said.clear()
        if not said:
            return ""
        kind, subagent = self._saying
        by = " of a subagent" if subagent else ""
        if kind == "think":
            return f'<details class="dim"><summary>thinking{by}</summary>{_pre(said)}</details>\n'
        return f"{f'<p class="dim">{by.strip()}</p>' if by else ''}{_pre(said)}"

    def _section(self, event: ev.AnyEvent) -> Iterator[str]:
        match event:
            case ev.TurnStarted():
                name = escape(words.prompt_name(event.prompt, event.prompt_id))
                attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
                yield f"<h3>{name.capitalize()}{attempt}</h3>\n"
                yield f"<details><summary>{_code(event.text)}</summary>{_pre(event.text)}</details>"
            case ev.ToolCall():
                self._calls[event.call] = event
            case ev.ToolResult():
                yield self._result(event)
            case ev.Approval() if event.decision == "deny":
                yield f'<p class="warn">denied: {_code(event.tool)} {_code(event.rule or "")}</p>\n'
            case ev.SetupFinished():
                yield _details(
                    f"setup {_code(event.command)}", event.output, event.exit_code == 0,
                    event.seconds,
                )  # fmt: skip
            case ev.CheckFinished():
                yield _details(f"check {_code(event.name)}", event.detail, event.ok, event.seconds)
            case ev.Notice():
                kind = {"info": "", "warning": "warn", "error": "bad"}[event.level]
                hint = f"<br>{_text(event.hint)}" if event.hint else ""
                yield f'<p class="{kind}">{_text(event.message)}{hint}</p>\n'
            case ev.Retry():
                yield f'<p class="warn">{_code(event.operation)} again: {_code(event.reason)}</p>\n'

    def _result(self, event: ev.ToolResult) -> str:
        call = self._calls.get(event.call)
        about = _code(words.gist(call, 200)) if call else ""
        arguments = ""
        if call is not None:
            plain = call.arguments
            arguments = plain if isinstance(plain, str) else _readable(plain)
        by = "subagent: " if event.subagent else ""
        title = f"{by}{_code(event.tool)} {about}"
        return _details(title, f"{arguments}\n\n{event.output}", event.ok, event.seconds)


def _readable(arguments: Mapping[str, object]) -> str:
    """Arguments as `name: value`, texts as they are."""
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in arguments.items()
    )


def _details(title: str, content: str, ok: bool, seconds: float) -> str:
    head = f"<summary>{title} {_mark(ok=ok)}, {words.seconds(seconds)}</summary>"
    return f"<details>{head}{_pre(content) if content.strip() else ''}</details>\n"
