"""The page of a run: whole, readable, and dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import html  # type: ignore[import-untyped]

from kaos_runner.sinks.html import page

if TYPE_CHECKING:
    from kaos_runner import events as ev

TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "strong", "table",
    "tr", "th", "td", "code", "pre", "span", "details", "summary", "br",
}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "open"}
PATCH = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = '<script>'\n"


def words_of(text: str) -> str:
    """All that a reader sees, on one line."""
    return " ".join(" ".join(html.fromstring(text.encode()).find("body").itertext()).split())


def test_the_page_tells_the_story(story: list[ev.Record]) -> None:
    seen = words_of(page(story, {"change.patch": PATCH}))
    for part in (
        "tidy failed Exit code 1: it ran, and a check",
        "nothing is isolated: commands run as you on this machine",
        "run 20261123-085959-4f3a2c began 2026-11-23 09:00:00 UTC",
        "failed file PLAN.md PLAN.md does not exist recipe recipes/tidy.yaml:31",
        "ok change.patch, 1.2 KiB aaaaaaaaaaaaaaaa",
        "+x = '<script>'",
        "Prompt 1 (fix)",
        "thinking A bug, surely.",
        "Shell python3 -m unittest -q failed , 12s command: python3 -m unittest -q line 1",
        "The plan is made. It is short.",
        "come back: kaos-runner shell box-1",
    ):
        assert part in seen


def test_a_run_that_breaks_off_has_a_page(story: list[ev.Record]) -> None:
    assert "tidy unfinished" in words_of(page(story[:15], {}))


def test_no_content_is_markup(hostile_story: list[ev.Record], hostile: str) -> None:
    text = page(hostile_story, {hostile: hostile})
    document = html.fromstring(text.encode())
    elements = [element for element in document.iter() if isinstance(element.tag, str)]
    assert {element.tag for element in elements} <= TAGS
    assert {name for element in elements for name in element.attrib} <= ATTRIBUTES
    assert "<script>alert(1)</script>" in words_of(text)
    assert not {"\x1b", "\x9b", "\u202e", "\x00"} & set(text)


def test_the_page_forbids_itself_everything(story: list[ev.Record]) -> None:
    text = page(story, {})
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in text
    assert "url(" not in text
    assert "@import" not in text


def test_nothing_is_without_bounds(story: list[ev.Record]) -> None:
    assert len(page(story, {"change.patch": "+x\n" * 1_000_000})) < 2_000_000
