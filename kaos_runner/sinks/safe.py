"""The one place where text of tools, models and recipes is made harmless for a terminal or a page.

Colour and cursor sequences are removed with all that belongs to them; every other character that is
invisible, that moves the cursor or that reorders its neighbours is shown by its number, such as
`<U+202E>`. Line ends and tabs stay.
"""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"""
    # CSI: colours, cursor
    (?: \x1b\[ | \x9b ) [0-?]* [ -/]* [@-~]
    # OSC: titles, links, the clipboard
  | (?: \x1b\] | \x9d ) [^\x07\x1b\x9c\n]* (?: \x07 | \x1b\\ | \x9c )
    # DCS, SOS, PM, APC
  | (?: \x1b[PX^_] | [\x90\x98\x9e\x9f] ) [^\x1b\x9c]* (?: \x1b\\ | \x9c )
    # charset selection and the like, then two-character sequences
  | \x1b [ -/]+ [0-~]
  | \x1b [0-~]
    """,
    re.VERBOSE,
)
_INTRODUCER = re.compile("[\x1b\x80-\x9f]")
_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # invisible within a word
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, joiners, bidi
    "\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"  # blank letters, marks
    "\ud800-\udfff"  # halves of a pair: nothing can encode them
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # can carry a whole message
    "]"
)


def visible(text: str) -> str:
    """The text as a person may see it on a terminal, over as many lines as it has."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _INTRODUCER.search(text):  # looking for whole sequences is slow
        text = _SEQUENCE.sub("", text)
    return _UNSAFE.sub(_number, text)


def one_line(text: str, limit: int = 120) -> str:
    """The text on one line of at most `limit` characters, cut with an ellipsis."""
    line = " ".join(visible(text[: 20 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def ascii_json(line: str) -> str:
    """The same JSON document without one raw character that a terminal could act on."""
    return _UNSAFE.sub(_escape, line)


def _number(match: re.Match[str]) -> str:
    if match.group() in "\u200c\u200d" and _joins(match.string, match.start()):
        return match.group()
    return f"<U+{ord(match.group()):04X}>"


def _joins(text: str, place: int) -> bool:
    """Joiners belong to scripts and emoji; next to ASCII they only hide."""
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return len(around) == 2 and not any(c.isascii() for c in around)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
