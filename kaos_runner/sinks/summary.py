"""The block that ends a run: outcome, checks, artifacts, tokens, sandbox, record."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

from kaos_runner.sinks import words
from kaos_runner.sinks.narrate import Line, artifact_text, sandbox_end, sandbox_lost, tail
from kaos_runner.sinks.safe import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.events import CheckFinished
    from kaos_runner.sinks.narrate import Style
    from kaos_runner.sinks.tally import Tally


def summary(tally: Tally) -> Iterator[Line]:
    """The whole block; what a run does not have is left out."""
    yield from outcome(tally)
    yield from _checks(tally)
    for artifact in tally.artifacts:
        stat = dedent(tail(artifact.detail, 3)) if artifact.ok else ""
        text = artifact_text(artifact)
        style: Style = "plain" if artifact.ok else "bad" if artifact.required else "dim"
        yield Line("artifact", f"{text}\n{stat}" if stat else text, style)
    yield Line("tokens", tokens(tally))
    if tally.ended:
        failed = tally.ended.end == "failed"
        yield Line("sandbox", sandbox_end(tally.ended), "bad" if failed else "plain")
    elif tally.sandbox and not tally.finished:
        yield Line("sandbox", sandbox_lost(tally.sandbox), "bad")
    if tally.started:
        yield Line("record", one_line(tally.started.run_dir, 500))
    if not tally.isolated:
        yield Line("WARNING", words.NOT_ISOLATED, "warn")


def outcome(tally: Tally) -> Iterator[Line]:
    """How it ended in one line, with the exit code and its meaning; then why, and what to do."""
    finished = tally.finished
    if finished is None:
        yield Line("result", "the run did not come to its end", "bad")
        return
    name = one_line(tally.started.recipe) if tally.started else "run"
    status = finished.status.replace("_", " ")
    meaning = words.MEANING.get(finished.exit_code, "unknown")
    good = finished.exit_code == 0
    yield Line(
        "result",
        f"{name} {status} in {words.seconds(finished.seconds)} "
        f"(exit code {finished.exit_code}: {meaning})",
        "good" if good else "bad",
    )
    if not good and finished.message:
        yield Line("why", visible(finished.message).strip(), "bad")
    if finished.hint:
        yield Line("hint", visible(finished.hint).strip(), "title")


def tokens(tally: Tally) -> str:
    """Tokens, model calls and tool calls of the whole run."""
    spent = tally.tokens
    cached = f" ({words.count(spent.cache_read)} from cache)" if spent.cache_read else ""
    return (
        f"{words.count(spent.input)} in{cached}, {words.count(spent.output)} out; "
        f"{words.plural(tally.steps, 'step')}, {words.plural(tally.calls, 'tool call')}"
    )


def _checks(tally: Tally) -> Iterator[Line]:
    checks = tally.checks
    if not checks:
        return
    held = sum(check.ok for check in checks)
    width = min(40, max(len(one_line(check.name, 40)) for check in checks))
    rows = [f"{held} of {len(checks)} hold", *(_check_row(check, width, tally) for check in checks)]
    yield Line("checks", "\n".join(rows), "good" if held == len(checks) else "bad")


def _check_row(check: CheckFinished, width: int, tally: Tally) -> str:
    belongs = "recipe"
    if check.prompt is not None:
        ids = {turn.prompt: turn.prompt_id for turn in tally.begun}
        belongs = words.prompt_name(check.prompt, ids.get(check.prompt))
        if check.attempt > 1:
            belongs += f", attempt {check.attempt}"
    row = f"{'ok' if check.ok else 'FAILED':<6}  {one_line(check.name, 40):<{width}}  {belongs}"
    place = words.check_place(check)
    return row if check.ok or not place else f"{row}  {place}"
