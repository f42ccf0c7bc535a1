"""`--junit FILE`: a case per prompt and per check, for every CI system that reads JUnit's XML.

The form is the strict one of Ant's reports, whose readers want an order of elements and attributes
that others leave open; what is strict enough for it is read everywhere.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from kaos_runner import events as ev
from kaos_runner.sinks import words
from kaos_runner.sinks.markdown import cut
from kaos_runner.sinks.safe import one_line, visible
from kaos_runner.sinks.summary import outcome
from kaos_runner.sinks.tally import Tally

if TYPE_CHECKING:
    from datetime import datetime

LONGEST = 20_000
"""Characters of one detail."""


class JunitSink:
    """Writes one report when the stream is over."""

    def __init__(self, file: Path) -> None:
        self.tally = Tally()
        self.failure: OSError | None = None
        """Why there is no report."""
        self._file = file
        self._began: dict[int, datetime] = {}
        self._ended: dict[int, datetime] = {}

    def handle(self, record: ev.Record) -> None:
        """Take one record."""
        self.tally.add(record)
        match record.event:
            case ev.TurnStarted() as event:
                self._began.setdefault(event.prompt, record.at)
            case ev.TurnFinished() | ev.PromptFinished() as event:
                self._ended[event.prompt] = record.at

    def close(self) -> None:
        """Write the report, atomically; nothing for a stream that never began."""
        if not self.tally.run_id:
            return
        try:
            write_report(self._file, report(self.tally, self._seconds()))
        except OSError as error:
            self.failure = error

    def _seconds(self) -> dict[int, float]:
        return {
            prompt: (ended - self._began[prompt]).total_seconds()
            for prompt, ended in self._ended.items()
            if prompt in self._began
        }


def report(tally: Tally, seconds: dict[int, float]) -> ET.Element:
    """The document: one suite, whose cases are the prompts, the checks, and the run itself."""
    cases = _cases(tally, seconds)
    suites = ET.Element("testsuites")
    recipe = one_line(tally.started.recipe) if tally.started else "kaos-runner"
    suite = ET.SubElement(
        suites, "testsuite", name=recipe, package="kaos-runner", id="0", hostname="localhost"
    )
    began = tally.began or tally.latest
    suite.set("timestamp", f"{began:%Y-%m-%dT%H:%M:%S}" if began else "1970-01-01T00:00:00")
    suite.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", f"{tally.finished.seconds if tally.finished else 0:.3f}")
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(tally).items():
        ET.SubElement(properties, "property", name=name, value=one_line(value, 500))
    for case in cases:
        case.set("classname", recipe)
        suite.append(case)
    ET.SubElement(suite, "system-out").text = visible(cut(tally.final_message, LONGEST))
    lines = [f"{line.tag}: {line.text}" for line in outcome(tally)]
    ET.SubElement(suite, "system-err").text = "\n".join(lines)
    return suites


def refusal(exit_code: int, message: str) -> ET.Element:
    """The document for a run that never began: one case, which is an error."""
    refused = ev.RunFinished(
        status="invalid", exit_code=exit_code, message=message, seconds=0, steps=0,
        input_tokens=0, output_tokens=0,
    )  # fmt: skip
    return report(Tally(finished=refused), {})


def write_report(file: Path, document: ET.Element) -> None:
    """Write the document so that a reader sees the old file or the whole new one.

    Raises:
        OSError: it cannot be written.
    """
    ET.indent(document)
    if file.exists() and not file.is_file():  # a device or a pipe is written to, never replaced
        with file.open("wb") as out:
            ET.ElementTree(document).write(out, encoding="utf-8", xml_declaration=True)
        return
    file = file.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(handle, "wb") as out:
        ET.ElementTree(document).write(out, encoding="utf-8", xml_declaration=True)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(file)


def _cases(tally: Tally, seconds: dict[int, float]) -> list[ET.Element]:
    prompts = tally.started.prompts if tally.started else 0
    return [
        *(_prompt_case(tally, index, seconds.get(index, 0.0)) for index in range(prompts)),
        *(_check_case(check) for check in tally.checks),
        *(_artifact_case(artifact) for artifact in tally.artifacts if artifact.required),
        _run_case(tally),
    ]


def _case(name: str, seconds: float) -> ET.Element:
    return ET.Element("testcase", name=name, time=f"{seconds:.3f}")


def _bad(case: ET.Element, tag: str, kind: str, message: str, detail: str = "") -> None:
    element = ET.SubElement(case, tag, message=one_line(message, 300), type=kind)
    element.text = visible(cut(detail or message, LONGEST))


def _prompt_case(tally: Tally, index: int, seconds: float) -> ET.Element:
    ids = {prompt.prompt: prompt.prompt_id for prompt in tally.begun}
    case = _case(words.prompt_name(index, ids.get(index)), seconds)
    ended = next((p for p in tally.prompts if p.prompt == index), None)
    if ended is None:
        if tally.turn is not None and tally.turn.prompt == index:
            _bad(case, "error", "not_finished", "the prompt did not come to its end")
        else:
            ET.SubElement(case, "skipped")
    elif ended.status == "failed":
        tries = words.plural(ended.attempts, "attempt")
        _bad(case, "failure", "failed", f"failed after {tries}", ended.final_message)
    return case


def _check_case(check: ev.CheckFinished) -> ET.Element:
    belongs = "recipe" if check.prompt is None else f"prompt {check.prompt + 1}"
    case = _case(f"{belongs}: {one_line(check.name)}", check.seconds)
    if not check.ok:
        place = words.check_place(check)
        detail = f"{place}\n{check.detail}" if place else check.detail
        first = next((line for line in check.detail.splitlines() if line.strip()), "failed")
        _bad(case, "failure", check.kind, first, detail)
    return case


def _artifact_case(artifact: ev.ArtifactCollected) -> ET.Element:
    case = _case(f"artifact: {one_line(artifact.name)}", 0.0)
    if not artifact.ok:
        _bad(case, "failure", artifact.kind, artifact.detail or "missing")
    return case


def _run_case(tally: Tally) -> ET.Element:
    """The run itself: an error where it failed for another reason than what it demands."""
    finished = tally.finished
    case = _case("run", finished.seconds if finished else 0.0)
    if finished is None:
        _bad(case, "error", "unfinished", "the run did not come to its end")
    elif finished.exit_code not in (0, 1):
        meaning = words.MEANING.get(finished.exit_code, "unknown")
        hint = f"\n{finished.hint}" if finished.hint else ""
        detail = f"exit code {finished.exit_code}: {meaning}\n{finished.message}{hint}"
        _bad(case, "error", finished.status, finished.message or meaning, detail)
    return case


def _properties(tally: Tally) -> dict[str, str]:
    found = {"run-id": tally.run_id, "tokens": str(tally.tokens.total)}
    if tally.started:
        found |= {"recipe-file": tally.started.recipe_file, "backend": tally.started.backend}
        found |= {"model": tally.started.model, "run-dir": tally.started.run_dir}
    if tally.finished:
        found["exit-code"] = str(tally.finished.exit_code)
    return found
