"""Rendering: values in, types kept, what prompts bring last of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kaos_runner.errors import RecipeError
from kaos_runner.recipe.load import Loaded, LoadOptions, load
from kaos_runner.recipe.model import RunCheck
from kaos_runner.recipe.render import PromptOutcome, Rendered, RunContext

RUN = RunContext("run-1", "2026-01-01T00:00:00+00:00", 2)
HEAD = "version: 1\nname: demo\nbackend: local\n"


def _load(folder: Path, text: str, **options: Any) -> Loaded:
    path = folder / "recipe.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return load(path, options=LoadOptions(**options))


def _render(folder: Path, text: str, **params: object) -> Rendered:
    loaded = _load(folder, text)
    assert [str(p) for p in loaded.problems if p.severity == "error"] == []
    return loaded.render(params=params, run=RUN)


def _problems(folder: Path, text: str, **params: object) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        _load(folder, text).render(params=params, run=RUN)
    return [f"{p.line}:{p.column} {p.message}" for p in caught.value.problems]


def _outcome(**changes: Any) -> PromptOutcome:
    plain = {"id": None, "final_message": "said", "output": None, "status": "succeeded"}
    return PromptOutcome(**{**plain, **changes})


def test_context(tmp_path: Path) -> None:
    text = "prompts: ['{{ run.id }} {{ run.attempt }} {{ run.started_at }} {{ recipe.name }}']\n"
    rendered = _render(tmp_path, text)
    assert rendered.recipe.prompts[0].text == "run-1 2 2026-01-01T00:00:00+00:00 demo"
    rendered = _render(tmp_path, "prompts: ['{{ recipe.dir }}']\n")
    assert rendered.recipe.prompts[0].text == str(tmp_path)


def test_typed_leaves_keep_the_type_of_a_whole_expression(tmp_path: Path) -> None:
    text = """\
params:
  steps: {type: integer, default: 7}
  wall: {default: 90s}
  opt: {type: boolean, default: true}
limits: {wall: "{{ params.wall }}", steps: "{{ params.steps * 2 }}", tokens: "{{ '4' ~ '00k' }}"}
prompts: [Do it.]
artifacts: [{path: a, optional: "{{ not params.opt }}"}]
cleanup: "{{ 'never' if params.opt else 'always' }}"
"""
    recipe = _render(tmp_path, text).recipe
    assert (recipe.limits.wall, recipe.limits.steps, recipe.limits.tokens) == (90.0, 14, 400_000)
    assert recipe.artifacts[0].optional is False
    assert recipe.cleanup == "never"


def test_text_leaves_are_text(tmp_path: Path) -> None:
    text = "params: {n: {type: integer, default: 7}}\nprompts: [x]\n"
    text += "env: {N: '{{ params.n }}', B: '{{ true }}'}\n"
    assert _render(tmp_path, text).recipe.env == {"N": "7", "B": "true"}


def test_a_value_cannot_change_the_structure(tmp_path: Path) -> None:
    value = "x\nbackend: e2b\n- {{ 7 * 7 }}: [&a *a]"
    text = "params: {v: {}}\nprompts: ['{{ params.v }}']\nenv: {A: '{{ params.v }}'}\n"
    recipe = _render(tmp_path, text, v=value).recipe
    assert recipe.env == {"A": value}
    assert recipe.prompts[0].text == value
    assert recipe.backend.type == "local"


def test_values_that_do_not_fit_their_leaf_are_all_told(tmp_path: Path) -> None:
    text = """\
params: {v: {}}
limits: {wall: "{{ params.v }}", steps: "{{ params.v }}"}
prompts: [Do it.]
checks: [{file: "{{ params.v }}"}]
artifacts: [{path: x, optional: "{{ params.v }}"}]
cleanup: "{{ params.v }}"
"""
    assert _problems(tmp_path, text, v="../x") == [
        "5:16 `../x` is not a duration",
        "5:41 `../x` is not a count or `null`",
        "7:17 `../x` leaves the workdir",
        '8:33 expected `true` or `false`, found `"../x"`',
        "9:10 `../x` is not one of `always`, `on_success`, `never`",
    ]


def test_a_rendered_template_is_no_loophole(tmp_path: Path) -> None:
    text = "params: {v: {}}\nlimits: {steps: '{{ params.v }}'}\nprompts: [x]\n"
    assert _problems(tmp_path, text, v="{{ 7 }}") == [
        "5:17 `{{ 7 }}` has no known unit; write it like 400k"
    ]


def test_host_paths_are_checked_once_they_are_known(tmp_path: Path) -> None:
    text = "params: {v: {}}\nfiles: [{from: '{{ params.v }}'}]\nprompts: [x]\n"
    assert _problems(tmp_path, text, v="/etc/hostname") == [
        "5:16 `/etc/hostname` lies outside the recipe's work tree"
    ]
    assert _problems(tmp_path, text, v="none") == ["5:16 `none` does not exist"]


def test_templates_that_fail_are_all_told(tmp_path: Path) -> None:
    text = """\
params: {n: {type: integer, default: 0}, none: {required: false}}
env: {A: "{{ 1 / params.n }}", B: "{{ params.none }}"}
prompts:
  - |
    Line one.
    {{ [1][params.n + 5] }}
"""
    assert _problems(tmp_path, text) == [
        "5:11 division by zero",
        "5:36 `params.none` has no value",
        "9:5 `…` has no value",
    ]


def test_parameter_problems_point_to_the_declaration(tmp_path: Path) -> None:
    text = "params:\n  a: {}\n  b: {type: integer, default: 1}\n"
    text += "prompts: ['{{ params.a }}{{ params.b }}']\n"
    assert _problems(tmp_path, text, b="x") == [
        "5:3 the parameter `a` needs a value",
        "6:3 the parameter `b` from -p: `x` is not a whole number",
    ]


DEFERRED = """\
params: {n: {default: "1"}}
prompts:
  - Plan {{ params.n }}.
  - id: apply
    text: "You said: {{ prompts[0].final_message }}"
    output: {schema: {type: object}}
    checks:
      - run: "test {{ prompts[0].status | sh }}"
        timeout: "{{ '9s' if prompts[0].status else '5s' }}"
  - text: "{{ prompts.apply.output.title }}"
checks: [{file: "{{ prompts.apply.output.title }}.md"}]
artifacts: [{path: "{{ prompts.apply.output.title }}", optional: "{{ prompts.apply.output.ok }}"}]
"""


def _deferred(folder: Path) -> Rendered:
    return _render(folder, DEFERRED)


def test_deferred_leaves_wait(tmp_path: Path) -> None:
    rendered = _deferred(tmp_path)
    assert rendered.recipe.prompts[0].text == "Plan 1."
    assert rendered.recipe.prompts[1].text == "You said: {{ prompts[0].final_message }}"
    assert rendered.recipe.prompts[1].checks[0].timeout == 600.0  # type: ignore[union-attr]
    document = rendered.document()
    assert document["checks"] == [{"file": "{{ prompts.apply.output.title }}.md"}]
    first = _outcome(final_message="{{ 7 * 7 }} & more")
    second = rendered.prompt(1, [first])
    assert second.text == "You said: {{ 7 * 7 }} & more"
    check = second.checks[0]
    assert isinstance(check, RunCheck)
    assert (check.run, check.timeout) == ("test succeeded", 9.0)
    outcomes = [first, _outcome(id="apply", output={"title": "T", "ok": True})]
    assert rendered.prompt(2, outcomes).text == "T"
    assert rendered.checks(outcomes)[0].file == "T.md"  # type: ignore[union-attr]
    assert rendered.artifacts(outcomes)[0].optional is True


@pytest.mark.parametrize(
    ("title", "message"),
    [("../x", "`../x.md` leaves the workdir"), ("/x", "`/x.md` is not relative to the workdir")],
)
def test_deferred_paths_cannot_leave_the_workdir(tmp_path: Path, title: str, message: str) -> None:
    rendered = _deferred(tmp_path)
    outcomes = [_outcome(), _outcome(id="apply", output={"title": title, "ok": True})]
    with pytest.raises(RecipeError) as caught:
        rendered.checks(outcomes)
    assert [p.message for p in caught.value.problems] == [message]


def test_deferred_template_that_fails_has_its_place(tmp_path: Path) -> None:
    rendered = _deferred(tmp_path)
    with pytest.raises(RecipeError) as caught:
        rendered.prompt(2, [_outcome(), _outcome(id="apply", output=None)])
    problem = caught.value.problems[0]
    assert (problem.line, problem.column) == (13, 12)
    assert problem.message == "`prompts.apply.output` has no value"
    assert caught.value.code == 2


def test_text_in_a_file_is_a_template_with_its_own_places(tmp_path: Path) -> None:
    (tmp_path / "plan.md").write_text("# Plan\n\nFor {{ params.n }}.\n")
    text = "params: {n: {default: x}}\nprompts: [{file: plan.md}, {text: {file: plan.md}, id: b}]\n"
    prompts = _render(tmp_path, text).recipe.prompts
    assert [prompt.text for prompt in prompts] == ["# Plan\n\nFor x.\n"] * 2
    (tmp_path / "plan.md").write_text("# Plan\n\nFor {{ 1 / 0 }} hunter2.\n")
    text = text.replace("params: {n: {default: x}}\n", "")
    with pytest.raises(RecipeError) as caught:
        _load(tmp_path, text).render(run=RUN)
    problem = caught.value.problems[0]
    assert Path(problem.file or "").name == "plan.md"
    assert (problem.line, problem.column, problem.source) == (3, 5, None)


def test_rendered_yaml_reads_back_the_same(tmp_path: Path) -> None:
    env = {"A": "on", "B": "010", "C": "1:30", "D": "0o17", "E": "null", "F": " x ", "G": "a\n b\n",
           "H": "- x", "I": "{{ x", "J": "é\u2028x", "K": "", "L": "!x", "M": "1e3",
           "N": "\ttab\n"}  # fmt: skip
    names = ", ".join(f"{name.lower()}: {{}}" for name in env)
    leaves = ", ".join(f"{name}: '{{{{ params.{name.lower()} }}}}'" for name in env)
    text = f"params: {{{names}}}\nenv: {{{leaves}}}\nprompts: [x]\n"
    rendered = _render(tmp_path, text, **{name.lower(): value for name, value in env.items()})
    again = tmp_path / "again.yaml"
    again.write_text(rendered.to_yaml(), encoding="utf-8")
    document = load(again).document
    assert document is not None
    assert document.plain()["env"] == env


def test_mask(tmp_path: Path) -> None:
    rendered = _render(tmp_path, "env: {A: hunter2}\nprompts: [say hunter2]\n")
    told = rendered.to_yaml(lambda text: text.replace("hunter2", "***"))
    assert "hunter2" not in told
    assert told.count("***") == 2


def test_free_keys_do_not_reach_the_types(tmp_path: Path) -> None:
    text = "x-a: 1\nlimits: {x-b: {c: 1}, steps: 3}\nprompts: [{text: a, x-d: '{{ nothing }}'}]\n"
    rendered = _render(tmp_path, text)
    assert rendered.recipe.limits.steps == 3
    assert "x-" not in rendered.to_yaml()


def test_another_backend(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "version: 1\nname: demo\nbackend: {type: e2b, sandbox_id: abc}\nimage: base\n"
        "workdir: /home/user/x\nprompts: [Do it.]\n"
    )
    loaded = load(path, options=LoadOptions(backend="local"))
    assert loaded.problems == ()
    assert loaded.dropped == (
        "backend.sandbox_id: it belongs to e2b",
        "image: it belongs to e2b",
        "workdir: /home/user/x belongs to e2b",
    )
    recipe = loaded.render(run=RUN).recipe
    assert (recipe.backend.type, recipe.image, recipe.workdir) == ("local", None, None)
    same = load(path, options=LoadOptions(backend="e2b"))
    assert same.dropped == ()
    assert same.render(run=RUN).recipe.image == "base"
    unknown = load(path, options=LoadOptions(backend="lcoal"))
    assert [(p.message, p.hint) for p in unknown.problems] == [
        ("unknown backend `lcoal`", "did you mean `local`?")
    ]


def test_workdir_that_is_relative_stays(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("version: 1\nname: d\nbackend: e2b\nworkdir: sub\nprompts: [x]\n")
    loaded = load(path, options=LoadOptions(backend="local"))
    assert loaded.dropped == ()


def test_strict_stops_on_warnings(tmp_path: Path) -> None:
    text = "params: {unused: {default: x}}\nprompts: [x]\n"
    _load(tmp_path, text).raise_for_problems()
    with pytest.raises(RecipeError):
        _load(tmp_path, text).raise_for_problems(strict=True)
    with pytest.raises(RecipeError):
        _load(tmp_path, text, strict=True).raise_for_problems()
