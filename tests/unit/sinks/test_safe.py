"""Nothing that comes from a tool or a model can act on a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_runner.sinks.safe import ascii_json, one_line, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("\x1bP1;2|payload\x1b\\text", "text"),
        ("\x1b(Btext", "text"),
        ("\x1bctext", "text"),
        ("10%\r20%\r\nnext", "10%\n20%\nnext"),
        ("\x1b", "<U+001B>"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x1b\x1b[m[31m", "<U+001B>[31m"),
        ("bell\x07 back\x08", "bell<U+0007> back<U+0008>"),
        ("a\u202eb\u2066c", "a<U+202E>b<U+2066>c"),
        ("pay\u200bpal zero\ufeff", "pay<U+200B>pal zero<U+FEFF>"),
        ("a\u200db", "a<U+200D>b"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("tag \U000e0041", "tag <U+E0041>"),
        ("half \ud800", "half <U+D800>"),
        ("é ü 漢字 ✅ \ttab\n", "é ü 漢字 ✅ \ttab\n"),
    ],
)
def test_visible(text: str, seen: str) -> None:
    assert visible(text) == seen


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    seen = visible(text)
    kinds = {
        unicodedata.category(c) for c in seen if c not in "\n\t\u200c\u200d" and ord(c) < 0x110B0
    }
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    seen.encode()
    assert visible(seen) == seen


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_keeps_its_value(text: str) -> None:
    line = json.dumps({"text": text}, ensure_ascii=False)
    assert json.loads(ascii_json(line)) == {"text": text}
    assert visible(ascii_json(line)) == ascii_json(line)


def test_one_line_is_cut() -> None:
    assert one_line("a\n b\tc") == "a b c"
    assert one_line("x" * 200, 10) == "x" * 9 + "…"
