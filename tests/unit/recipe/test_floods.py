"""Recipes with faults by the ten thousand: bounded work, and a bounded answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from kaos_runner.recipe.load import load
from kaos_runner.recipe.nodes import MAX_PROBLEMS

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "version: 1\nname: x\nbackend: local\n"
PROMPTS = HEAD + "prompts: [x]\n"
FLOODS = {
    "unknown keys": PROMPTS + "".join(f"prom{i}: 1\n" for i in range(9000)),
    "enum": PROMPTS + f"agent: {{tools: [{','.join(f'shel{i}' for i in range(9000))}]}}\n",
    "names": PROMPTS + "description: |\n" + "".join(f"  {{{{ p{i} }}}}\n" for i in range(9000)),
    "unclosed": PROMPTS + "setup:\n" + "".join(f"  - x {{{{ run.id {i}\n" for i in range(9000)),
    "references": HEAD
    + "prompts:\n"
    + "".join(f"  - x {{{{ prompts[{i}].status }}}}\n" for i in range(4000)),
    "unknown ids": HEAD
    + "prompts:\n"
    + "".join(f"  - {{id: a{i}, text: '{{{{ prompts.b{i}.status }}}}'}}\n" for i in range(4000)),
    "patterns": PROMPTS
    + "params:\n"
    + "".join(f"  a{i}: {{default: {'a' * 300}, pattern: '(a*)*{i}'}}\n" for i in range(500)),
    "paths": PROMPTS + f"files: [{','.join('{from: /x}' for _ in range(9000))}]\n",
    "aliases": PROMPTS + f"x-a: &a {{run: x, nam: y}}\nchecks: [{','.join(['*a'] * 9000)}]\n",
    "duplicates": PROMPTS + "a: 1\n" * 9000,
}


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS.keys())
def test_flood_of_faults(tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    begun = time.process_time()
    problems = load(recipe).problems
    assert len(problems) <= MAX_PROBLEMS + 1
    assert problems[-1].message == "there are more problems than these"
    assert time.process_time() - begun < 30  # a hang, not a speed: each takes about a second


def test_path_of_absurd_length(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(PROMPTS + f"files: [{{from: '{'a/' * 100_000}'}}]\n")
    begun = time.process_time()
    (problem,) = load(recipe).problems
    assert problem.message.endswith("lies outside the recipe's work tree")
    assert time.process_time() - begun < 30


def test_half_a_million_uses_of_an_alias(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    checks = "&c [&r {run: x}" + ",*r" * 900 + "]"
    recipe.write_text(f"{HEAD}prompts:\n- &p\n  text: x\n  checks: {checks}\n" + "- *p\n" * 600)
    begun = time.process_time()
    assert load(recipe).problems == ()
    assert time.process_time() - begun < 30
