"""`extends`: what merges, what replaces, and whose file a fault is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaos_runner.recipe.load import Loaded, LoadOptions, load
from kaos_runner.recipe.render import RunContext

BASE = """\
version: 1
name: base
backend: local
env: {A: "1", B: "1"}
limits: {wall: 30m, steps: 40}
setup: [one, two]
prompts: [Do it.]
"""


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
    return folder / "top.yaml"


def _plain(loaded: Loaded) -> dict[str, object]:
    assert [str(p) for p in loaded.problems] == []
    return loaded.render(run=RunContext.now("r")).document()


def test_mappings_merge_and_lists_replace(tmp_path: Path) -> None:
    top = (
        "extends: base.yaml\nname: top\nenv: {B: '2', C: '3'}\nlimits: {steps: 9}\nsetup: [three]\n"
    )
    plain = _plain(load(_write(tmp_path, base=BASE, top=top)))
    assert plain["env"] == {"A": "1", "B": "2", "C": "3"}
    assert plain["limits"] == {"wall": "30m", "steps": 9}
    assert plain["setup"] == ["three"]
    assert plain["name"] == "top"
    assert "extends" not in plain


def test_chain(tmp_path: Path) -> None:
    middle = "extends: base.yaml\nenv: {B: middle, C: middle}\n"
    top = "extends: middle.yaml\nname: top\nenv: {C: top}\n"
    loaded = load(_write(tmp_path, base=BASE, middle=middle, top=top))
    assert _plain(loaded)["env"] == {"A": "1", "B": "middle", "C": "top"}
    assert [path.name for path in loaded.files] == ["top.yaml", "middle.yaml", "base.yaml"]


def test_faults_point_into_the_right_file(tmp_path: Path) -> None:
    base = BASE.replace("30m", "30")
    loaded = load(_write(tmp_path, base=base, top="extends: base.yaml\nname: a b\n"))
    places = [(Path(p.file or "").name, p.line, p.column) for p in loaded.problems]
    assert places == [("base.yaml", 5, 16), ("top.yaml", 2, 7)]
    assert loaded.place(("limits", "wall"))[1:] == (5, 16)
    assert loaded.place(("name",))[1:] == (2, 7)


def test_itself(tmp_path: Path) -> None:
    problem = load(_write(tmp_path, top="extends: top.yaml\nname: x\n")).problems[0]
    assert problem.message.startswith("the recipe extends itself: ")


def test_through_a_symlink_is_still_a_cycle(tmp_path: Path) -> None:
    top = _write(tmp_path, top="extends: link.yaml\nname: x\n")
    (tmp_path / "link.yaml").symlink_to("top.yaml")
    assert load(top).problems[0].message.startswith("the recipe extends itself: ")


def test_endless_chain(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\nname: x\n")
    messages = [problem.message for problem in load(tmp_path / "0.yaml").problems]
    assert "more than 16 recipes extend one another" in messages


def test_another_backend_drops_the_fields_of_the_one_below(tmp_path: Path) -> None:
    base = BASE.replace("backend: local", "backend: {type: sprites, name: x}")
    loaded = load(_write(tmp_path, base=base, top="extends: base.yaml\nbackend: {type: local}\n"))
    assert _plain(loaded)["backend"] == {"type": "local"}


def test_host_paths_stay_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "top").mkdir()
    (tmp_path / "shared" / "data.txt").write_text("x")
    (tmp_path / "shared" / "base.yaml").write_text(BASE + "files: [{from: data.txt}]\n")
    top = tmp_path / "top" / "top.yaml"
    top.write_text("extends: ../shared/base.yaml\nenv: {from: data.txt}\n")
    rendered = load(top).render(run=RunContext.now("r"))
    assert rendered.recipe.files[0].from_ == "../shared/data.txt"  # type: ignore[union-attr]
    assert (rendered.dir / "../shared/data.txt").is_file()
    assert rendered.recipe.env["from"] == "data.txt"


def test_digest_covers_everything_that_is_pulled_in(tmp_path: Path) -> None:
    path = _write(tmp_path, base=BASE, top="extends: base.yaml\nprompts: [{file: p.md}]\n")
    (tmp_path / "p.md").write_text("One.")
    first = load(path).digest
    assert load(path).digest == first
    (tmp_path / "p.md").write_text("Two.")
    second = load(path).digest
    assert second != first
    (tmp_path / "base.yaml").write_text(BASE + "# more\n")
    assert load(path).digest not in (first, second)


def test_what_is_no_recipe_is_never_quoted(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: [hunter2\nother: 'x\n")
    top = _write(tmp_path, top="extends: secret.yaml\nname: x\n")
    for path in (top, tmp_path / "secret.yaml"):
        from kaos_runner.recipe.report import as_json, as_text

        problems = load(path).problems
        assert problems
        for told in (as_text(problems), as_json(problems), repr(problems)):
            assert "hunter2" not in told
            assert "password" not in told


@pytest.mark.parametrize("value", ["/etc/hostname", "../outside.yaml", "~/x.yaml", "link.yaml"])
def test_outside_the_work_tree(tmp_path: Path, value: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.yaml").write_text(BASE)
    (inside / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    top = _write(inside, top=f"extends: {value}\nname: x\n")
    problem = load(top).problems[0]
    if value == "~/x.yaml":
        assert problem.message == "`~/x.yaml` does not exist"  # `~` is a name like any other
    else:
        assert problem.message == f"`{value}` lies outside the recipe's work tree"
        assert problem.source == f"extends: {value}"


def test_allow_path_opens_a_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.yaml").write_text(BASE)
    top = _write(inside, top="extends: ../outside.yaml\nname: x\n")
    assert load(top).problems != ()
    assert load(top, options=LoadOptions(allow_path=(tmp_path,))).problems == ()
