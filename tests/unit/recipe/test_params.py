"""Parameters: types, rules, precedence and origins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos_runner.errors import RecipeError, UsageError
from kaos_runner.recipe.params import Declared, ParamValue, convert, gather, settle
from kaos_runner.recipe.patterns import PatternError, compile_pattern, mismatch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "3", "3"), ("string", "", ""), ("integer", "3", 3), ("integer", "-1_000", -1000),
        ("number", "2.5", 2.5), ("number", "3", 3.0), ("boolean", "yes", True),
        ("boolean", "0", False), ("boolean", "TRUE", True), ("list", "", []),
        ("list", "a, b,c", ["a", "b", "c"]),
        ("list", '["a", 1]', ["a", 1]),
    ],
)  # fmt: skip
def test_text_is_read_as_the_declared_type(kind: str, text: str, value: Any) -> None:
    assert convert(Declared("x", type=kind), text) == (value, None)


@pytest.mark.parametrize(
    ("param", "value", "fault"),
    [
        (Declared("x", type="integer"), "3.5", "`3.5` is not a whole number"),
        (Declared("x", type="integer"), "9" * 9999, "is not a whole number"),
        (Declared("x", type="integer"), True, "`true` is not a whole number"),
        (Declared("x", type="number"), "nan", "`nan` is not a number"),
        (Declared("x", type="number"), "x", "`x` is not a number"),
        (Declared("x", type="boolean"), "perhaps", "`perhaps` is neither true nor false"),
        (Declared("x", type="list"), "[1", "`[1` is not a JSON list"),
        (Declared("x", type="list"), 3, "`3` is not a list"),
        (Declared("x"), 3, "`3` is not text"),
        (Declared("x", enum=("a", "b")), "c", "`c` is not one of `a`, `b`"),
        (Declared("x", pattern="[a-z]+"), "a1", "`a1` does not match `[a-z]+`"),
        (Declared("x", pattern="[a-z]*"), "a" * 9999, "it is longer than 2000 characters"),
        (Declared("x", type="integer", minimum=2), "1", "`1` is below the minimum 2"),
        (Declared("x", type="number", maximum=2), "2.5", "`2.5` is above the maximum 2"),
    ],
)
def test_what_does_not_fit(param: Declared, value: Any, fault: str) -> None:
    found, wrong = convert(param, value)
    assert found is None
    assert wrong is not None
    assert fault in wrong


def test_precedence_and_origins(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("a: file\nb: file\nc: file\n")
    names = "abcdef"
    declared = {n: Declared(n, default="default", has_default=True, env=f"H_{n}") for n in names}
    environ = {"KAOS_RUNNER_PARAM_A": "variable", "KAOS_RUNNER_PARAM_B": "variable"}
    environ |= {f"H_{name}": "host" for name in "abcd"}
    given = gather(declared, ["a=flag"], file, environ)
    values, problems = settle(declared, given, environ)
    assert problems == []
    assert [(v.value, v.origin) for v in values.values()] == [
        ("flag", "-p"), ("variable", "KAOS_RUNNER_PARAM_B"), ("file", "--params-file"),
        ("host", "H_d"), ("default", "default"), ("default", "default"),
    ]  # fmt: skip


def test_an_empty_variable_is_a_value() -> None:
    declared = {"a": Declared("a", default="x", has_default=True, env="H")}
    values, _ = settle(declared, {}, {"H": ""})
    assert values["a"].value == ""


def test_missing_and_unknown_ones_are_all_told() -> None:
    declared = {"target": Declared("target"), "depth": Declared("depth", env="DEPTH")}
    _, problems = settle(declared, {"traget": ParamValue("x", "-p")}, {})
    assert [(p.message, p.hint) for p in problems] == [
        ("the recipe has no parameter `traget`", "did you mean `target`?"),
        ("the parameter `target` needs a value", "give it with `-p target=VALUE`"),
        ("the parameter `depth` needs a value", "give it with `-p depth=VALUE`, or set DEPTH"),
    ]


def test_optional_one_without_default_has_no_value() -> None:
    assert settle({"a": Declared("a", required=False)}, {}, {}) == ({}, [])


def test_flag_reads_a_file(tmp_path: Path) -> None:
    text = tmp_path / "long.md"
    text.write_text("line one\nline {{ two }}\n")
    assert gather({}, [f"a=@{text}"], None, {})["a"].value == "line one\nline {{ two }}\n"


@pytest.mark.parametrize("flag", ["a", "=b", "", "a=@/no/such/file", "a=@/dev/zero", "a=@/tmp"])
def test_flags_that_make_no_sense(flag: str) -> None:
    with pytest.raises(UsageError):
        gather({}, [flag], None, {})


def test_dashes_in_a_flag_stand_for_underscores() -> None:
    assert list(gather({}, ["dry-run=yes"], None, {})) == ["dry_run"]


def test_params_file_as_json(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text('{"depth": 3, "names": ["a", "b"], "deep": true}')
    given = gather({}, [], file, {})
    assert {name: each.value for name, each in given.items()} == {
        "depth": 3, "names": ["a", "b"], "deep": True,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: 1\na: 2\n", "a: {{ x }}\n", "\x00"])
def test_params_file_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises((UsageError, RecipeError)):
        gather({}, [], file, {})


PATTERNS = ["", "a", "a*", "(a|b)*c?", "[a-c]+b", "(ab?){1,3}", ".", r"\w+-\d{2}", "^a+$", "(a*)*"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATTERNS), st.text("abc-1 \n", max_size=8))
def test_patterns_match_as_python_does(pattern: str, text: str) -> None:
    assert (mismatch(pattern, text) is None) == bool(re.fullmatch(pattern, text))


def test_pattern_that_explodes_is_told() -> None:
    wrong = mismatch("(?:(a|a|a|a)*)*[bc]", "a" * 500)
    assert wrong == "matching it against `(?:(a|a|a|a)*)*[bc]` takes too long"


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("[", "not a regular expression"),
        ("(" * 499 + "a" + ")*" * 249, "not a regular expression"),
        ("(?i)a", "flags"),
        ("(?x:a{9 9 9 9 9})", "flags"),
        (r"\\(?R)", "flags"),
        ("(a(?1)?b)", "flags"),
        ("a{999999999}", "too large"),
        ("a{,999999999}", "too large"),
        ("a{00000000000999999}", "too large"),
        ("((a{99}){99}){99}", "too large"),
        ("x" * 1001, "too large"),
    ],
)
def test_patterns_that_cannot_be_bounded(pattern: str, fault: str) -> None:
    with pytest.raises(PatternError, match=fault):
        compile_pattern(pattern)


def test_patterns_of_everyday() -> None:
    uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    assert mismatch(uuid, "0123abcd-0123-0123-0123-0123456789ab") is None
    assert mismatch(r"(?!-)[\w-]+(?<!-)\(?", "a-b(") is None
