"""Hypothesis feeds mutated recipes and random bytes: a recipe or problems, never a traceback."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaos_runner.errors import RecipeError
from kaos_runner.recipe.evaluate import TemplateError, render_text, render_value
from kaos_runner.recipe.load import Loaded, LoadOptions, load
from kaos_runner.recipe.render import PromptOutcome, RunContext
from kaos_runner.recipe.report import as_github, as_json, as_text
from kaos_runner.recipe.template import parse

RECIPES = Path(__file__).parents[2] / "recipes"
TEXTS = [path.read_bytes() for path in sorted(RECIPES.glob("*/*.yaml"))]
FRAGMENTS = [
    b"{{", b"}}", b"{%", b"%}", b"{{ params.x }}", b"{{ prompts[0].output }}",
    b"{% for a in b %}", b": ", b"- ", b"\t", b"\n", b"\r", b"&a ", b"*a", b"!!", b"!x ", b"|",
    b">", b"'", b'"', b"#", b"<<", b"[", b"]", b"{", b"}", b"---\n", b"...\n", b"? ",
    b"%YAML 1.1\n",
    b"\xff", b"\x00", b"\xef\xbb\xbf", "\u2028".encode(), "é".encode(), b"null", b"true",
    b"1e999", b"0x", b".nan", b"extends: x\n", b"backend: e2b\n", b"type: sprites",
    b"secrets: [A]\n", b"file: parts/title.md\n", b"9" * 400,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all recipes of this module."""
    return tmp_path_factory.mktemp("fuzz")


def _survives(folder: Path, content: bytes) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(content)
    loaded = load(path, options=LoadOptions(untrusted=True))
    for tell in (as_text, as_json, as_github):
        tell(loaded.problems)
    for problem in loaded.problems:
        assert problem.file
        assert (problem.line is None) == (problem.column is None)
        assert problem.line is None or problem.line > 0
    loaded.place(("prompts", 0, "checks", 3, "run"))
    assert loaded.name
    assert loaded.digest
    loaded = load(path)
    if any(problem.severity == "error" for problem in loaded.problems):
        return
    _renders(loaded)


def _renders(loaded: Loaded) -> None:
    given = {name: "1" for name, param in loaded.params.items() if param.needed}
    with contextlib.suppress(RecipeError):
        rendered = loaded.render(params=given, run=RunContext.now("r"))
        rendered.to_yaml()
        outcome = PromptOutcome(id=None, final_message="x", output={"a": 1}, status="succeeded")
        rendered.prompt(0, [outcome])
        rendered.checks([outcome])
        rendered.artifacts([outcome])


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_random_bytes(folder: Path, content: bytes) -> None:
    _survives(folder, content)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.sampled_from("ab: -[]{}&*!|>'\"%#\n\t?,@`0.~<="), max_size=80))
def test_random_yaml(folder: Path, text: str) -> None:
    _survives(folder, text.encode())


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutated_recipes(folder: Path, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        to = min(len(content), at + data.draw(st.integers(0, 30)))
        piece = data.draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3))
        content = content[:at] + piece + content[to:]
    _survives(folder, content)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_recipes_with_lines_moved(folder: Path, data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from(TEXTS)).splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        if lines:
            line = lines.pop(data.draw(st.integers(0, len(lines) - 1)))
            indent = b" " * data.draw(st.integers(0, 4))
            lines.insert(data.draw(st.integers(0, len(lines))), indent + line)
    _survives(folder, b"".join(lines))


PIECES = [
    "{{ ", " }}", "{% ", " %}", "params.a", "params.b", "'x'", "1", "[1, 2]", "{'a': 1}", " | ",
    "upper", "join", "map('upper')", "default('')", "sh", "round", "sort", "first",
    "replace('x', 'y')", " + ", " * ", " ~ ", " ** ", "-", " in ", " is ", "defined", "odd", "if ",
    "else", "endif", "for x in ", "endfor", "set x = ", "x", ".a", "[0]", "[1:]", "(", ")", "not ",
    " and ", "none", "loop.index", "prompts[0].output", "prompts.a.status", "run.id", "recipe.dir",
    "text", "\n",
]  # fmt: skip
TEMPLATES = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEMPLATES)
def test_random_templates(text: str) -> None:
    params = {"a": "x y", "b": [3, 1]}
    template = parse(text, params)
    if template.flaws:
        assert all(flaw.message for flaw in template.flaws)
        return
    prompts = {0: {"output": {"a": 1}, "status": "s"}, "a": {"status": "s"}}
    context = {"params": params, "run": {"id": "r"}, "recipe": {"dir": "/d"}, "prompts": prompts}
    with contextlib.suppress(TemplateError):
        assert isinstance(render_text(template, context), str)
        if template.expression is not None:
            render_value(template, context)
