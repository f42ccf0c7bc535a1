"""Every value of a plan, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kaos_runner.errors import PrerequisiteError, RecipeError, UsageError
from kaos_runner.plan import Options, Plan, make_plan

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {
    "KIMI_API_KEY": "kimi-key-for-tests",
    "E2B_API_KEY": "e2b_" + "0" * 40,
    "SPRITE_TOKEN": "org/1/token-for-tests",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def plan(folder: Path, environ: dict[str, str] | None = None, /, **fields: Any) -> Plan:
    """The plan of a minimal recipe with these fields; `options` are the command line's."""
    options = fields.pop("options", {})
    document = {"version": 1, "name": "r", "backend": "e2b", "prompts": ["Do it."], **fields}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return make_plan(Options(recipe=file, **options), {**KEYS, **(environ or {})}, "run-1")


def origins(made: Plan) -> dict[str, tuple[str, str]]:
    return {value.name: (value.value, value.origin) for value in made.values}


def test_a_flag_beats_the_recipe_beats_a_variable_beats_the_default(folder: Path) -> None:
    variable = {"KIMI_MODEL_NAME": "from-variable", "KIMI_WORK_DIR": "/from/variable"}
    flags = {"model": "from-flag", "cleanup": "never"}

    bare = origins(plan(folder))
    by_variable = origins(plan(folder, variable))
    by_recipe = origins(
        plan(folder, variable, agent={"model": "mine"}, workdir="/mine", cleanup="on_success")
    )
    by_flag = origins(plan(folder, variable, agent={"model": "mine"}, options=flags))

    assert bare["workdir"] == ("/home/user/kimi-workdir", "default")
    assert bare["image"] == ("base", "default")
    assert bare["cleanup"] == ("always", "default")
    assert by_variable["model"] == ("from-variable", "$KIMI_MODEL_NAME")
    assert by_variable["workdir"] == ("/from/variable", "$KIMI_WORK_DIR")
    assert by_recipe["model"] == ("mine", "recipe")
    assert by_recipe["workdir"] == ("/mine", "recipe")
    assert by_recipe["cleanup"] == ("on_success", "recipe")
    assert by_flag["model"] == ("from-flag", "--model")
    assert by_flag["cleanup"] == ("never", "--cleanup")


def test_kimi_work_dir_means_nothing_to_the_local_backend(folder: Path) -> None:
    made = plan(folder, {"KIMI_WORK_DIR": "/elsewhere"}, backend="local")
    assert made.recipe.workdir is None


def test_a_sandbox_id_in_a_variable_means_connect(folder: Path) -> None:
    made = plan(folder, {"E2B_SANDBOX_ID": "sb-1"}, cleanup="always")

    assert made.sandbox_id == "sb-1"
    (warning,) = [w for w in made.warnings if w.path == "cleanup"]
    assert (warning.severity, warning.line) == ("warning", 6)


def test_sprites_are_kept_unless_one_asks(folder: Path) -> None:
    assert plan(folder, backend="sprites").cleanup == "never"
    asked = plan(folder, {"SPRITE_DELETE_ON_EXIT": "1"}, backend="sprites")
    assert asked.cleanup == "always"
    assert origins(asked)["cleanup"] == ("always", "$SPRITE_DELETE_ON_EXIT")
    written = plan(folder, {"SPRITE_DELETE_ON_EXIT": "1"}, backend="sprites", cleanup="never")
    assert written.cleanup == "never"


def test_a_cassette_needs_no_key_and_no_model(folder: Path) -> None:
    (folder / "tape.yaml").write_text("cassette: 1\nturns: [{text: x}]\n")
    made = plan(folder, {"KIMI_API_KEY": ""}, agent={"model": {"replay": "tape.yaml"}})

    assert made.missing == ()
    assert made.model.replay == folder / "tape.yaml"
    assert made.model.shipped


def test_a_named_model_is_meant_for_real(folder: Path) -> None:
    (folder / "tape.yaml").write_text("cassette: 1\nturns: [{text: x}]\n")
    made = plan(folder, agent={"model": {"replay": "tape.yaml"}}, options={"model": "kimi-k2"})
    assert (made.model.name, made.model.replay) == ("kimi-k2", None)


def test_all_that_is_missing_is_gathered(folder: Path) -> None:
    made = plan(folder, {"KIMI_API_KEY": "", "E2B_API_KEY": ""}, secrets=["DEPLOY_KEY"])

    told = [problem.message for problem in made.missing]
    assert len(told) == 4  # E2B's key, a model, the model's key, the secret
    with pytest.raises(PrerequisiteError) as caught:
        made.require()
    assert len(caught.value.problems) == 4


def test_what_a_backend_refuses_has_its_place(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(folder, backend="sprites", image="python:3.12")
    problem = caught.value.problems[0]
    assert (problem.line, problem.path) == (6, "image"), caught.value.problems


def test_keys_are_masked_and_not_shown(folder: Path) -> None:
    made = plan(folder, {"KIMI_MODEL_NAME": "m"})
    for value in KEYS.values():
        assert value not in made.mask(f"before {value} after")
        assert value not in repr(made)


def test_an_env_file_fills_in_below_what_is_set(folder: Path) -> None:
    file = folder / ".env"
    file.write_text("# a comment\nKIMI_MODEL_NAME='from file'\nexport KIMI_API_KEY=from-the-file\n")
    made = plan(folder, options={"env_file": file})

    assert made.model.name == "from file"
    assert made.environ["KIMI_API_KEY"] == KEYS["KIMI_API_KEY"]


def test_an_env_file_that_is_not_there_is_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        plan(folder, options={"env_file": folder / "absent"})


def test_a_bad_cassette_is_told_before_anything_is_started(folder: Path) -> None:
    (folder / "tape.yaml").write_text("cassette: 1\nturns:\n  - txt: hello\n")
    with pytest.raises(RecipeError) as caught:
        plan(folder, agent={"model": {"replay": "tape.yaml"}})
    assert (3, 5) in {(problem.line, problem.column) for problem in caught.value.problems}


def test_only_a_trusted_recipes_own_cassette_goes_without_isolation(folder: Path) -> None:
    tape = "cassette: 1\nturns: [{text: x}]\n"
    (folder / "inside").mkdir()
    (folder / "outside").mkdir()
    for place in ("inside", "outside"):
        (folder / place / "tape.yaml").write_text(tape)
    own = {"agent": {"model": {"replay": "tape.yaml"}}, "backend": "local"}
    inside, other = folder / "inside", {"agent": {"model": {"replay": "../outside/tape.yaml"}}}

    assert plan(inside, **own).model.shipped
    assert not plan(inside, **own, options={"untrusted": True}).model.shipped
    assert not plan(inside, **own, options={"replay": inside / "tape.yaml"}).model.shipped
    allowed = {"allow_path": (folder / "outside",)}
    assert not plan(inside, **{**own, **other}, options=allowed).model.shipped
