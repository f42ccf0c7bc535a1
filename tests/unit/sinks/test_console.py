"""What a person sees: plain lines in a pipe, a live view on a terminal, and what goes where."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from kaos_runner import events as ev
from kaos_runner.sinks.console import ConsoleSink, console_sink, same_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Stamp = Callable[[Iterable[ev.AnyEvent]], list[ev.Record]]

PLAIN = """\
run       tidy on local: 2 prompts, model scripted, replayed from a cassette
record    /somewhere/.kaos-runner/runs/20261123-085959-4f3a2c
WARNING   nothing is isolated: commands run as you on this machine
retry     create: attempt 1 failed (503), again in 2.0s
sandbox   local box-1 created, workdir /w
setup     git init -q (ok, 0.1s)
prompt    1/2 (fix): Find the bug and fix it.
text      I look around.
tool 1    Shell: python3 -m unittest -q
tool 2    ReadFile: a.py
tool 2    ok, 0.0s
tool 1    failed, 12s
          … 5 lines left out
          line 6
          line 7
          line 8
          line 9
          line 10
text      Done.
check     tests: ok, 0.3s
prompt    prompt 1 (fix) succeeded
prompt    2/2: Write PLAN.md.
text      The plan is made.

          It is short.
prompt    prompt 2 succeeded
check     file PLAN.md: failed (recipes/tidy.yaml:31), 0.0s
          PLAN.md does not exist
artifact  change.patch, 1.2 KiB
artifact  PLAN.md: absent (optional): no such file
WARNING   the model was slow
          take another
sandbox   box-1: kept, and still running (cleanup: on_success)
          come back: kaos-runner shell box-1

result    tidy failed in 26s (exit code 1: it ran, and a check, an output schema or a required \
artifact failed)
why       check failed: file PLAN.md
hint      see the record
checks    1 of 2 hold
          ok      tests         prompt 1 (fix)
          FAILED  file PLAN.md  recipe  recipes/tidy.yaml:31
artifact  change.patch, 1.2 KiB
          a.py | 2 +-
          1 file changed, 1 insertion(+), 1 deletion(-)
artifact  PLAN.md: absent (optional): no such file
tokens    13.0k in (10.0k from cache), 250 out; 2 steps, 2 tool calls
sandbox   box-1: kept, and still running (cleanup: on_success)
          come back: kaos-runner shell box-1
record    /somewhere/.kaos-runner/runs/20261123-085959-4f3a2c
WARNING   nothing is isolated: commands run as you on this machine
"""


def told(records: list[ev.Record], verbosity: int = 0) -> tuple[str, str]:
    """What a run says on stderr and on stdout, both in a pipe."""
    err, out = io.StringIO(), io.StringIO()
    feed(console_sink(verbosity, {}, told=err, result=out), records)
    return err.getvalue(), out.getvalue()


def feed(sink: ConsoleSink, records: list[ev.Record]) -> None:
    for record in records:
        sink.handle(record)
    sink.close()
    sink.close()


def test_plain_lines(story: list[ev.Record]) -> None:
    err, out = told(story)
    assert err == PLAIN
    assert out == "The plan is made.\n\nIt is short.\n"


def test_quiet_says_the_outcome_and_the_warnings(story: list[ev.Record]) -> None:
    err, out = told(story, -1)
    assert [line.split()[0] for line in err.splitlines()] == [
        "WARNING", "WARNING", "take", "result", "why", "hint",
    ]  # fmt: skip
    assert out == "The plan is made.\n\nIt is short.\n"


def test_verbose_adds_thoughts_outputs_and_phases(story: list[ev.Record]) -> None:
    err, _ = told(story, 1)
    for line in (
        "think     A bug, surely.",
        "phase     sandbox: done, 2.5s",
        "tokens    12300 in (10000 from cache), 200 out",
        "tool 2    allowed by rule: read *",
        "          x = 1",
        "          line 1",
        "          and fix it.",
    ):
        assert line in err.splitlines()


def test_success_and_cleanup_failure(stamp: Stamp, started: ev.RunStarted) -> None:
    end = ev.RunFinished(
        status="succeeded", exit_code=0, message="all well", seconds=75, steps=0,
        input_tokens=0, output_tokens=0,
    )  # fmt: skip
    isolated = started.model_copy(update={"isolation": "auto"})
    ready = ev.SandboxReady(
        backend="local", sandbox_id="box-1", created=True, workdir="/w", isolation="bubblewrap"
    )
    err, out = told(stamp([isolated, ready, end]))
    assert "local box-1 created, workdir /w, isolated by bubblewrap\n" in err
    assert "WARNING" not in err
    assert (
        "tidy succeeded in 1m 15s (exit code 0: the recipe ran, and everything it demands holds)"
        in err
    )
    assert out == ""

    ended = ev.SandboxEnded(sandbox_id="box-1", end="failed", reason="500", command="rm box-1")
    err, _ = told(stamp([isolated, ended, end.model_copy(update={"exit_code": 7})]))
    assert "sandbox   box-1: COULD NOT BE CLEANED UP (500)\n          remove it: rm box-1\n" in err


def test_the_isolation_warning_is_told_once_at_the_start(
    stamp: Stamp, started: ev.RunStarted
) -> None:
    notice = ev.Notice(
        level="warning", message="nothing is isolated: commands run as you on this machine"
    )
    ready = ev.SandboxReady(
        backend="local", sandbox_id="b", created=True, workdir="/w", isolation="none"
    )
    for begun in (started, started.model_copy(update={"isolation": "auto"})):
        for verbosity in (-1, 0):
            err, _ = told(stamp([begun, ready, notice]), verbosity)
            start, *end = err.split("\n\n")
            assert start.count("nothing is isolated") == 1
            assert [part.count("nothing is isolated") for part in end] == [1] * (verbosity + 1)


def test_a_run_that_breaks_off_is_told_as_such(story: list[ev.Record]) -> None:
    err, _ = told(story[:12])
    assert "result    the run did not come to its end" in err


def test_nothing_is_told_of_a_run_that_never_began() -> None:
    assert told([]) == ("", "")


@pytest.mark.parametrize("verbosity", [-1, 0, 1, 2])
def test_hostile_text_is_harmless(hostile_story: list[ev.Record], verbosity: int) -> None:
    err, out = told(hostile_story, verbosity)
    for text in (err, out):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e\u2066]", text)
    assert "<U+202E>evil" in out


def test_a_reader_that_leaves_does_not_end_the_run(story: list[ev.Record]) -> None:
    read, write = os.pipe()
    os.close(read)
    pipe = os.fdopen(write, "w", buffering=1)
    feed(console_sink(0, {}, told=pipe, result=pipe), story)
    with suppress(BrokenPipeError):
        pipe.close()


def test_the_message_is_not_printed_twice_in_one_place(story: list[ev.Record]) -> None:
    both = io.StringIO()
    feed(console_sink(0, {}, told=both, result=both), story)
    assert both.getvalue() == PLAIN
    quiet = io.StringIO()
    feed(console_sink(-1, {}, told=quiet, result=quiet), story)
    assert quiet.getvalue().endswith("\nThe plan is made.\n\nIt is short.\n")


def test_same_place_compares_files() -> None:
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "w") as one, os.fdopen(os.dup(write), "w") as other:
        assert same_place(one, other)
        assert not same_place(one, io.StringIO())


def on_terminal(records: list[ev.Record], environ: dict[str, str], verbosity: int = 0) -> str:
    """All bytes that a terminal gets."""
    main, terminal = pty.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(main, 65536):
                chunks.append(chunk)
        except OSError:
            pass  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(terminal, "w", buffering=1) as stream:
        feed(console_sink(verbosity, environ, told=stream, result=stream), records)
    reader.join()
    os.close(main)
    return b"".join(chunks).decode()


SGR = re.compile(r"\x1b\[[0-9;]*m")


def test_a_terminal_gets_a_live_view(story: list[ev.Record]) -> None:
    seen = on_terminal(story, {"TERM": "xterm-256color"})
    assert "\x1b[1;31mresult" in seen
    assert "\x1b[?25l" in seen  # hides the cursor for as long as the view lives
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    text = SGR.sub("", seen)
    assert "Shell: python3 -m unittest -q (failed, 12s)" in text
    assert text.count("It is short.") == 1


@pytest.mark.parametrize("environ", [{"CI": "true"}, {"TERM": "dumb"}])
def test_no_live_view_where_it_cannot_be(story: list[ev.Record], environ: dict[str, str]) -> None:
    assert on_terminal(story, environ).replace("\r\n", "\n") == PLAIN


def test_no_colour(story: list[ev.Record]) -> None:
    seen = on_terminal(story, {"NO_COLOR": "1", "TERM": "xterm-256color"})
    colours = [code for code in SGR.findall(seen) if re.search(r"[;\[](3|4|9)[0-9]", code)]
    assert colours == []


def test_hostile_text_on_a_terminal(hostile_story: list[ev.Record]) -> None:
    seen = on_terminal(hostile_story, {"TERM": "xterm-256color"}, 2)
    ours = re.sub(r"\x1b\[(?:\?25[lh]|[0-9;]*[mAK])", "", seen)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", ours)
    assert "\x1b[2J" not in seen


def test_a_question_pauses_the_live_view(story: list[ev.Record]) -> None:
    from kaos_runner.sinks.live import LiveConsoleSink

    screen = io.StringIO()
    sink = LiveConsoleSink(screen, screen)
    for record in story[:17]:
        sink.handle(record)
    with sink.paused():
        before = screen.getvalue()
        assert before.endswith("\x1b[?25h\r\x1b[1A\x1b[2K\x1b[1A\x1b[2K")
    assert screen.getvalue().startswith(before + "\x1b[?25l")
    sink.close()


def test_what_a_subagent_says_stays_apart(stamp: Stamp, started: ev.RunStarted) -> None:
    said = [
        ev.Text(text="I ask"),
        ev.Text(text="look", subagent=True),
        ev.Text(text="ing", subagent=True),
        ev.Text(text=" a helper."),
    ]
    err, _ = told(stamp([started, *said, ev.StepStarted(step=2)]))
    lines = err.splitlines()
    place = lines.index("text      I ask")
    assert lines[place + 1 : place + 3] == ["sub text  looking", "text      a helper."]
