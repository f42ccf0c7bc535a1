"""YAML to nodes: scalars of YAML 1.2, places, and every bound."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kaos_runner.recipe.compose import MAX_DEPTH, compose
from kaos_runner.recipe.nodes import Node, format_path
from kaos_runner.recipe.source import Source


def _compose(text: str) -> tuple[Node | None, list[str]]:
    node, problems = compose(Source("f.yaml", Path("f.yaml"), text, text.encode()))
    return node, [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"), ("yes", "yes"), ("n", "n"), ("1:30", "1:30"), ("190:20:30", "190:20:30"),
        ("010", 10), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"), ("2024-01-01", "2024-01-01"),
        ("true", True), ("FALSE", False), ("tRUE", "tRUE"), ("~", None), ("null", None), ("", None),
        ("1e3", 1000.0), (".5", 0.5), ("-1.", -1.0), ("+12", 12), ("1.2.3", "1.2.3"), ("-", "-x"),
        ("'1'", "1"), ("!!str 1", "1"), ("!!float 1", 1.0), ("0b11", "0b11"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(written: str, value: Any) -> None:
    if written == "-":
        written = "-x"
    node, problems = _compose(f"a: {written}\n")
    assert problems == []
    assert node is not None
    found = node.plain()["a"]
    assert (found, type(found)) == (value, type(value))


def test_nodes_know_their_places() -> None:
    node, _ = _compose("a:\n  - b: 1\n    ü: [x, y]\n")
    assert node is not None
    inner = node.find(("a", 0, "ü", 1))
    assert inner is not None
    assert inner.source.line_column(inner.start) == (3, 12)
    entry = node.find(("a", 0))
    assert entry is not None
    assert entry.keys is not None
    assert entry.source.line_column(entry.keys["ü"].start) == (3, 5)


def test_an_alias_is_the_same_value() -> None:
    node, problems = _compose("a: &x {b: 1}\nc: *x\n")
    assert problems == []
    assert node is not None
    assert node.plain() == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 lol\n"
        + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]",
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 100_000,
        "- " * 100_000,
        "a:\n" + "".join(" " * i + "- a:\n" for i in range(700)),
        "? " * 100_000,
        "&a " * 10_000 + "x",
        "!!a " * 10_000 + "x",
        "%YAML 9.9\n---\na: 1",
        "%TAG ! tag:x,2000:\n---\na: !b c",
        "a: *b" * 10_000,
        "--- " * 10_000,
        "a: " + "9" * 500_000,
        "a: 0x" + "f" * 500_000,
        "a: 1e" + "9" * 500_000,
        "'" * 99_999,
        '"\\x' * 50_000,
        "a: |99999999\n x",
        "\ufeff\ufeffa: 1",
        "{" + ", ".join(f"k{i}: 1" for i in range(40_000)) + "}",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_hostile_yaml_takes_bounded_work(text: str) -> None:
    begun = time.process_time()
    node, problems = _compose(text)
    assert node is not None or problems
    assert time.process_time() - begun < 20  # a hang, not a speed: it takes well under a second


def test_depth_limit_is_exact() -> None:
    fits, problems = _compose("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert fits is not None
    assert problems == []
    _, problems = _compose("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))
    assert problems == [f"f.yaml:1:{MAX_DEPTH + 2}: nested deeper than {MAX_DEPTH} levels"]


def test_all_faults_of_a_file_are_told() -> None:
    _, problems = _compose("a: 1\na: 2\nb: !x 3\n4: c\nd: .inf\n")
    assert [problem.split(":")[1] for problem in problems] == ["2", "3", "4", "5"]


def test_paths_are_written_as_people_do() -> None:
    assert format_path(("prompts", 1, "checks", 0, "run")) == "prompts[1].checks[0].run"
    assert format_path(("env", "A B")) == "env['A B']"
    assert format_path(()) == ""
