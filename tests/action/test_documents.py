"""The workflows on the page and in the repository: valid, linted, and doing what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.action.conftest import ACTION, ROOT

PAGE = (ROOT / "docs" / "github-actions.md").read_text()
FENCE = re.compile(
    r"^```(?:yaml|bash)\n# (\S+?):?(?: [^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
EXAMPLES = {match[1]: match[2] for match in FENCE.finditer(PAGE)}
WORKFLOWS = sorted(name for name in EXAMPLES if name.startswith(".github/workflows/"))
BIN = Path(sys.executable).parent


def call(
    *arguments: str | Path, cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, arguments)], cwd=cwd, env={**os.environ, **environ}, text=True, timeout=100,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def assert_valid(schema: str, *files: Path) -> None:
    done = call(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)
    assert done.returncode == 0, done.stdout


def assert_clean(*files: Path) -> None:
    """Zizmor finds nothing, without asking a server."""
    done = call(BIN / "zizmor", "--offline", "--no-progress", "--strict-collection", *files)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A repository with every file that the page shows."""
    for name, text in EXAMPLES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_page_shows_what_it_promises() -> None:
    assert sorted(EXAMPLES) == [
        ".github/workflows/issue.yml",
        ".github/workflows/nightly.yml",
        ".github/workflows/refactor.yml",
        ".gitlab-ci.yml",
        "nightly.sh",
        "recipes/issue.yaml",
    ]
    assert PAGE.count("```") == 2 * len(EXAMPLES)


def test_workflows_are_valid(examples: Path) -> None:
    ours = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert ours
    assert_valid("github-workflows", *ours, *(examples / name for name in WORKFLOWS))
    assert_valid("github-actions", ROOT / "action.yml")
    assert_valid("gitlab-ci", examples / ".gitlab-ci.yml")


def test_workflows_are_clean(examples: Path) -> None:
    assert_clean(
        ROOT / "action.yml",
        ROOT / ".github" / "workflows",
        *(examples / name for name in WORKFLOWS),
    )


def test_actions_are_pinned_the_same_everywhere() -> None:
    texts = [PAGE, (ROOT / "action.yml").read_text()]
    texts += [path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    pins: dict[str, set[str]] = {}
    for action, pin in re.findall(r"uses: ([\w/-]+)@(.*)", "\n".join(texts)):
        pins.setdefault("/".join(action.split("/")[:2]), set()).add(pin)
    assert {action: len(found) for action, found in pins.items()} == dict.fromkeys(pins, 1)
    for found in pins.values():
        assert all(re.fullmatch(r"[0-9a-f]{40} # v?[0-9.]+", pin) for pin in found)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_steps_give_known_inputs_and_read_known_outputs(name: str) -> None:
    text = EXAMPLES[name]
    steps = [s for job in yaml.safe_load(text)["jobs"].values() for s in job["steps"]]
    (step,) = [s for s in steps if s.get("uses", "").startswith("your-org/kaos-runner@")]
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert set(re.findall(r"steps\.agent\.outputs\.([\w-]+)", text)) <= set(ACTION["outputs"])


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_tables_are_the_actions() -> None:
    assert [row[0] for row in rows("Inputs")] == [f"`{name}`" for name in ACTION["inputs"]]
    for row, declared in zip(rows("Inputs"), ACTION["inputs"].values(), strict=True):
        assert row[1] == (f"`{declared['default']}`" if declared.get("default") else "")
    assert [row[0] for row in rows("Outputs")] == [f"`{name}`" for name in ACTION["outputs"]]


def test_the_issues_recipe_is_valid(examples: Path) -> None:
    call("git", "init", "-q", cwd=examples)
    done = call(BIN / "kaos-runner", "validate", "--untrusted", "recipes/issue.yaml", cwd=examples)
    assert done.returncode == 0, done.stdout


HOSTILE = 'A "title"\n"text": injected\n{{ params.x }} ${{ secrets.X }} \\ \u2028 é'


def test_text_of_strangers_stays_one_parameter(tmp_path: Path) -> None:
    """`toJSON()` makes a JSON string, which the mapping around it holds as one value."""
    from kaos_runner.recipe.params import gather

    workflow = yaml.safe_load(EXAMPLES[".github/workflows/issue.yml"])
    (step,) = [s for s in workflow["jobs"]["propose"]["steps"] if s.get("id") == "agent"]
    file = tmp_path / "params"
    file.write_text(
        re.sub(r"\$\{\{ .*? \}\}", lambda _: json.dumps(HOSTILE), step["with"]["params"])
    )
    given = gather({}, (), file, {})
    assert {name: value.value for name, value in given.items()} == dict.fromkeys(
        ["title", "text"], HOSTILE
    )


class Draft:
    """The job that opens a draft: its own script, with a remote on disk and a `gh` that notes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        workflow = yaml.safe_load(EXAMPLES[".github/workflows/issue.yml"])
        (self.step,) = [s for s in workflow["jobs"]["draft"]["steps"] if "run" in s]
        assert "${{" not in self.step["run"]
        call("git", "init", "-q", "--bare", "remote.git", cwd=folder)
        call("git", "clone", "-q", "remote.git", "work", cwd=folder)
        (folder / "work" / "code.py").write_text("x = 1\n")
        self.git("add", ".")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "start")
        self.git("push", "-q", "origin", "HEAD")
        (folder / "bin").mkdir()
        gh = folder / "bin" / "gh"
        gh.write_text('#!/bin/sh\necho "gh $*"\n')
        gh.chmod(0o755)

    def git(self, *arguments: str) -> str:
        return call("git", *arguments, cwd=self.folder / "work").stdout

    def propose(self, patch: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "change.patch").write_text(patch)
        script = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", self.step["run"]]
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return call(
            *script, cwd=self.folder / "work", PATH=path, ISSUE="7",
            PATCH=str(self.folder / "change.patch"),
        )  # fmt: skip


def patch(name: str, text: str) -> str:
    return (
        f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
        f"@@ -0,0 +1 @@\n+{text}\n"
    )


def test_a_patch_becomes_a_draft(tmp_path: Path) -> None:
    draft = Draft(tmp_path)
    done = draft.propose(patch("new.py", "y = 2"))
    assert done.returncode == 0, done.stdout
    assert "gh pr create --draft --head agent/issue-7" in done.stdout
    assert draft.git("show", "origin/agent/issue-7:new.py") == "y = 2\n"


@pytest.mark.parametrize("name", [".github/workflows/evil.yml", "../outside.py", ".git/hooks/x"])
def test_a_patch_that_reaches_too_far_is_refused(tmp_path: Path, name: str) -> None:
    draft = Draft(tmp_path)
    done = draft.propose(patch(name, "evil"))
    assert done.returncode != 0
    assert "gh pr create" not in done.stdout
    assert "agent/issue-7" not in draft.git("branch", "-a")
    assert not (tmp_path / "outside.py").exists()


@pytest.mark.parametrize(
    ("codes", "end", "told"),
    [
        ((0, 0, 0), 0, ["shapes: ok", "prices: ok", "orders: ok"]),
        ((0, 1, 0), 1, ["shapes: ok", "prices: ran, and something that it demands does not hold",
                        "orders: ok"]),
        ((4, 0, 0), 1, ["shapes: could not run (exit code 4)", "prices: ok", "orders: ok"]),
        ((130,), 130, []),
    ],
)  # fmt: skip
def test_the_shell_loop(examples: Path, codes: tuple[int, ...], end: int, told: list[str]) -> None:
    fake = examples / "bin" / "kaos-runner"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\nnumber=$(cat count 2>/dev/null || echo 1)\necho $((number + 1)) > count\n"
        f'exit "$(echo {" ".join(map(str, codes))} | cut -d" " -f"$number")"\n'
    )
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    done = call("bash", "nightly.sh", cwd=examples, PATH=path)
    assert (done.returncode, done.stdout.splitlines()) == (end, told)


def test_outputs_name_fields_of_the_result() -> None:
    from kaos_runner.result import Result

    schema: dict[str, Any] = Result.model_json_schema(by_alias=True)
    named = re.findall(r"`(\w+)", " ".join(row[1] for row in rows("Outputs")))
    assert set(named) <= set(schema["properties"])
