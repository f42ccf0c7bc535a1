"""Reading a file: bounded, decoded, never waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kaos_runner.recipe.load import load
from kaos_runner.recipe.source import MAX_BYTES, UnreadableError, read_source


def _refusal(path: Path) -> str:
    with pytest.raises(UnreadableError) as caught:
        read_source(path, path.name)
    return caught.value.message


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    assert _refusal(fifo) == "is not a regular file"


def test_directory_names_a_next_step(tmp_path: Path) -> None:
    problem = load(tmp_path).problems[0]
    assert problem.message == "the file is a directory, not a recipe"
    assert problem.hint == "name a file in it, such as `DIR/*.yaml`"


def test_device_is_refused() -> None:
    assert _refusal(Path("/dev/zero")) == "is not a regular file"


def test_missing_file(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none.yaml") == "does not exist"


def test_name_with_a_null_byte(tmp_path: Path) -> None:
    assert "cannot be read" in _refusal(tmp_path / "a\0b")


def test_file_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert _refusal(tmp_path / "a" / "b").startswith("cannot be read: ")


@pytest.mark.parametrize(("size", "fits"), [(MAX_BYTES, True), (MAX_BYTES + 1, False)])
def test_one_mebibyte_is_the_limit(tmp_path: Path, size: int, fits: bool) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * size)
    if fits:
        assert len(read_source(path, "large.yaml").content) == size
    else:
        assert _refusal(path) == "is larger than 1 MiB"


def test_sparse_gigabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.yaml"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    assert _refusal(path) == "is larger than 1 MiB"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: b".encode("utf-16"), "is UTF-16 or UTF-32 text"),
        ("a: b".encode("utf-32"), "is UTF-16 or UTF-32 text"),
        (b"a\x00b", "is binary, not text"),
        (b"a: \xff", "is not UTF-8: byte 0xff"),
        (b"a: \xed\xa0\x80", "is not UTF-8: byte 0xed"),
        (b"a: \x1b[31m", "holds the control character U+001B"),
    ],
)
def test_what_is_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert _refusal(path) == message


def test_places_count_characters(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text("é: ü\r\nß: x\n", encoding="utf-8", newline="")
    source = read_source(path, "wide.yaml")
    assert source.line_column(source.text.index("x")) == (2, 4)
    assert source.line(1) == "é: ü"
    assert source.line(9) is None
