"""Masking: every form that a value is known by, and nothing else."""

from __future__ import annotations

import base64
import json
import re
import shlex
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_runner.secrets import MASK, Mask, resolve

VALUE = "s3cr3t/with+odd=chars&'quotes'\"é"


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        json.dumps(VALUE)[1:-1],
        json.dumps(VALUE, ensure_ascii=False)[1:-1],
        quote(VALUE),
        quote(VALUE, safe=""),
        re.sub("%..", lambda m: m.group().lower(), quote(VALUE, safe="")),
        quote_plus(VALUE),
        shlex.quote(VALUE),
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
    ],
)
def test_masks_a_form(form: str) -> None:
    assert Mask([VALUE])(f"before {form} after") == f"before {MASK} after"


@given(st.text(max_size=9), st.text(min_size=12, max_size=40), st.text(max_size=9))
def test_masks_base64_at_every_alignment(before: str, value: str, after: str) -> None:
    raw = value.encode()
    coded = base64.b64encode(before.encode() + raw + after.encode()).decode()
    shift = len(before.encode()) % 3
    core = base64.b64encode(bytes(shift) + raw + bytes(2)).decode()
    core = core[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
    assert core in coded

    masked = Mask([value])(coded)

    assert core not in masked
    assert MASK in masked


def test_masks_the_lines_of_a_key_file() -> None:
    key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nDDDDEEEEFFFF\n-----END KEY-----\n"
    assert "DDDDEEEEFFFF" not in Mask([key])("only one line: DDDDEEEEFFFF")


def test_leaves_other_text_alone() -> None:
    assert Mask([VALUE])("nothing to see") == "nothing to see"
    assert Mask([])("nothing to mask") == "nothing to mask"


@given(st.integers(1, 7))
def test_finds_a_secret_across_chunks(size: int) -> None:
    content = b"x" * 50 + VALUE.encode() + b"y" * 50
    scan = Mask([VALUE]).scan()
    assert any(scan(content[i : i + size]) for i in range(0, len(content), size))


def test_finds_nothing_in_innocent_chunks() -> None:
    scan = Mask([VALUE]).scan()
    assert not any(scan(b"innocent text") for _ in range(100))


def test_resolve_names_every_fault_and_no_value() -> None:
    values, problems = resolve(
        ["GOOD", "ABSENT", "SHORT"], {"GOOD": "long enough", "SHORT": "tiny42"}
    )
    assert values == {"GOOD": "long enough"}
    assert [p.message for p in problems] == [
        "the secret ABSENT is not set on this machine",
        "the secret SHORT is shorter than 8 characters",
    ]
    assert "tiny42" not in str(problems)


LONG = "long-secret-" + "0123456789abcdefghijklmnopqrstuvwxyz" * 4


@pytest.mark.parametrize(
    "coded",
    [
        base64.encodebytes(LONG.encode()).decode(),
        base64.encodebytes(b"a line before\n" + LONG.encode() + b"\nand after").decode(),
        "\n".join(re.findall(".{1,60}", LONG.encode().hex())),
        " ".join(re.findall("..", LONG.encode().hex())),
        base64.encodebytes(LONG.encode()).decode().replace("\n", "\r\n"),
    ],
)
def test_masks_and_finds_what_a_tool_has_wrapped(coded: str) -> None:
    masked = Mask([LONG])(coded)
    assert MASK in masked
    assert len(masked) < len(coded) / 2
    for size in (7, 64, 10_000):
        scan = Mask([LONG]).scan()
        chunks = [coded[i : i + size].encode() for i in range(0, len(coded), size)]
        assert any(scan(chunk) for chunk in chunks)
