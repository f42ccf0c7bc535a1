"""The page that GitHub shows for a step: what ran, what held, what it used, what came home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos_runner.sinks import words
from kaos_runner.sinks.markdown import cell, code, cut, fence, table
from kaos_runner.sinks.narrate import artifact_text, sandbox_end
from kaos_runner.sinks.safe import one_line
from kaos_runner.sinks.summary import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kaos_runner.events import CheckFinished
    from kaos_runner.sinks.tally import Tally

ROWS = 200
"""Rows of one table at most."""


def summary_page(tally: Tally, limit: int) -> str:
    """The page in at most `limit` bytes: whole sections, as many as fit."""
    page = ""
    note = "\n_The rest of this summary is too long for GitHub; the run's record has it._\n"
    for section in _sections(tally):
        if len((page + section + note).encode(errors="backslashreplace")) > limit:
            return page + note
        page += section
    return page


def failure_page(exit_code: int, message: str) -> str:
    """The page for a run that never began."""
    meaning = words.MEANING.get(exit_code, "failed")
    return f"## ❌ kaos-runner: {meaning}\n\n{fence(cut(message, 20_000))}\n"


def _sections(tally: Tally) -> Iterator[str]:
    yield _head(tally)
    yield _facts(tally)
    yield _checks(tally)
    yield _artifacts(tally)
    if tally.ended:
        yield f"**Sandbox**\n\n{fence(sandbox_end(tally.ended))}\n"
    if tally.final_message.strip():
        yield f"**Final message**\n\n{fence(cut(tally.final_message, 20_000))}\n"


def _head(tally: Tally) -> str:
    name = code(tally.started.recipe if tally.started else tally.run_id)
    finished = tally.finished
    if finished is None:
        return f"## ❌ {name} did not come to its end\n\n"
    mark = "✅" if finished.exit_code == 0 else "❌"
    status = finished.status.replace("_", " ")
    page = f"## {mark} {name} {status}\n\n"
    if not tally.isolated:
        page += f"> [!WARNING]\n> {words.NOT_ISOLATED}\n\n"
    if finished.exit_code != 0:
        meaning = words.MEANING.get(finished.exit_code, "unknown")
        hint = f"\n{finished.hint}" if finished.hint else ""
        page += f"Exit code {finished.exit_code}: {meaning}.\n\n{fence(finished.message + hint)}\n"
    return page


def _facts(tally: Tally) -> str:
    rows = [["run", cell(tally.run_id)]]
    if tally.started:
        replay = ", replayed from a cassette" if tally.started.replay else ""
        rows += [
            ["recipe", cell(tally.started.recipe_file)],
            ["backend", cell(tally.started.backend)],
            ["model", cell(tally.started.model) + replay],
            ["prompts", f"{len(tally.prompts)} of {tally.started.prompts} finished"],
        ]
    if tally.finished:
        rows.append(["time", words.seconds(tally.finished.seconds)])
    rows.append(["tokens", tokens(tally)])
    return table(["", ""], rows) + "\n"


def _checks(tally: Tally) -> str:
    checks = tally.checks
    if not checks:
        return ""
    # the failed ones first: a long table is cut at its end
    ordered = sorted(checks, key=lambda check: check.ok)
    page = table(["", "check", "of", "declared", "time"], [_row(c) for c in ordered[:ROWS]])
    left_out = len(ordered) - ROWS
    if left_out > 0:
        page += f"\n_{words.plural(left_out, 'check')} left out._\n"
    for check in [check for check in checks if not check.ok][:10]:
        page += f"\n{cell(check.name)}\n\n{fence(cut(check.detail, 4000))}"
    return page + "\n"


def _row(check: CheckFinished) -> list[str]:
    belongs = "recipe" if check.prompt is None else f"prompt {check.prompt + 1}"
    if check.attempt > 1:
        belongs += f", attempt {check.attempt}"
    mark = "✅" if check.ok else "❌"
    place = cell(words.check_place(check))
    return [mark, cell(check.name), belongs, place, words.seconds(check.seconds)]


def _artifacts(tally: Tally) -> str:
    if not tally.artifacts:
        return ""
    rows = []
    for artifact in tally.artifacts[:ROWS]:
        mark = "✅" if artifact.ok else "❌" if artifact.required else "⚪"
        digest = artifact.sha256[:12] if artifact.sha256 else ""
        rows.append([mark, cell(one_line(artifact_text(artifact))), cell(digest)])
    page = table(["", "artifact", "sha256"], rows)
    patch = tally.patch
    if patch and patch.detail.strip():
        page += f"\n{fence(cut(patch.detail, 8000))}"
    return page + "\n"
